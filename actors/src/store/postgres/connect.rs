//! Opening connections.

use std::time::Duration;

use deadpool_postgres::{ConfigConnectImpl, Connect};
use tokio::task::JoinHandle;
use tokio_postgres::config::{SslMode, TargetSessionAttrs};
use tokio_postgres::{Client, Config};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::fault::sql_error;
use super::settings::{PostgresSettings, TlsMode};
use super::tls;
use crate::model::{Error, Kind, Result};

/// A server that vanished without closing its connections is given up after about this long.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// Opens connections of one kind.
#[derive(Clone)]
pub struct Connector {
    config: Config,
    tls: MakeRustlsConnect,
    connect_timeout: Duration,
}

/// One open connection; dropping it closes the socket, whatever is under way on it.
pub struct Session {
    client: Client,
    task: JoinHandle<()>,
}

impl Connector {
    /// Checks the settings; connects to nothing yet.
    pub fn new(settings: &PostgresSettings) -> Result<Self> {
        let mut config = Config::new();
        config
            .host(&settings.host)
            .port(settings.port)
            .user(&settings.user)
            .dbname(&settings.database)
            .application_name(&settings.application_name)
            .connect_timeout(settings.connect_timeout)
            .tcp_user_timeout(SILENCE_MAX)
            .keepalives_idle(SILENCE_MAX / 2)
            .keepalives_interval(SILENCE_MAX / 5)
            .keepalives_retries(3)
            .target_session_attrs(TargetSessionAttrs::ReadWrite)
            .ssl_mode(match settings.tls {
                TlsMode::Disable => SslMode::Disable,
                TlsMode::Prefer => SslMode::Prefer,
                TlsMode::Require | TlsMode::VerifyFull => SslMode::Require,
            });
        if let Some(password) = &settings.password {
            config.password(password);
        }
        if !settings.is_pooled {
            // A proxy would refuse them. The server is to find out as well when this machine vanishes: until then the
            // locks of what was under way stand in the way of others.
            let statement_timeout = settings.statement_timeout.as_millis();
            config.options(format!(
                "-c statement_timeout={statement_timeout} -c idle_in_transaction_session_timeout={statement_timeout} \
                 -c default_transaction_isolation=read\\ committed -c client_connection_check_interval=5000 \
                 -c tcp_keepalives_idle=5 -c tcp_keepalives_interval=2 -c tcp_keepalives_count=3 -c tcp_user_timeout=10000"
            ));
        }
        let tls = tls::connector(settings)?;
        Ok(Self { config, tls, connect_timeout: settings.connect_timeout })
    }

    /// What tokio-postgres is told.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What a pool opens its connections with.
    pub fn for_pool(&self) -> impl Connect + use<> {
        ConfigConnectImpl { tls: self.tls.clone() }
    }

    /// Opens a connection; it is driven by the runtime of the caller.
    pub async fn connect(&self) -> Result<Session> {
        // The timeout of the library is for each address, and ends with the connection, not the log-in.
        let connect = self.for_pool();
        let connected = tokio::time::timeout(self.connect_timeout, connect.connect(&self.config));
        let late = |_| Error::new(Kind::Unavailable, "the database does not answer in time");
        let (client, task) =
            connected.await.map_err(late)?.map_err(|error| sql_error("connect to the database", error))?;
        Ok(Session { client, task })
    }
}

impl Session {
    /// The way to run statements.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The way to run transactions.
    pub fn client_mut(&mut self) -> &mut Client {
        &mut self.client
    }

    /// Waits until the connection has ended, for whatever reason.
    pub async fn closed(&mut self) {
        // The task's own failure is an end as well.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.task.abort();
    }
}
