//! The HTTP front end a configuration asks for.

use std::any::Any;
use std::time::Duration;

use crate::config::Config;
use crate::http::stopping::Stopping;
use crate::http::{self, HttpSettings};
use crate::observe::Observer;
use actix_web::dev::Extensions;
use actix_web::web::ServiceConfig;

/// The routes, for every HTTP worker.
pub fn routes(
    config: &Config,
    observer: Observer,
    stopping: Stopping,
) -> impl Fn(&mut ServiceConfig) + Clone + Send + 'static {
    let settings = HttpSettings {
        prefix: config.filetracker.prefix.clone(),
        body_idle: Duration::from_secs(config.limits.body_idle_seconds),
        body_min_rate: config.limits.body_min_rate,
        access_log: config.logging.access,
        ..HttpSettings::default()
    };
    http::configure(settings, observer, stopping)
}

/// Sets up every accepted connection.
pub fn on_connect() -> impl Fn(&dyn Any, &mut Extensions) + Send + Sync + 'static {
    http::connection::on_connect(HttpSettings::default().tcp_user_timeout)
}
