//! The seam to the HTTP front end.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use actix_web::dev::Extensions;
use actix_web::web::ServiceConfig;
use s3dedup_actors::Engine;

use crate::config::Config;

/// The routes, for every HTTP worker.
pub fn routes(
    config: &Config,
    engine: Engine,
    draining: Arc<AtomicBool>,
) -> impl FnOnce(&mut ServiceConfig) + Clone + Send + 'static {
    let _ = (config, engine, draining);
    |_: &mut ServiceConfig| {}
}

/// Sets up every accepted connection.
pub fn on_connect() -> impl Fn(&dyn Any, &mut Extensions) + Send + Sync + 'static {
    |_: &dyn Any, _: &mut Extensions| {}
}
