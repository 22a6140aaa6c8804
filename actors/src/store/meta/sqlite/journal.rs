//! Transactions of migrations.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::put::execute;
use super::writer::Write;
use super::{SqliteStore, damaged, sql_error, to_sql};
use crate::model::{Result, Stamp};
use crate::store::meta::{Fate, Migration, MigrationCounts, MigrationId, MigrationJournal, MigrationState, Trouble};

/// Rows that one transaction forgets.
const FORGOTTEN_AT_ONCE: i64 = 1000;

/// How long after its end a migration could be repeated without bringing back what was deleted here meanwhile: 30 days.
const REMEMBERED_SECONDS: i64 = 30 * 24 * 3600;

const MIGRATION: &str = "SELECT id, kind, source, state, started_at, listed_at, total, copied, copied_bytes, contents,
    stored_bytes, skipped, gone, refused, failed FROM migrations";

#[async_trait]
impl MigrationJournal for SqliteStore {
    async fn begin_migration(&self, kind: &'static str, source: String) -> Result<Migration> {
        self.writer.run(move |write| begin(write, kind, &source)).await
    }

    async fn add_names(&self, id: MigrationId, names: Vec<String>, unfit: Vec<(String, String)>) -> Result<()> {
        self.writer.run(move |write| add(write, id, &names, &unfit)).await
    }

    async fn end_listing(&self, id: MigrationId) -> Result<()> {
        let sql = "UPDATE migrations SET state = 'copying', listed_at = ?2 WHERE id = ?1 AND state = 'listing'";
        self.writer.run(move |write| execute(write, sql, params![id.0, Stamp::now().seconds()]).map(drop)).await
    }

    async fn migration(&self, id: MigrationId) -> Result<Option<Migration>> {
        self.read(move |connection| migration(connection, id)).await
    }

    async fn pending_names(&self, id: MigrationId, after: Option<String>, rows: usize) -> Result<Vec<String>> {
        self.read(move |connection| pending(connection, id, after.as_deref(), rows)).await
    }

    async fn settle_names(&self, id: MigrationId, settled: Vec<(String, Fate)>) -> Result<()> {
        self.writer.run(move |write| settle(write, id, &settled)).await
    }

    async fn end_migration(&self, id: MigrationId) -> Result<()> {
        let sql = "UPDATE migrations SET state = 'done', ended_at = ?2 WHERE id = ?1 AND state = 'copying'";
        self.writer.run(move |write| execute(write, sql, params![id.0, Stamp::now().seconds()]).map(drop)).await
    }

    async fn troubles(&self, id: MigrationId, after: Option<String>, rows: usize) -> Result<Vec<Trouble>> {
        self.read(move |connection| troubles(connection, id, after.as_deref(), rows)).await
    }

    async fn unfinished_migrations(&self) -> Result<Vec<Migration>> {
        self.read(unfinished).await
    }

    async fn abandon_migrations(&self, rows: usize) -> Result<bool> {
        let limit = to_sql(rows as u64)?;
        self.writer.run(move |write| abandon(write, limit)).await
    }

    async fn forget_former(&self, id: MigrationId) -> Result<bool> {
        self.writer.run(move |write| forget_former(write, id)).await
    }
}

/// Whether files that were deleted here must be remembered: a migration is under way, or could be repeated.
pub(super) fn remembers_deletions(connection: &Connection) -> Result<bool> {
    let failed = |error| sql_error("read the database", error);
    let sql = "SELECT EXISTS (SELECT 1 FROM migrations WHERE state <> 'done' OR ended_at > ?1)";
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    statement.query_row([Stamp::now().seconds() - REMEMBERED_SECONDS], |row| row.get(0)).map_err(failed)
}

fn unfinished(connection: &Connection) -> Result<Vec<Migration>> {
    let failed = |error| sql_error("read the database", error);
    let sql = format!("{MIGRATION} WHERE state <> 'done' ORDER BY id");
    let mut statement = connection.prepare_cached(&sql).map_err(failed)?;
    let found = statement.query_map([], RawMigration::read).map_err(failed)?;
    found.map(|raw| raw.map_err(failed)?.into_migration()).collect()
}

