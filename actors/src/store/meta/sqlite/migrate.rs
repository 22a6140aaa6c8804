//! Opening connections and bringing the schema up to date.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::sql_error;
use crate::failpoint::{self, Point};
use crate::model::{Error, Kind, Result};

/// Marks a database file as ours, so that a stranger's file is not written to.
const APPLICATION_ID: [u8; 4] = *b"s3dd";

/// Where SQLite keeps the mark in a file, most significant byte first.
const APPLICATION_ID_AT: usize = 68;

/// The schema, one step per version; steps are only ever added.
const STEPS: &[&str] = &[
    include_str!("schema/0001_initial.sql"),
    include_str!("schema/0002_quarantine.sql"),
    include_str!("schema/0003_belonging.sql"),
    include_str!("schema/0004_holders.sql"),
    include_str!("schema/0005_mirror.sql"),
    include_str!("schema/0006_migrations.sql"),
    include_str!("schema/0007_suspects.sql"),
    include_str!("schema/0008_telling.sql"),
];

/// How long a statement waits for a lock that another process holds.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// Opens the database for writing, creates it when there is none, and brings its schema up to date.
pub(super) fn open(path: &Path, cache_kib: u32) -> Result<Connection> {
    claim(path)?;
    let connection = connect(path, cache_kib)?;
    migrate(&connection)?;
    failpoint::hit_blocking(Point::StartAfterMigrate)?;
    Ok(connection)
}

/// Refuses a database that is not there, not ours or not of this program's version; changes nothing.
pub(super) fn check(path: &Path) -> Result<()> {
    let mut head = Vec::new();
    let read = File::open(path).and_then(|file| file.take(APPLICATION_ID_AT as u64 + 4).read_to_end(&mut head));
    read.map_err(|error| Error::io("can't open the database", error))?;
    if head.get(APPLICATION_ID_AT..) != Some(&APPLICATION_ID) {
        return Err(Error::new(Kind::Invalid, "the database file belongs to another program, or to none yet"));
    }
    let connection = connect(path, 1024)?;
    let version = connection.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0));
    let version = version.map_err(|error| sql_error("read the database", error))?;
    if version != STEPS.len() as i64 {
        let known = STEPS.len();
        let text =
            format!("the database has schema version {version}, this program needs {known}: start a server first");
        return Err(Error::new(Kind::Invalid, text));
    }
    Ok(())
}

/// Marks an empty or missing file as ours and refuses one that is not.
///
/// The file is looked at without SQLite, which would write to it merely by opening it: it finishes
/// what a crash of the other program left behind. To be called while this process has no connection
/// to it: closing a file drops the locks that other connections of the process have on it.
fn claim(path: &Path) -> Result<()> {
    let mut head = Vec::new();
    let read = match File::open(path) {
        Ok(file) => file.take(APPLICATION_ID_AT as u64 + 4).read_to_end(&mut head).map(drop),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    };
    read.map_err(|error| Error::io("can't open the database", error))?;
    if head.is_empty() || head.get(APPLICATION_ID_AT..) == Some(&APPLICATION_ID) {
        return mark(path).map_err(|error| sql_error("create the database", error));
    }
    Err(Error::new(Kind::Invalid, "the database file belongs to another program"))
}

/// Marks a file that is ours: before anything else, and before there is a log, so that from then on the file itself has the
/// mark. Opening one that was cut off in the middle of that takes the mark back; so it is looked for in any case.
fn mark(path: &Path) -> rusqlite::Result<()> {
    let id = i32::from_be_bytes(APPLICATION_ID);
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    if connection.pragma_query_value(None, "application_id", |row| row.get::<_, i32>(0))? == id {
        return Ok(());
    }
    connection.pragma_update(None, "application_id", id)
}

