//! The actix server.

use std::any::Any;
use std::net::TcpListener;
use std::time::Duration;

use actix_web::dev::{Extensions, Server};
use actix_web::web::ServiceConfig;
use actix_web::{App, HttpServer};

use super::StartError;
use crate::config::Config;

/// Longer than the 60 s after which common proxies let go of an idle connection, so that we do not
/// close one which the proxy is just about to use.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// How long a client may take to send the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may take to close its side.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// What actix allows a worker by default.
const WORKER_CONNECTIONS_MAX: u64 = 25_000;
/// Fewer would make no server.
const WORKER_CONNECTIONS_MIN: u64 = 16;

/// Starts the server on `listener`.
pub fn start<F, C>(
    config: &Config,
    open_files: u64,
    listener: TcpListener,
    routes: F,
    on_connect: C,
) -> Result<Server, StartError>
where
    F: FnOnce(&mut ServiceConfig) + Clone + Send + 'static,
    C: Fn(&dyn Any, &mut Extensions) + Send + Sync + 'static,
{
    let workers = config.actors.http_workers();
    let server = HttpServer::new(move || App::new().configure(routes.clone()))
        .workers(workers)
        .max_connections(connections(open_files, workers))
        .keep_alive(KEEP_ALIVE)
        .client_request_timeout(HEAD_TIMEOUT)
        .client_disconnect_timeout(DISCONNECT_TIMEOUT)
        // before listen(), which takes it along
        .on_connect(on_connect)
        .shutdown_timeout(config.limits.drain_seconds.saturating_sub(config.limits.drain_delay_seconds))
        // actix takes SIGINT for "at once"; ours are in `signals`
        .disable_signals()
        .listen(listener)
        .map_err(|error| StartError::new(format!("cannot listen: {error}")))?;
    Ok(server.run())
}

/// Connections of a worker: all workers together leave half of the open files to spool files and
/// stores, so that a crowd of clients waits at the door instead of breaking the requests inside.
fn connections(open_files: u64, workers: usize) -> usize {
    let share = open_files / 2 / workers.max(1) as u64;
    usize::try_from(share.clamp(WORKER_CONNECTIONS_MIN, WORKER_CONNECTIONS_MAX)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_half_of_the_open_files() {
        assert_eq!(connections(1024, 4), 128);
        assert_eq!(connections(u64::MAX, 1), 25_000);
        assert_eq!(connections(10, 8), 16);
    }
}
