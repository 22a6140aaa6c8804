//! Speaking to an old Filetracker server, of either protocol, as a client.
//!
//! [`OldServer`] knows the protocol and the old servers' habits; it decides nothing. Absence is a value: a file is absent only
//! when a server that speaks the protocol says so, never because something else answers at its address. What the servers
//! do is written down in `docs/migration.md`.

mod address;
pub mod calendar;
mod call;
pub mod dates;
mod list;
mod names;
mod protocol;
mod read;
mod write;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

use self::address::Address;
use self::call::Clients;
use self::protocol::Known;
use crate::model::{Result, Stamp};
use crate::runtime::breaker::Breaker;
use crate::spool::BodyEncoding;

pub use self::list::{ListedName, NameLines};
pub use self::protocol::Protocol;
pub use self::read::OldDownload;
pub use self::write::{OldDelete, UNPACKED_PER_SECOND_MIN};

/// How patient the client is.
#[derive(Clone, Debug)]
pub struct OldServerLimits {
    /// The longest time to connect.
    pub connect: Duration,
    /// The longest time of a request without a body on either side.
    pub small: Duration,
    /// The longest silence while an answer comes.
    pub silence: Duration,
    /// The longest silence of a listing: the server looks at every file before it says the first names.
    pub list_silence: Duration,
    /// Whether a long file is looked at again when its bytes have come, so that bytes of one version are never taken for
    /// those of another. With version 1 it is always done, for short ones, too.
    pub looks_again: bool,
    /// Whether a server that does not answer is left alone for a moment, and callers are told at once.
    pub breaks: bool,
}

impl Default for OldServerLimits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            small: Duration::from_secs(20),
            silence: Duration::from_secs(30),
            list_silence: Duration::from_secs(600),
            looks_again: true,
            breaks: false,
        }
    }
}

/// What an old server says of a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OldFile {
    /// Its version.
    pub stamp: Stamp,
    /// Its size in bytes, uncompressed, as the server claims.
    pub logical_size: Option<u64>,
    /// The number of bytes of its body.
    pub length: Option<u64>,
    /// How its body is encoded: gzip by version 2, plain by version 1.
    pub encoding: BodyEncoding,
    /// The server's mark of these very bytes, if it has one.
    pub tag: Option<String>,
    /// Whether the version is about the time at which the server said so. Old servers note a version after they have stored a
    /// file, which has the time for its version until then: it may not be the real one.
    pub is_young: bool,
}

impl OldFile {
    /// Whether it is the same file, in the same version, however old that has become.
    pub fn is_same(&self, other: &Self) -> bool {
        Self { is_young: other.is_young, ..self.clone() } == *other
    }
}

/// An old Filetracker server, or another s3dedup. Clones share everything.
#[derive(Clone)]
pub struct OldServer(Arc<Inner>);

struct Inner {
    address: Address,
    limits: OldServerLimits,
    clients: Clients,
    breaker: Option<Arc<Breaker>>,
    known: Mutex<Option<Known>>,
}

impl OldServer {
    /// The server at `url`, its prefix included and without `/files`. Nothing is asked yet.
    pub fn new(url: &str, limits: OldServerLimits) -> Result<Self> {
        let address = Address::parse(url)?;
        let clients = Clients::new(&address, &limits)?;
        let breaker = limits.breaks.then(|| Arc::new(Breaker::new("the old server")));
        Ok(Self(Arc::new(Inner { address, limits, clients, breaker, known: Mutex::default() })))
    }

    /// The same server, asked with other limits. What one finds out about its being down, the other knows.
    pub fn with_limits(&self, limits: OldServerLimits) -> Result<Self> {
        let address = self.0.address.clone();
        let clients = Clients::new(&address, &limits)?;
        let breaker = self.0.breaker.clone().filter(|_| limits.breaks);
        Ok(Self(Arc::new(Inner { address, limits, clients, breaker, known: Mutex::default() })))
    }

    /// Fails while the server is known not to answer.
    pub fn expect_up(&self) -> Result<()> {
        self.0.breaker.as_deref().map_or(Ok(()), Breaker::expect_closed)
    }

    /// Whether calls are let through: `closed`, `open` or `probing`.
    pub fn breaker_state(&self) -> &'static str {
        self.0.breaker.as_deref().map_or("closed", Breaker::state)
    }
}

/// The address, without a password.
impl fmt::Display for OldServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.address.fmt(f)
    }
}

impl fmt::Debug for OldServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OldServer({self})")
    }
}
