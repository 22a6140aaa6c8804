//! Where a PostgreSQL server is and how to get in.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Whether connections are encrypted, and what is checked then; as libpq's `sslmode` has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TlsMode {
    /// No TLS.
    Disable,
    /// TLS if the server offers it, whoever it is.
    Prefer,
    /// TLS or nothing. Whoever the server is, unless root certificates are given: then its certificate
    /// must come from one of them.
    Require,
    /// TLS, and the certificate must be valid for the host name.
    VerifyFull,
}

/// One server, as one kind of connection uses it.
#[derive(Clone)]
pub struct PostgresSettings {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Role.
    pub user: String,
    /// Its password, if it needs one.
    pub password: Option<String>,
    /// Database.
    pub database: String,
    /// What TLS is used.
    pub tls: TlsMode,
    /// File of root certificates (PEM); the public ones when there is none.
    pub root_certificates: Option<PathBuf>,
    /// The longest time to connect, the log-in included.
    pub connect_timeout: Duration,
    /// The longest time that a statement may take.
    pub statement_timeout: Duration,
    /// Whether a proxy stands in between that gives each transaction another connection: nothing may be
    /// kept in a session then, neither settings nor prepared statements.
    pub is_pooled: bool,
    /// The name that the server shows for the connections.
    pub application_name: String,
}

impl fmt::Debug for PostgresSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, user, database, tls, .. } = self;
        write!(f, "PostgresSettings({user}@{host}:{port}/{database} tls={tls:?})")
    }
}
