//! The HTTP front end a configuration asks for.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use crate::access::Access;
use crate::config::Config;
use crate::http::connection::Crowd;
use crate::http::doors::Doors;
use crate::http::guard::Guard;
use crate::http::lull::Lulls;
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
    access: Access,
    doors: Doors,
) -> impl Fn(&mut ServiceConfig) + Clone + Send + 'static {
    let settings = HttpSettings {
        prefix: config.filetracker.prefix.clone(),
        body_idle: Duration::from_secs(config.limits.body_idle_seconds),
        body_min_rate: config.limits.body_min_rate,
        stalled_reader: Duration::from_secs(config.limits.stalled_reader_seconds),
        guard: Guard {
            access,
            public_read: config.access.public_read,
            metrics: config.access.metrics,
            proxies: config.access.trusted_proxies(),
        },
        doors,
        access_log: config.logging.access,
        ..HttpSettings::default()
    };
    http::configure(settings, observer, stopping)
}

/// Sets up every accepted connection, and looks after it until it ends: in the background of this thread, as long as the
/// function lives.
pub fn on_connect(config: &Config) -> impl Fn(&dyn Any, &mut Extensions) + Send + Sync + 'static {
    let crowd =
        Crowd { connections_max: config.limits.connections_per_address_max, proxies: config.access.trusted_proxies() };
    let HttpSettings { tcp_user_timeout, longest_lull, .. } = HttpSettings::default();
    let lulls = Lulls::new(longest_lull);
    actix_rt::spawn(Lulls::end_the_quiet(Arc::downgrade(&lulls)));
    http::connection::on_connect(tcp_user_timeout, crowd, lulls)
}
