//! From a checked configuration to a running server, and back to nothing.
//!
//! Order of start: open files, folders and their locks, the address, the engine, HTTP. Locks and the
//! address are taken before the engine touches any data, so that a second server on the same data or
//! port does no harm, but answers only when the engine is there. With a database that instances share, this one joins
//! them before its engine runs. The end is in [`drain`].

pub mod banner;
pub mod beside;
pub mod drain;
pub mod engine;
pub mod folders;
pub mod front;
pub mod listen;
pub mod matching;
pub mod membership;
pub mod metadata;
pub mod open_files;
pub mod reload;
pub mod server;
pub mod signals;

#[cfg(test)]
mod tests;

use std::fmt;
use std::net::TcpListener;
use std::time::Duration;

use s3dedup_actors::failpoint::{self, Point};

use crate::access::Access;
use crate::config::{Config, listen as listen_address, one_line};
use crate::http::doors::Doors;
use crate::http::stopping::Stopping;
use crate::tls::Certificates;
use crate::{exit, logging};

use signals::Signals;

/// Why the server cannot start; one line for people.
#[derive(Debug)]
pub struct StartError(String);

impl StartError {
    /// The reason in lower case, without a full stop.
    pub fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&one_line(&self.0))
    }
}

impl std::error::Error for StartError {}

/// Serves until stopped; returns the exit code.
pub fn run(config: &Config) -> u8 {
    let _flush = logging::init_server(&config.logging);
    let served = Signals::listen().and_then(|signals| actix_rt::System::new().block_on(serve(config, signals)));
    served.unwrap_or_else(|error| {
        log::error!("cannot start: {error}");
        exit::CANNOT_START
    })
}

/// A crash point of the start.
async fn reached(point: Point) -> Result<(), StartError> {
    failpoint::hit(point).await.map_err(|error| StartError::new(error.to_string()))
}

/// The tokens, where the configuration names a file of them.
fn access(config: &Config) -> Result<Access, StartError> {
    let Some(path) = config.access.tokens_file.clone() else { return Ok(Access::open()) };
    let access = Access::with_tokens(path, config.access.failures_per_minute);
    let access = access.map_err(|reason| StartError::new(format!("access tokens: {reason}")))?;
    log::info!("clients must show a token tokens={} public_read={}", access.tokens(), config.access.public_read);
    Ok(access)
}

async fn serve(config: &Config, mut signals: Signals) -> Result<u8, StartError> {
    let hangups = reload::Hangups::listen()?;
    let open_files = open_files::raise();
    // Before anything is touched: what is asked for by mistake must not be served to everybody.
    let access = access(config)?;
    let certificates = Certificates::load(&config.tls).map_err(|reason| StartError::new(format!("tls: {reason}")))?;
    folders::create(config)?;
    // never released, not even when this returns: a thread that did not end in time may still write,
    // until the kernel ends it and drops the locks
    std::mem::forget(folders::lock(config)?);
    let socket = listen::bind(&config.bucket.address, config.bucket.port)?;
    let port = listen::port(&socket)?;
    let admin_socket = match config.access.admin_listen.as_deref().and_then(listen_address) {
        Some((host, port)) => Some(listen::bind(host, port)?),
        None => None,
    };

    let started = tokio::select! {
        started = engine::start_engine(config, port) => started?,
        // nothing is in flight yet, and what the engine left half done it must bear anyway
        signal = signals.first() => {
            log::info!("stopped before the start was complete signal={signal}");
            return Ok(exit::OK);
        }
    };

    reached(Point::StartBeforeServe).await?;
    let stopping = Stopping::default();
    let listener = listen::start(socket)?;
    let address = listener.local_addr().map_err(|error| StartError::new(format!("no local address: {error}")))?;
    let admin = admin_socket.map(listen::start).transpose()?;
    let admin_address = admin.as_ref().map(TcpListener::local_addr).transpose();
    let admin_address = admin_address.map_err(|error| StartError::new(format!("no local address: {error}")))?;
    let doors = admin_address.map_or(Doors::One, |admin| Doors::Two { admin });
    let tls = certificates.as_ref().map(Certificates::server_config).transpose().map_err(StartError::new)?;
    let is_encrypted = tls.is_some();
    let front = front::front(config, started.observer.clone(), stopping.clone(), access.clone(), doors);
    let reception = front::reception(config, Some(front.clone()));
    let listeners = server::Listeners { main: listener, admin, tls };
    let server = server::start(config, open_files, listeners, front::routes(front), reception)?;

    started.observer.set_certificate_expiry(certificates.as_deref().map(Certificates::expiry));
    if let Some(certificates) = &certificates {
        certificates.tell();
    }
    let reloaded = reload::Reloaded { access: access.clone(), certificates };
    actix_rt::spawn(reloaded.at(hangups, started.observer.clone()));
    actix_rt::spawn(started.observer.watch());
    log::info!("listening address={address} workers={}", config.actors.http_workers());
    if let Some(address) = admin_address {
        log::info!("listening for metrics, api and dashboard address={address}");
    }
    let lines = banner::lines(&banner::Place {
        address,
        admin: admin_address.unwrap_or(address),
        prefix: &config.filetracker.prefix,
        is_encrypted,
        is_guarded: access.is_guarded(),
    });
    if let Err(error) = logging::announce(&config.logging, &lines) {
        log::warn!("cannot write to standard output error={error}");
    }
    let seconds = Duration::from_secs;
    let times = drain::DrainTimes {
        total: seconds(config.limits.drain_seconds),
        delay: seconds(config.limits.drain_delay_seconds),
    };
    Ok(drain::until_stopped(server, started.control, signals, stopping, times).await)
}
