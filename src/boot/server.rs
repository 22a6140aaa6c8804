//! The actix server.

use std::net::TcpListener;
use std::sync::Arc;

use actix_web::dev::Server;
use actix_web::web::ServiceConfig;
use rustls::ServerConfig;

use super::StartError;
use crate::config::Config;
use crate::http::connection::{self, Reception};

/// What actix allows a worker by default.
const WORKER_CONNECTIONS_MAX: u64 = 25_000;
/// Fewer would make no server.
const WORKER_CONNECTIONS_MIN: u64 = 16;

/// What the server answers at.
pub struct Listeners {
    /// For clients, and for all when there is no other one.
    pub main: TcpListener,
    /// For those who look after the server.
    pub admin: Option<TcpListener>,
    /// How connections to both are encrypted, if they are.
    pub tls: Option<ServerConfig>,
}

/// Starts the server on `listeners`.
pub fn start<F>(
    config: &Config,
    open_files: u64,
    listeners: Listeners,
    routes: F,
    reception: Reception,
) -> Result<Server, StartError>
where
    F: FnOnce(&mut ServiceConfig) + Clone + Send + 'static,
{
    let workers = config.actors.http_workers();
    let Listeners { main, admin, tls } = listeners;
    let refuse = |error| StartError::new(format!("cannot listen: {error}"));
    let mut server = Server::build()
        .workers(workers)
        .max_concurrent_connections(connections(open_files, workers))
        .shutdown_timeout(config.limits.drain_seconds.saturating_sub(config.limits.drain_delay_seconds))
        // actix takes SIGINT for "at once"; ours are in `signals`
        .disable_signals();
    let tls = tls.map(Arc::new);
    for listener in [Some(main), admin].into_iter().flatten() {
        let address = listener.local_addr().map_err(refuse)?;
        let (reception, tls, routes) = (reception.clone(), tls.clone(), routes.clone());
        let signal = server.graceful_shutdown_signal();
        let service =
            move || connection::serve(reception.clone(), address, tls.clone(), signal.clone(), routes.clone());
        server = server.listen(format!("http {address}"), listener, service).map_err(refuse)?;
    }
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