fn abandon(write: &Write<'_>, limit: i64) -> Result<bool> {
    for table in ["migration_pending", "migration_troubles"] {
        let sql = format!(
            "DELETE FROM {table} WHERE (migration, name) IN (SELECT row.migration, row.name FROM {table} row
                JOIN migrations ON migrations.id = row.migration WHERE migrations.state <> 'done' LIMIT ?1)"
        );
        if execute(write, &sql, [limit])? > 0 {
            return Ok(true);
        }
    }
    execute(write, "DELETE FROM migrations WHERE state <> 'done'", [])?;
    execute(write, "UPDATE migrations SET ended_at = 0 WHERE ended_at > 0", [])?;
    Ok(false)
}

fn begin(write: &Write<'_>, kind: &str, source: &str) -> Result<Migration> {
    let failed = |error| sql_error("read the database", error);
    let sql = "SELECT id FROM migrations WHERE kind = ?1 AND source = ?2 AND state <> 'done'";
    let unfinished = write.query_row(sql, [kind, source], |row| row.get(0)).optional().map_err(failed)?;
    let id = match unfinished {
        Some(id) => id,
        None => {
            let sql = "INSERT INTO migrations (kind, source, state, started_at) VALUES (?1, ?2, 'listing', ?3)";
            execute(write, sql, params![kind, source, Stamp::now().seconds()])?;
            write.last_insert_rowid()
        }
    };
    migration(write, MigrationId(id))?.ok_or_else(|| damaged("a migration is gone"))
}

fn migration(connection: &Connection, id: MigrationId) -> Result<Option<Migration>> {
    let failed = |error| sql_error("read the database", error);
    let sql = format!("{MIGRATION} WHERE id = ?1");
    let mut statement = connection.prepare_cached(&sql).map_err(failed)?;
    let Some(raw) = statement.query_row([id.0], RawMigration::read).optional().map_err(failed)? else {
        return Ok(None);
    };
    raw.into_migration().map(Some)
}

/// A row, not looked at yet.
struct RawMigration {
    id: i64,
    kind: String,
    source: String,
    state: String,
    started_at: i64,
    listed_at: Option<i64>,
    counts: [i64; 9],
}

impl RawMigration {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let mut counts = [0; 9];
        for (place, count) in counts.iter_mut().enumerate() {
            *count = row.get(6 + place)?;
        }
        Ok(Self {
            id: row.get(0)?,
            kind: row.get(1)?,
            source: row.get(2)?,
            state: row.get(3)?,
            started_at: row.get(4)?,
            listed_at: row.get(5)?,
            counts,
        })
    }

    fn into_migration(self) -> Result<Migration> {
        let mut counts = [0; 9];
        for (count, raw) in counts.iter_mut().zip(self.counts) {
            *count = u64::try_from(raw).map_err(|_| damaged("negative number"))?;
        }
        let [total, copied, copied_bytes, contents, stored_bytes, skipped, gone, refused, failed] = counts;
        Ok(Migration {
            id: MigrationId(self.id),
            kind: self.kind,
            source: self.source,
            state: MigrationState::from_name(&self.state).ok_or_else(|| damaged("state of a migration"))?,
            counts: MigrationCounts {
                total,
                copied,
                copied_bytes,
                contents,
                stored_bytes,
                skipped,
                gone,
                refused,
                failed,
            },
            started_at: Stamp::from_seconds(self.started_at),
            listed_at: self.listed_at.map(Stamp::from_seconds),
        })
    }
}

fn add(write: &Write<'_>, id: MigrationId, names: &[String], unfit: &[(String, String)]) -> Result<()> {
    let mut counts = MigrationCounts::default();
    for name in names {
        let sql = "INSERT INTO migration_pending (migration, name) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
        counts.total += execute(write, sql, params![id.0, name])? as u64;
    }
    for (name, reason) in unfit {
        let noted = note(write, id, name, "failed", reason, 1)?;
        counts.total += noted;
        counts.failed += noted;
    }
    count(write, id, &counts)
}

