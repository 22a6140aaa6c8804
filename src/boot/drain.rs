//! The end of a server.
//!
//! First signal: it is announced (every answer asks its client to close the connection, and `/ready` says 503, so that
//! balancers send nobody here any more), and for the delay all is served on. After that new requests are refused with 503,
//! on connections that are still accepted: so whoever asks how the server does hears it for as long as requests are in
//! flight, and does not take it for one that vanished. When none is left, or the drain time is over: no new connections,
//! the engine ends its threads and closes its stores, then status 0. Every step has a bound, so that nothing that is
//! stuck keeps the process alive. An engine that cannot go on ends the process with [`exit::FATAL`], so that it is
//! started afresh.

use std::time::{Duration, Instant};

use actix_web::dev::Server;

use super::engine::EngineControl;
use super::signals::Signals;
use crate::exit;
use crate::http::stopping::Stopping;

/// How much longer than the drain time the HTTP server may take: it looks at the time once a second.
const SERVER_STOP_EXTRA: Duration = Duration::from_secs(3);

/// How long the end may take.
#[derive(Debug, Clone, Copy)]
pub struct DrainTimes {
    /// All of it, as far as requests are concerned.
    pub total: Duration,
    /// Of that, how long the server serves on while `/ready` says that it stops.
    pub delay: Duration,
}

/// Runs the server until it is stopped; returns the exit code.
pub async fn until_stopped(
    server: Server,
    control: EngineControl,
    mut signals: Signals,
    stopping: Stopping,
    times: DrainTimes,
) -> u8 {
    let DrainTimes { total: drain, delay } = times;
    let EngineControl { mut fatal, quiet, stop } = control;
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
    let quiet = async {
        stopping.announce();
        // Whoever comes at the end of the delay needs time, too.
        tokio::time::sleep(delay.min(drain / 2)).await;
        stopping.refuse();
        // When time is up the rest is cut below.
        let _ = tokio::time::timeout(drain.saturating_sub(begun.elapsed()), quiet).await;
    };
    tokio::select! {
        reason = &mut fatal => return give_up(&reason),
        _ = &mut server => return give_up("http server: it ended by itself"),
        () = quiet => {}
    }
    // What has left the engine may still be on its way to its client.
    let stopped = handle.stop(begun.elapsed() < drain);
    tokio::select! {
        reason = &mut fatal => return give_up(&reason),
        _ = tokio::time::timeout(drain.saturating_sub(begun.elapsed()) + SERVER_STOP_EXTRA, async { tokio::join!(stopped, server) }) => {}
    }
    let requests_ms = begun.elapsed().as_millis();
    if begun.elapsed() >= drain {
        log::warn!("the drain time is over, requests in flight may have been cut duration_ms={requests_ms}");
    }

    // bounded by itself: a timeout around it could win and leave threads running and stores open
    tokio::select! {
        reason = &mut fatal => return give_up(&reason),
        () = stop(drain.saturating_sub(begun.elapsed())) => {}
    }
    log::info!("stopped requests_ms={requests_ms} duration_ms={}", begun.elapsed().as_millis());
    exit::OK
}

fn give_up(reason: &str) -> u8 {
    log::error!("cannot go on: {reason}");
    exit::FATAL
}
