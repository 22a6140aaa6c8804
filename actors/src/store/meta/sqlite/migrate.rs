//! Opening connections and bringing the schema up to date.

use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::sql_error;
use crate::model::{Error, Kind, Result};

/// Marks a database file as ours ("s3dd"), so that a stranger's file is not written to.
const APPLICATION_ID: i64 = 0x7333_6464;

/// The schema, one step per version; steps are only ever added.
const STEPS: &[&str] = &[include_str!("schema/0001_initial.sql")];

/// How long a statement waits for a lock that another process holds.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// Opens a connection with the settings every connection needs.
pub(super) fn connect(path: &Path, cache_kib: u32) -> Result<Connection> {
    let open = |error| sql_error("open the database", error);
    let connection = Connection::open(path).map_err(open)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(open)?;
    connection.set_prepared_statement_cache_capacity(64);
    // Without it SQLite plans every statement anew whenever a bound value changes.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map_err(open)?;
    // FULL: a commit is on the disk when it returns. Readers and the writer do not block each other.
    let settings = format!(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA temp_store = MEMORY; PRAGMA cache_size = -{cache_kib};"
    );
    connection.execute_batch(&settings).map_err(open)?;
    Ok(connection)
}

/// Applies the steps that are missing, all in one transaction; refuses a newer or foreign database.
pub(super) fn migrate(connection: &Connection) -> Result<()> {
    let failed = |error| sql_error("bring the database schema up to date", error);
    connection.execute_batch("BEGIN IMMEDIATE").map_err(failed)?;
    let outcome = steps(connection);
    let end = if outcome.is_ok() { "COMMIT" } else { "ROLLBACK" };
    connection.execute_batch(end).map_err(failed)?;
    outcome
}

fn steps(connection: &Connection) -> Result<()> {
    let failed = |error| sql_error("bring the database schema up to date", error);
    let number = |pragma: &str| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0)).map_err(failed);
    let application = number("application_id")?;
    let version = number("user_version")?;
    let tables = "SELECT count(*) FROM sqlite_schema";
    let is_empty = connection.query_row(tables, [], |row| row.get::<_, i64>(0)).map_err(failed)? == 0;
    if application != APPLICATION_ID && !is_empty {
        return Err(Error::new(Kind::Invalid, "the database file belongs to another program"));
    }
    let known = STEPS.len();
    let done =
        usize::try_from(version).map_err(|error| Error::new(Kind::Invalid, "bad schema version").with_source(error))?;
    if done > known {
        let text =
            format!("the database has schema version {done}, this program knows up to {known}: use a newer program");
        return Err(Error::new(Kind::Invalid, text));
    }
    for (index, step) in STEPS.iter().enumerate().skip(done) {
        connection.execute_batch(step).map_err(failed)?;
        log::info!("database schema is now at version={}", index + 1);
    }
    if done < known {
        connection.pragma_update(None, "application_id", APPLICATION_ID).map_err(failed)?;
        connection.pragma_update(None, "user_version", known as i64).map_err(failed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrating_twice_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let connection = connect(&dir.path().join("kv.db"), 1024).unwrap();
        migrate(&connection).unwrap();
        migrate(&connection).unwrap();
        let rows: i64 = connection.query_row("SELECT count(*) FROM state", [], |row| row.get(0)).unwrap();
        assert_eq!(rows, 1);
    }

    #[test]
    fn a_newer_schema_and_a_foreign_file_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let newer = connect(&dir.path().join("newer.db"), 1024).unwrap();
        migrate(&newer).unwrap();
        newer.pragma_update(None, "user_version", 999).unwrap();
        assert!(migrate(&newer).unwrap_err().context().contains("newer program"));
        let foreign = connect(&dir.path().join("foreign.db"), 1024).unwrap();
        foreign.execute_batch("CREATE TABLE theirs (x)").unwrap();
        assert!(migrate(&foreign).unwrap_err().context().contains("another program"));
    }
}
