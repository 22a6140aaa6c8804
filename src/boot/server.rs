//! The actix server.

use std::any::Any;
use std::net::TcpListener;
use std::time::Duration;

use actix_web::dev::{Extensions, Server};
use actix_web::web::ServiceConfig;
use actix_web::{App, HttpServer};
use rustls::ServerConfig;

use super::StartError;
use crate::config::Config;

/// Longer than the 60 s after which common proxies let go of an idle connection, so that we do not
/// close one which the proxy is just about to use.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// How long a client may take to send the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may take to agree on encryption: some round trips.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a client may take to close its side.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(5);
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
pub fn start<F, C>(
    config: &Config,
    open_files: u64,
    listeners: Listeners,
    routes: F,
    on_connect: C,
) -> Result<Server, StartError>
where
    F: FnOnce(&mut ServiceConfig) + Clone + Send + 'static,
    C: Fn(&dyn Any, &mut Extensions) + Send + Sync + 'static,
{
    let workers = config.actors.http_workers();
    let connections_max = connections(open_files, workers);
    let Listeners { main, admin, tls } = listeners;
    let mut server = HttpServer::new(move || App::new().configure(routes.clone()))
        .workers(workers)
        .max_connections(connections_max)
        .keep_alive(KEEP_ALIVE)
        .client_request_timeout(HEAD_TIMEOUT)
        .client_disconnect_timeout(DISCONNECT_TIMEOUT)
        .tls_handshake_timeout(HANDSHAKE_TIMEOUT)
        // A worker with so many handshakes takes no connection at all, of neither listener. Clients that send nothing
        // cost no more than any other idle connection, so that fewer would only be easier to use up.
        .max_connection_rate(connections_max)
        // before listen(), which takes it along
        .on_connect(on_connect)
        .shutdown_timeout(config.limits.drain_seconds.saturating_sub(config.limits.drain_delay_seconds))
        // actix takes SIGINT for "at once"; ours are in `signals`
        .disable_signals();
    for listener in [Some(main), admin].into_iter().flatten() {
        let listening = match &tls {
            Some(tls) => server.listen_rustls_0_23(listener, tls.clone()),
            None => server.listen(listener),
        };
        server = listening.map_err(|error| StartError::new(format!("cannot listen: {error}")))?;
    }
    Ok(server.run())
}

/// Descriptors of a connection: the library's, and the one of its [watch](crate::http::lull).
const DESCRIPTORS_EACH: u64 = 2;

/// Connections of a worker: all workers together leave half of the open files to spool files and
/// stores, so that a crowd of clients waits at the door instead of breaking the requests inside.
fn connections(open_files: u64, workers: usize) -> usize {
    let share = open_files / 2 / DESCRIPTORS_EACH / workers.max(1) as u64;
    usize::try_from(share.clamp(WORKER_CONNECTIONS_MIN, WORKER_CONNECTIONS_MAX)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_half_of_the_open_files() {
        assert_eq!(connections(1024, 4), 64);
        assert_eq!(connections(u64::MAX, 1), 25_000);
        assert_eq!(connections(10, 8), 16);
    }
}
