//! The typed configuration of what instances share: PostgreSQL, locks, names.

use std::path::PathBuf;

use serde::Deserialize;

use super::resolve::host_and_port;
use super::{Config, Secret};

/// Where metadata lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MetadataType {
    /// In a local file.
    Sqlite,
    /// In a PostgreSQL server.
    Postgres,
}

/// Where locks live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LocksType {
    /// In this process.
    Memory,
    /// In the PostgreSQL server.
    Postgres,
}

impl LocksType {
    /// The word of the configuration, which instances tell each other.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Postgres => "postgres",
        }
    }
}

/// Section `postgres`.
#[derive(Debug, Clone, Deserialize)]
pub struct Postgres {
    /// Host.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Role.
    pub user: String,
    /// Its password, if it needs one.
    pub password: Option<Secret>,
    /// Database.
    pub dbname: String,
    /// Connections of the metadata store.
    pub pool_size: usize,
    /// Whether connections are encrypted.
    pub sslmode: SslMode,
    /// File of root certificates.
    pub sslrootcert: Option<PathBuf>,
    /// Longest time to connect.
    pub connect_timeout_seconds: u64,
    /// Longest time of a statement.
    pub statement_timeout_ms: u64,
    /// Whether a proxy gives each transaction another connection.
    pub transaction_pooling: bool,
    /// Host that the lock session goes to.
    pub lock_host: String,
    /// Port that the lock session goes to.
    pub lock_port: u16,
}

/// Whether connections to PostgreSQL are encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SslMode {
    /// Never.
    Disable,
    /// When the server can.
    Prefer,
    /// Always.
    Require,
    /// Always, and the server must prove who it is.
    VerifyFull,
}

/// Section `locks`.
#[derive(Debug, Clone, Deserialize)]
pub struct Locks {
    /// Locks that one instance holds in PostgreSQL at once.
    pub held_max: usize,
}

/// Section `instance`.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Instance {
    id: Option<String>,
    address: Option<String>,
}

impl Config {
    /// The name of this instance; `port` is the one it listens on.
    pub fn instance_id(&self, port: u16) -> String {
        self.instance.id.clone().unwrap_or_else(|| host_and_port(port.into()))
    }

    /// The address of this instance, for people; `port` is the one it listens on.
    pub fn instance_address(&self, port: u16) -> String {
        self.instance.address.clone().unwrap_or_else(|| host_and_port(port.into()))
    }
}
