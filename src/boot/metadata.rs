//! The metadata store a configuration asks for.

use std::sync::Arc;
use std::time::Duration;

use s3dedup_actors::model::Kind;
use s3dedup_actors::store::instances::InstanceRegistry;
use s3dedup_actors::store::meta::{
    MetaBrowser, MetaCare, MetaStore, MigrationJournal, MirrorJournal, PostgresStore, SqliteSettings, SqliteStore,
};
use s3dedup_actors::store::postgres::{PostgresSettings, TlsMode};
use tokio::time::Instant;

use super::StartError;
use crate::config::{Config, MetadataType, SslMode};

/// How long the start waits for a database that does not answer.
const OPEN_MAX: Duration = Duration::from_secs(30);
/// The first pause between attempts; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(250);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(4);

/// An open store.
pub struct Metadata {
    /// The store.
    pub store: Arc<dyn MetaStore>,
    /// The same one, for who looks after it.
    pub care: Arc<dyn MetaCare>,
    /// The same one, as what migrations are noted in.
    pub journal: Arc<dyn MigrationJournal>,
    /// The same one, as what is remembered beside an old server.
    pub mirror: Arc<dyn MirrorJournal>,
    /// The same one, for people who look around.
    pub browser: Arc<dyn MetaBrowser>,
    /// Where instances that share the store know each other from.
    pub registry: Option<Arc<dyn InstanceRegistry>>,
}

impl Metadata {
    fn of<S>(store: &Arc<S>, registry: Option<Arc<dyn InstanceRegistry>>) -> Self
    where
        S: MetaCare + MigrationJournal + MirrorJournal + MetaBrowser,
    {
        Self {
            store: Arc::clone(store) as _,
            care: Arc::clone(store) as _,
            journal: Arc::clone(store) as _,
            mirror: Arc::clone(store) as _,
            browser: Arc::clone(store) as _,
            registry,
        }
    }
}

/// Opens the store; `instance` is this instance's name.
pub async fn open(config: &Config, instance: &str) -> Result<Metadata, StartError> {
    match config.kvstorage_type {
        MetadataType::Sqlite => {
            let store = open_sqlite(config)?;
            Ok(Metadata::of(&store, None))
        }
        MetadataType::Postgres => {
            let store = open_postgres(config, instance).await?;
            Ok(Metadata::of(&store, Some(Arc::clone(&store) as _)))
        }
    }
}

/// Metadata actors. With SQLite half of the connections answer look-ups, each on its actor's thread; a
/// PostgreSQL server is asked without blocking any.
pub fn actors(config: &Config) -> usize {
    match config.kvstorage_type {
        MetadataType::Sqlite => config.sqlite.pool_size / 2,
        MetadataType::Postgres => 1,
    }
}

fn open_sqlite(config: &Config) -> Result<Arc<SqliteStore>, StartError> {
    let path = &config.sqlite.path;
    let backlog = config.actors.metadata_backlog_max;
    let connections = config.sqlite.pool_size - actors(config);
    let settings = SqliteSettings { path: path.clone(), connections, backlog };
    let failed = |error| StartError::new(format!("cannot open the database path={} error=\"{error}\"", path.display()));
    Ok(Arc::new(SqliteStore::open(&settings).map_err(failed)?))
}

/// Opens PostgreSQL; one that is not there yet, as when everything is started at once, is waited for.
async fn open_postgres(config: &Config, instance: &str) -> Result<Arc<PostgresStore>, StartError> {
    let settings = postgres_settings(config, instance);
    let (connections, backlog) = (config.postgres.pool_size, config.actors.metadata_backlog_max);
    let place = place(config);
    let deadline = Instant::now() + OPEN_MAX;
    let (mut pause, mut is_told) = (PAUSE_MIN, false);
    loop {
        let error = match PostgresStore::open(&settings, connections, backlog).await {
            Ok(store) if is_told => {
                log::info!("the database answers {place}");
                return Ok(Arc::new(store));
            }
            Ok(store) => return Ok(Arc::new(store)),
            Err(error) => error,
        };
        if error.kind() != Kind::Unavailable || Instant::now() + pause > deadline {
            return Err(StartError::new(format!("cannot open the database {place} error=\"{error}\"")));
        }
        if !std::mem::replace(&mut is_told, true) {
            let seconds = OPEN_MAX.as_secs();
            log::warn!("cannot open the database, trying again for {seconds} s {place} error=\"{error}\"");
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Where the database is, for messages.
pub fn place(config: &Config) -> String {
    let postgres = &config.postgres;
    format!("host={} port={} user={} dbname={}", postgres.host, postgres.port, postgres.user, postgres.dbname)
}

/// How the metadata store connects.
pub fn postgres_settings(config: &Config, instance: &str) -> PostgresSettings {
    let postgres = &config.postgres;
    PostgresSettings {
        host: postgres.host.clone(),
        port: postgres.port,
        user: postgres.user.clone(),
        password: postgres.password.as_ref().map(|password| password.reveal().to_owned()),
        database: postgres.dbname.clone(),
        tls: match postgres.sslmode {
            SslMode::Disable => TlsMode::Disable,
            SslMode::Prefer => TlsMode::Prefer,
            SslMode::Require => TlsMode::Require,
            SslMode::VerifyFull => TlsMode::VerifyFull,
        },
        root_certificates: postgres.sslrootcert.clone(),
        connect_timeout: Duration::from_secs(postgres.connect_timeout_seconds),
        statement_timeout: Duration::from_millis(postgres.statement_timeout_ms),
        is_pooled: postgres.transaction_pooling,
        application_name: format!("s3dedup {instance}"),
    }
}

/// How the session that holds the locks connects: past a pooling proxy, in which locks would get lost.
pub fn lock_settings(config: &Config, instance: &str) -> PostgresSettings {
    PostgresSettings {
        host: config.postgres.lock_host.clone(),
        port: config.postgres.lock_port,
        is_pooled: false,
        application_name: format!("s3dedup-locks {instance}"),
        ..postgres_settings(config, instance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Inputs, load};

    #[test]
    fn the_lock_session_goes_past_the_proxy() {
        let variable = |name: &str| match name {
            "KVSTORAGE_TYPE" => Some("postgres".into()),
            "POSTGRES_TRANSACTION_POOLING" => Some("true".into()),
            "POSTGRES_PASSWORD" => Some("hunter2".into()),
            "POSTGRES_PORT" => Some("6432".into()),
            "POSTGRES_LOCK_PORT" => Some("5432".into()),
            _ => None,
        };
        let config = load(&Inputs { file: None, variable: &variable, flags: Vec::new() }).unwrap().config;
        let (metadata, locks) = (postgres_settings(&config, "web1:80"), lock_settings(&config, "web1:80"));
        assert_eq!((metadata.port, metadata.is_pooled), (6432, true));
        assert_eq!((locks.port, locks.is_pooled), (5432, false));
        assert_eq!(metadata.application_name, "s3dedup web1:80");
        assert_eq!(locks.application_name, "s3dedup-locks web1:80");
        assert!(!format!("{metadata:?} {}", place(&config)).contains("hunter2"));
    }
}