fn settle(write: &Write<'_>, id: MigrationId, settled: &[(String, Fate)]) -> Result<()> {
    let mut counts = MigrationCounts::default();
    for (name, fate) in settled {
        let sql = "DELETE FROM migration_pending WHERE migration = ?1 AND name = ?2";
        if execute(write, sql, params![id.0, name])? == 0 {
            continue;
        }
        counts.add(fate);
        if let Some((reason, attempts)) = fate.trouble() {
            note(write, id, name, fate.as_str(), reason, attempts)?;
        }
    }
    count(write, id, &counts)
}

/// Notes a name that was not copied; returns how many that makes more.
fn note(write: &Write<'_>, id: MigrationId, name: &str, fate: &str, reason: &str, attempts: u32) -> Result<u64> {
    let sql = "INSERT INTO migration_troubles (migration, name, fate, reason, attempts, noted_at)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING";
    Ok(execute(write, sql, params![id.0, name, fate, reason, attempts, Stamp::now().seconds()])? as u64)
}

fn count(write: &Write<'_>, id: MigrationId, counts: &MigrationCounts) -> Result<()> {
    let sql = "UPDATE migrations SET total = total + ?2, copied = copied + ?3, copied_bytes = copied_bytes + ?4,
        contents = contents + ?5, stored_bytes = stored_bytes + ?6, skipped = skipped + ?7, gone = gone + ?8,
        refused = refused + ?9, failed = failed + ?10 WHERE id = ?1";
    let row = params![
        id.0,
        to_sql(counts.total)?,
        to_sql(counts.copied)?,
        to_sql(counts.copied_bytes)?,
        to_sql(counts.contents)?,
        to_sql(counts.stored_bytes)?,
        to_sql(counts.skipped)?,
        to_sql(counts.gone)?,
        to_sql(counts.refused)?,
        to_sql(counts.failed)?
    ];
    execute(write, sql, row).map(drop)
}

fn pending(connection: &Connection, id: MigrationId, after: Option<&str>, rows: usize) -> Result<Vec<String>> {
    let failed = |error| sql_error("read the database", error);
    let sql = "SELECT name FROM migration_pending WHERE migration = ?1 AND name > ?2 ORDER BY name LIMIT ?3";
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    // No name is empty.
    let row = params![id.0, after.unwrap_or_default(), to_sql(rows as u64)?];
    let names = statement.query_map(row, |row| row.get(0)).map_err(failed)?;
    names.collect::<rusqlite::Result<_>>().map_err(failed)
}

fn troubles(connection: &Connection, id: MigrationId, after: Option<&str>, rows: usize) -> Result<Vec<Trouble>> {
    let failed = |error| sql_error("read the database", error);
    let sql = "SELECT name, fate, reason, attempts, noted_at FROM migration_troubles
        WHERE migration = ?1 AND name > ?2 ORDER BY name LIMIT ?3";
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    let row = params![id.0, after.unwrap_or_default(), to_sql(rows as u64)?];
    let found = statement.query_map(row, |row| {
        Ok(Trouble {
            name: row.get(0)?,
            fate: row.get(1)?,
            reason: row.get(2)?,
            attempts: row.get(3)?,
            noted_at: Stamp::from_seconds(row.get(4)?),
        })
    });
    found.map_err(failed)?.collect::<rusqlite::Result<_>>().map_err(failed)
}

fn forget_former(write: &Write<'_>, id: MigrationId) -> Result<bool> {
    let failed = |error| sql_error("read the database", error);
    let sql = "SELECT old.id FROM migrations old JOIN migrations new ON old.kind = new.kind AND old.source = new.source
        WHERE new.id = ?1 AND old.id <> ?1 AND old.state = 'done' LIMIT 1";
    let former = write.query_row(sql, [id.0], |row| row.get::<_, i64>(0)).optional().map_err(failed)?;
    let Some(former) = former else { return Ok(false) };
    let sql = "DELETE FROM migration_troubles WHERE migration = ?1 AND name IN
        (SELECT name FROM migration_troubles WHERE migration = ?1 LIMIT ?2)";
    if execute(write, sql, params![former, FORGOTTEN_AT_ONCE])? == 0 {
        execute(write, "DELETE FROM migrations WHERE id = ?1", [former])?;
    }
    Ok(true)
}
