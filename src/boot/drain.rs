//! The end of a server.
//!
//! First signal: the draining flag is up (health answers 503), no new connections, requests in
//! flight finish within the drain time, then the engine finishes, then status 0. An engine that
//! cannot go on ends the process with [`exit::FATAL`], so that it is started afresh.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use actix_web::dev::Server;

use super::engine::EngineControl;
use super::signals::Signals;
use crate::exit;

/// What the engine gets at least, however long the requests took.
const ENGINE_STOP_MIN: Duration = Duration::from_secs(5);

/// Runs the server until it is stopped; returns the exit code.
pub async fn until_stopped(
    server: Server,
    control: EngineControl,
    mut signals: Signals,
    draining: Arc<AtomicBool>,
    drain: Duration,
) -> u8 {
    let EngineControl { mut fatal, stop } = control;
    let handle = server.handle();
    let mut server = std::pin::pin!(server);

    tokio::select! {
        reason = &mut fatal => return give_up(&reason),
        ended = &mut server => {
            let reason = ended.err().map_or_else(|| "it ended by itself".to_owned(), |error| error.to_string());
            return give_up(&format!("http server: {reason}"));
        }
        signal = signals.first() => {
            log::info!("draining signal={signal} drain_seconds={}", drain.as_secs());
        }
    }

    let begun = Instant::now();
    // before the listener closes, so that a balancer can see it on a connection it has
    draining.store(true, Ordering::SeqCst);
    let stopped = handle.stop(true);
    tokio::select! {
        reason = &mut fatal => return give_up(&reason),
        _ = async { tokio::join!(stopped, server) } => {}
    }
    let requests_ms = begun.elapsed().as_millis();
    if begun.elapsed() >= drain {
        log::warn!("the drain time is over, requests in flight may have been cut duration_ms={requests_ms}");
    }

    let left = drain.saturating_sub(begun.elapsed()).max(ENGINE_STOP_MIN);
    tokio::select! {
        reason = &mut fatal => return give_up(&reason),
        done = tokio::time::timeout(left, stop(left)) => {
            if done.is_err() {
                // what was acknowledged is durable already, and the rest is undone at the next start
                log::warn!("the engine did not stop in time seconds={}", left.as_secs());
            }
        }
    }
    log::info!("stopped requests_ms={requests_ms} duration_ms={}", begun.elapsed().as_millis());
    exit::OK
}

fn give_up(reason: &str) -> u8 {
    log::error!("cannot go on: {reason}");
    exit::FATAL
}
