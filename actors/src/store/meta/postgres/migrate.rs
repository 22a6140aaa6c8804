//! Bringing the schema up to date.

use tokio_postgres::SimpleQueryMessage;

use crate::model::{Error, Kind, Result};
use crate::store::postgres::{Session, sql_error};

/// The version of the schema, to be raised with every change of tables or functions.
const VERSION: usize = 13;

/// Tables, indexes and views: what made them what they are, and the version that it came with. Steps are only ever added, and
/// each must leave what the release before it needs: instances are updated one after the other.
const STEPS: &[(usize, &str)] = &[
    (1, include_str!("schema/0001_initial.sql")),
    (3, include_str!("schema/0003_quarantine.sql")),
    (4, include_str!("schema/0004_belonging.sql")),
    (6, include_str!("schema/0006_damage.sql")),
    (7, include_str!("schema/0007_mirror.sql")),
    (8, include_str!("schema/0008_migrations.sql")),
    (9, include_str!("schema/0009_suspects.sql")),
    (10, include_str!("schema/0010_telling.sql")),
    (11, include_str!("schema/0011_illegible.sql")),
];

/// Functions as they are now: all are made anew with every new version. One that is no longer needed, or needs other
/// arguments, is left as it is for the release before, and dropped by a step later.
const FUNCTIONS: &[&str] = &[
    include_str!("schema/functions/transaction.sql"),
    include_str!("schema/functions/put.sql"),
    include_str!("schema/functions/clean.sql"),
    include_str!("schema/functions/instances.sql"),
    include_str!("schema/functions/care.sql"),
    include_str!("schema/functions/quarantine.sql"),
    include_str!("schema/functions/beside.sql"),
    include_str!("schema/functions/migrations.sql"),
];

/// What the lock session and the queries need.
const SERVER_VERSION_MIN: u32 = 140_000;

/// The lock that instances which start at the same time wait for; in the space of two keys.
const TAKE_TURNS: &str = "SELECT pg_advisory_xact_lock(1395868740, 0)";

/// Checks the server and applies the steps that are missing, all in one transaction; refuses a newer
/// database.
pub(super) async fn migrate(session: &mut Session) -> Result<()> {
    check_server(session).await?;
    if version(session).await? == Some(VERSION) {
        return Ok(());
    }
    let failed = |error| sql_error("bring the database schema up to date", error);
    let client = session.client_mut();
    client.batch_execute("BEGIN ISOLATION LEVEL READ COMMITTED").await.map_err(failed)?;
    let outcome = steps(session).await;
    let end = if outcome.is_ok() { "COMMIT" } else { "ROLLBACK" };
    session.client().batch_execute(end).await.map_err(failed)?;
    outcome
}

async fn check_server(session: &Session) -> Result<()> {
    let refuse = |problem: String| Err(Error::new(Kind::Invalid, problem));
    let number = setting(session, "server_version_num").await?;
    if number.parse::<u32>().unwrap_or_default() < SERVER_VERSION_MIN {
        let version = setting(session, "server_version").await?;
        return refuse(format!("the database server is PostgreSQL {version}: 14 or newer is needed"));
    }
    let encoding = setting(session, "server_encoding").await?;
    if encoding != "UTF8" {
        return refuse(format!("the database has encoding {encoding}: make one with ENCODING 'UTF8'"));
    }
    if setting(session, "fsync").await? == "off" {
        log::warn!("the database server runs with fsync=off: a crash of its machine loses acknowledged files");
    }
    Ok(())
}

async fn setting(session: &Session, name: &str) -> Result<String> {
    let value = one(session, &format!("SELECT current_setting('{name}')")).await?;
    Ok(value.unwrap_or_default())
}

/// The version of the schema; `None` when there is none.
async fn version(session: &Session) -> Result<Option<usize>> {
    // Asks the tables and not to_regclass(), whose memory may be older than the turn that was waited for.
    let exists = "SELECT 1 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = 's3dedup' AND c.relname = 'schema_versions'";
    if one(session, exists).await?.is_none() {
        return Ok(None);
    }
    let version = one(session, "SELECT max(version) FROM s3dedup.schema_versions").await?;
    Ok(version.and_then(|version| version.parse().ok()))
}

/// The first column of the first row, by the protocol that every proxy understands.
async fn one(session: &Session, sql: &str) -> Result<Option<String>> {
    let failed = |error| sql_error("read the database schema", error);
    let messages = session.client().simple_query(sql).await.map_err(failed)?;
    let mut rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    Ok(rows.next().and_then(|row| row.get(0)).map(str::to_owned))
}

async fn steps(session: &Session) -> Result<()> {
    let failed = |error| sql_error("bring the database schema up to date", error);
    let run = async |sql: &str| session.client().batch_execute(sql).await.map_err(failed);
    // A step may take as long as it needs, and so may the one before this.
    run("SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0").await?;
    run(TAKE_TURNS).await?;
    let done = version(session).await?.unwrap_or_default();
    if done > VERSION {
        let text =
            format!("the database has schema version {done}, this program knows up to {VERSION}: use a newer program");
        return Err(Error::new(Kind::Invalid, text));
    }
    // Another instance did it meanwhile.
    if done == VERSION {
        return Ok(());
    }
    if done == 0 {
        run("CREATE SCHEMA IF NOT EXISTS s3dedup;
            CREATE TABLE s3dedup.schema_versions (version INTEGER PRIMARY KEY, applied_at TIMESTAMPTZ NOT NULL)")
        .await?;
    }
    for (_, step) in STEPS.iter().filter(|(version, _)| *version > done) {
        run(step).await?;
    }
    // They may call each other.
    run("SET LOCAL check_function_bodies = off").await?;
    for functions in FUNCTIONS {
        run(functions).await?;
    }
    run(&format!("INSERT INTO s3dedup.schema_versions VALUES ({VERSION}, now())")).await?;
    log::info!("database schema is now at version={VERSION} former={done}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_changes_the_schema_raises_its_version() {
        let mut hash = blake3::Hasher::new();
        for text in STEPS.iter().map(|(_, step)| *step).chain(FUNCTIONS.iter().copied()) {
            hash.update(text.as_bytes());
        }
        let seen = (VERSION, &hash.finalize().to_hex()[..16]);
        assert_eq!(seen, (13, "949eb90a4c299a14"), "raise VERSION, then note both here");
    }

    #[test]
    fn steps_are_in_order_and_none_is_beyond_the_version() {
        assert!(STEPS.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert!(STEPS.last().is_some_and(|(version, _)| *version <= VERSION));
    }
}