/// Opens a connection with the settings every connection needs.
pub(super) fn connect(path: &Path, cache_kib: u32) -> Result<Connection> {
    let open = |error| sql_error("open the database", error);
    let connection = Connection::open(path).map_err(open)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(open)?;
    connection.set_prepared_statement_cache_capacity(64);
    // Without it SQLite plans every statement anew whenever a bound value changes.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map_err(open)?;
    // FULL: a commit is on the disk when it returns. Readers and the writer do not block each other.
    // A checkpoint copies every page once, however often it was written since the last one, and the
    // commit that triggers it waits: at 32 MiB of log, instead of SQLite's 4, there are far fewer. The
    // log keeps its size to be written over; only what a burst added beyond 64 MiB is given back.
    let settings = format!(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA temp_store = MEMORY; \
         PRAGMA cache_size = -{cache_kib}; PRAGMA wal_autocheckpoint = 8192; PRAGMA journal_size_limit = 67108864;"
    );
    connection.execute_batch(&settings).map_err(open)?;
    let mode = connection.pragma_query_value(None, "journal_mode", |row| row.get::<_, String>(0)).map_err(open)?;
    if mode != "wal" {
        let text = format!("the database cannot use a write-ahead log here (journal mode {mode}): use a local disk");
        return Err(Error::new(Kind::Invalid, text));
    }
    Ok(connection)
}

/// Applies the steps that are missing, all in one transaction; refuses a newer database.
fn migrate(connection: &Connection) -> Result<()> {
    let failed = |error| sql_error("bring the database schema up to date", error);
    connection.execute_batch("BEGIN IMMEDIATE").map_err(failed)?;
    let outcome = steps(connection);
    let end = if outcome.is_ok() { "COMMIT" } else { "ROLLBACK" };
    connection.execute_batch(end).map_err(failed)?;
    outcome
}

fn steps(connection: &Connection) -> Result<()> {
    let failed = |error| sql_error("bring the database schema up to date", error);
    let version = connection.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0)).map_err(failed)?;
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
        connection.pragma_update(None, "user_version", known as i64).map_err(failed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opening_again_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kv.db");
        for _ in 0..2 {
            let connection = open(&path, 1024).unwrap();
            migrate(&connection).unwrap();
            let rows: i64 = connection.query_row("SELECT count(*) FROM state", [], |row| row.get(0)).unwrap();
            assert_eq!(rows, 1);
        }
    }

    #[test]
    fn a_database_that_was_never_checkpointed_is_known_as_ours() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kv.db");
        let connection = open(&path, 1024).unwrap();
        connection.execute("UPDATE state SET entries = 7", []).unwrap();
        // What a kill leaves: the file and its log as they are while it is open.
        let copy = dir.path().join("copy.db");
        std::fs::copy(&path, &copy).unwrap();
        std::fs::copy(dir.path().join("kv.db-wal"), dir.path().join("copy.db-wal")).unwrap();
        let copy = open(&copy, 1024).unwrap();
        let entries: i64 = copy.query_row("SELECT entries FROM state", [], |row| row.get(0)).unwrap();
        assert_eq!(entries, 7);
    }

    #[test]
    fn a_database_whose_creation_was_cut_off_gets_its_mark_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kv.db");
        claim(&path).unwrap();
        // What a kill leaves: the mark is in the file, and the journal that takes it back is still there. It says that the
        // file had no pages of 4096 bytes before.
        let mut journal = vec![0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];
        for number in [0_u32, 1, 0, 512, 4096] {
            journal.extend(number.to_be_bytes());
        }
        journal.resize(512, 0);
        std::fs::write(dir.path().join("kv.db-journal"), journal).unwrap();
        drop(open(&path, 1024).unwrap());
        assert!(!dir.path().join("kv.db-journal").exists());
        let head = std::fs::read(&path).unwrap();
        assert_eq!(head.get(APPLICATION_ID_AT..APPLICATION_ID_AT + 4), Some(&APPLICATION_ID[..]));
        drop(open(&path, 1024).unwrap());
    }

    #[test]
    fn a_newer_schema_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("newer.db");
        open(&path, 1024).unwrap().pragma_update(None, "user_version", 999).unwrap();
        assert!(open(&path, 1024).unwrap_err().context().contains("newer program"));
    }

    #[test]
    fn a_foreign_file_is_refused_and_not_touched() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kv.db");
        let theirs = Connection::open(&path).unwrap();
        theirs.execute_batch("CREATE TABLE theirs (x); PRAGMA application_id = 7;").unwrap();
        drop(theirs);
        let database = std::fs::read(&path).unwrap();
        for bytes in [&database[..], b"a text", &[0; 4096]] {
            std::fs::write(&path, bytes).unwrap();
            let refusal = open(&path, 1024).unwrap_err();
            assert_eq!((refusal.kind(), refusal.context().contains("another program")), (Kind::Invalid, true));
            assert!(std::fs::read(&path).unwrap() == bytes);
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        }
    }
}
