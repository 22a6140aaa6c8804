//! The seam to the engine.

use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use s3dedup_actors::Engine;

use super::StartError;
use crate::config::Config;

/// An engine that runs.
pub struct Started {
    /// The door for front ends.
    pub engine: Engine,
    /// Its life.
    pub control: EngineControl,
}

/// What boot needs of a running engine besides the door.
pub struct EngineControl {
    /// Ready when the engine cannot go on; says why.
    pub fatal: LocalBoxFuture<'static, String>,
    /// Finishes what is inside and closes the stores, within the time given.
    pub stop: Box<dyn FnOnce(Duration) -> LocalBoxFuture<'static, ()>>,
}

/// Starts the engine: stores, migrations of the schema, actors.
pub async fn start_engine(config: &Config) -> Result<Started, StartError> {
    let _ = config;
    Err(StartError::new("this build has no engine yet"))
}
