//! Bringing the schema up to date.

use tokio_postgres::SimpleQueryMessage;

use crate::model::{Error, Kind, Result};
use crate::store::postgres::{Session, sql_error};

/// The schema, one step per version; steps are only ever added, and each must leave what the release
/// before it needs: instances are updated one after the other.
const STEPS: &[&str] = &[
    include_str!("schema/0001_initial.sql"),
    include_str!("schema/0002_orphans.sql"),
    include_str!("schema/0003_quarantine.sql"),
    include_str!("schema/0004_belonging.sql"),
    include_str!("schema/0005_leave_quarantine.sql"),
    include_str!("schema/0006_damage.sql"),
    include_str!("schema/0007_mirror.sql"),
    include_str!("schema/0008_migrations.sql"),
    include_str!("schema/0009_suspects.sql"),
    include_str!("schema/0010_telling.sql"),
    include_str!("schema/0011_illegible.sql"),
    include_str!("schema/0012_made_anew.sql"),
];

/// What the lock session and the queries need.
const SERVER_VERSION_MIN: u32 = 140_000;

/// The lock that instances which start at the same time wait for; in the space of two keys.
const TAKE_TURNS: &str = "SELECT pg_advisory_xact_lock(1395868740, 0)";

/// Checks the server and applies the steps that are missing, all in one transaction; refuses a newer
/// database.
pub(super) async fn migrate(session: &mut Session) -> Result<()> {
    check_server(session).await?;
    if version(session).await? == Some(STEPS.len()) {
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
    let known = STEPS.len();
    if done > known {
        let text =
            format!("the database has schema version {done}, this program knows up to {known}: use a newer program");
        return Err(Error::new(Kind::Invalid, text));
    }
    if done == 0 {
        run("CREATE SCHEMA IF NOT EXISTS s3dedup;
            CREATE TABLE s3dedup.schema_versions (version INTEGER PRIMARY KEY, applied_at TIMESTAMPTZ NOT NULL)")
        .await?;
    }
    for (index, step) in STEPS.iter().enumerate().skip(done) {
        let version = index + 1;
        run(step).await?;
        run(&format!("INSERT INTO s3dedup.schema_versions VALUES ({version}, now())")).await?;
        log::info!("database schema is now at version={version}");
    }
    Ok(())
}
