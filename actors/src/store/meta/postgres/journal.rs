//! Statements of migrations.

use async_trait::async_trait;
use sha2::{Digest as _, Sha256};
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use super::PostgresStore;
use super::clean::limit;
use super::database::{Again, Sql};
use super::names::split;
use super::read::{column, damaged, unsigned};
use super::write::signed;
use crate::model::{Result, Stamp};
use crate::store::meta::{Fate, Migration, MigrationCounts, MigrationId, MigrationJournal, MigrationState, Trouble};

const BEGIN: Sql = Sql {
    text: "SELECT id, kind, source, state, started_at, listed_at, total, copied, copied_bytes, contents, stored_bytes,
        skipped, gone, refused, failed FROM s3dedup.begin_migration($1, $2, $3)",
    types: &[Type::TIMESTAMPTZ, Type::TEXT, Type::TEXT],
};

const MIGRATION: Sql = Sql {
    text: "SELECT id, kind, source, state, started_at, listed_at, total, copied, copied_bytes, contents, stored_bytes,
        skipped, gone, refused, failed FROM s3dedup.migrations WHERE id = $1",
    types: &[Type::INT8],
};

const ADD: Sql = Sql {
    text: "SELECT s3dedup.add_names($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    types: &[
        Type::TIMESTAMPTZ,
        Type::INT8,
        Type::TEXT_ARRAY,
        Type::TEXT_ARRAY,
        Type::BYTEA_ARRAY,
        Type::TEXT_ARRAY,
        Type::TEXT_ARRAY,
        Type::BYTEA_ARRAY,
        Type::TEXT_ARRAY,
    ],
};

const SETTLE: Sql = Sql {
    text: "SELECT s3dedup.settle_names($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    types: &[
        Type::TIMESTAMPTZ,
        Type::INT8,
        Type::TEXT_ARRAY,
        Type::TEXT_ARRAY,
        Type::BYTEA_ARRAY,
        Type::TEXT_ARRAY,
        Type::INT8_ARRAY,
        Type::INT8_ARRAY,
        Type::TEXT_ARRAY,
        Type::INT4_ARRAY,
    ],
};

const ADVANCE: Sql =
    Sql { text: "SELECT s3dedup.advance_migration($1, $2, $3)", types: &[Type::TIMESTAMPTZ, Type::INT8, Type::TEXT] };

const PENDING: Sql = Sql {
    text: "SELECT name || rest FROM s3dedup.migration_pending
        WHERE migration = $1 AND name >= $2 AND (name, rest) > ($2, $3) ORDER BY name, rest LIMIT $4",
    types: &[Type::INT8, Type::TEXT, Type::TEXT, Type::INT8],
};

const TROUBLES: Sql = Sql {
    text: "SELECT name || rest, fate, reason, attempts, noted_at FROM s3dedup.migration_troubles
        WHERE migration = $1 AND name >= $2 AND (name, rest) > ($2, $3) ORDER BY name, rest LIMIT $4",
    types: &[Type::INT8, Type::TEXT, Type::TEXT, Type::INT8],
};

const UNFINISHED: Sql = Sql {
    text: "SELECT id, kind, source, state, started_at, listed_at, total, copied, copied_bytes, contents, stored_bytes,
        skipped, gone, refused, failed FROM s3dedup.migrations WHERE state <> 'done' ORDER BY id",
    types: &[],
};

const ABANDON_PENDING: Sql = Sql {
    text: "WITH gone AS (
            DELETE FROM s3dedup.migration_pending p WHERE (p.migration, p.name, p.rest_hash) IN (
                SELECT q.migration, q.name, q.rest_hash FROM s3dedup.migration_pending q
                JOIN s3dedup.migrations m ON m.id = q.migration WHERE m.state <> 'done' LIMIT $2) RETURNING 1)
        SELECT (SELECT count(*) FROM gone), s3dedup.begin_write($1)",
    types: &[Type::TIMESTAMPTZ, Type::INT8],
};

const ABANDON_TROUBLES: Sql = Sql {
    text: "WITH gone AS (
            DELETE FROM s3dedup.migration_troubles t WHERE (t.migration, t.name, t.rest_hash) IN (
                SELECT u.migration, u.name, u.rest_hash FROM s3dedup.migration_troubles u
                JOIN s3dedup.migrations m ON m.id = u.migration WHERE m.state <> 'done' LIMIT $2) RETURNING 1)
        SELECT (SELECT count(*) FROM gone), s3dedup.begin_write($1)",
    types: &[Type::TIMESTAMPTZ, Type::INT8],
};

const ABANDON: Sql = Sql {
    text: "WITH gone AS (DELETE FROM s3dedup.migrations WHERE state <> 'done'),
            old AS (UPDATE s3dedup.migrations SET ended_at = 0 WHERE state = 'done')
        SELECT s3dedup.begin_write($1)",
    types: &[Type::TIMESTAMPTZ],
};

const FORGET: Sql =
    Sql { text: "SELECT s3dedup.forget_former_migrations($1, $2)", types: &[Type::TIMESTAMPTZ, Type::INT8] };

#[async_trait]
impl MigrationJournal for PostgresStore {
    async fn begin_migration(&self, kind: &'static str, source: String) -> Result<Migration> {
        let rows = self.database.write(Again::Harmless, &BEGIN, &[&kind, &source]).await?;
        migration(rows.first().ok_or_else(|| damaged("no answer"))?)
    }

    async fn add_names(&self, id: MigrationId, names: Vec<String>, unfit: Vec<(String, String)>) -> Result<()> {
        let added = Names::of(names.iter());
        let not_added = Names::of(unfit.iter().map(|(name, _)| name));
        let reasons: Vec<&str> = unfit.iter().map(|(_, reason)| reason.as_str()).collect();
        let parameters: [&(dyn ToSql + Sync); 8] = [
            &id.0,
            &added.names,
            &added.rests,
            &added.hashes,
            &not_added.names,
            &not_added.rests,
            &not_added.hashes,
            &reasons,
        ];
        self.database.write(Again::Harmless, &ADD, &parameters).await.map(drop)
    }

    async fn end_listing(&self, id: MigrationId) -> Result<()> {
        self.database.write(Again::Harmless, &ADVANCE, &[&id.0, &"listing"]).await.map(drop)
    }

    async fn migration(&self, id: MigrationId) -> Result<Option<Migration>> {
        self.database.read(&MIGRATION, &[&id.0]).await?.first().map(migration).transpose()
    }

    async fn pending_names(&self, id: MigrationId, after: Option<String>, rows: usize) -> Result<Vec<String>> {
        let (name, rest) = split(after.as_deref().unwrap_or_default());
        let rows = self.database.read(&PENDING, &[&id.0, &name, &rest, &limit(rows)]).await?;
        rows.iter().map(|row| column(row, 0)).collect()
    }

    async fn settle_names(&self, id: MigrationId, settled: Vec<(String, Fate)>) -> Result<()> {
        let names = Names::of(settled.iter().map(|(name, _)| name));
        let mut columns = Fates::default();
        for (_, fate) in &settled {
            columns.push(fate)?;
        }
        let Fates { fates, bytes, stored, reasons, attempts } = &columns;
        let parameters: [&(dyn ToSql + Sync); 9] =
            [&id.0, &names.names, &names.rests, &names.hashes, fates, bytes, stored, reasons, attempts];
        self.database.write(Again::Harmless, &SETTLE, &parameters).await.map(drop)
    }

    async fn end_migration(&self, id: MigrationId) -> Result<()> {
        self.database.write(Again::Harmless, &ADVANCE, &[&id.0, &"copying"]).await.map(drop)
    }

    async fn troubles(&self, id: MigrationId, after: Option<String>, rows: usize) -> Result<Vec<Trouble>> {
        let (name, rest) = split(after.as_deref().unwrap_or_default());
        let rows = self.database.read(&TROUBLES, &[&id.0, &name, &rest, &limit(rows)]).await?;
        let trouble = |row: &Row| {
            let attempts: i32 = column(row, 3)?;
            Ok(Trouble {
                name: column(row, 0)?,
                fate: column(row, 1)?,
                reason: column(row, 2)?,
                attempts: attempts.unsigned_abs(),
                noted_at: Stamp::from_seconds(column(row, 4)?),
            })
        };
        rows.iter().map(trouble).collect()
    }

    async fn unfinished_migrations(&self) -> Result<Vec<Migration>> {
        self.database.read(&UNFINISHED, &[]).await?.iter().map(migration).collect()
    }

    async fn abandon_migrations(&self, rows: usize) -> Result<bool> {
        for statement in [&ABANDON_PENDING, &ABANDON_TROUBLES] {
            let answer = self.database.write(Again::Harmless, statement, &[&limit(rows)]).await?;
            let forgotten: i64 = column(answer.first().ok_or_else(|| damaged("no answer"))?, 0)?;
            if forgotten > 0 {
                return Ok(true);
            }
        }
        self.database.write(Again::Harmless, &ABANDON, &[]).await?;
        Ok(false)
    }

    async fn forget_former(&self, id: MigrationId) -> Result<bool> {
        let rows = self.database.write(Again::Harmless, &FORGET, &[&id.0]).await?;
        column(rows.first().ok_or_else(|| damaged("no answer"))?, 0)
    }
}

/// Columns of names.
#[derive(Default)]
struct Names<'a> {
    names: Vec<&'a str>,
    rests: Vec<&'a str>,
    hashes: Vec<Vec<u8>>,
}

impl<'a> Names<'a> {
    fn of(names: impl Iterator<Item = &'a String>) -> Self {
        let mut columns = Self::default();
        for name in names {
            let (name, rest) = split(name);
            columns.names.push(name);
            columns.rests.push(rest);
            columns.hashes.push(if rest.is_empty() { Vec::new() } else { Sha256::digest(rest).to_vec() });
        }
        columns
    }
}

/// Columns of what came of names.
#[derive(Default)]
struct Fates<'a> {
    fates: Vec<&'a str>,
    bytes: Vec<Option<i64>>,
    stored: Vec<Option<i64>>,
    reasons: Vec<Option<&'a str>>,
    attempts: Vec<i32>,
}

impl<'a> Fates<'a> {
    fn push(&mut self, fate: &'a Fate) -> Result<()> {
        let (bytes, stored) = match fate {
            Fate::Copied { bytes, stored } => (Some(signed(*bytes)?), stored.map(signed).transpose()?),
            _ => (None, None),
        };
        let trouble = fate.trouble();
        self.fates.push(fate.as_str());
        self.bytes.push(bytes);
        self.stored.push(stored);
        self.reasons.push(trouble.map(|(reason, _)| reason));
        self.attempts.push(trouble.map_or(1, |(_, attempts)| i32::try_from(attempts).unwrap_or(i32::MAX)));
        Ok(())
    }
}

fn migration(row: &Row) -> Result<Migration> {
    let count = |place: usize| unsigned(column(row, place)?);
    let state: &str = column(row, 3)?;
    Ok(Migration {
        id: MigrationId(column(row, 0)?),
        kind: column(row, 1)?,
        source: column(row, 2)?,
        state: MigrationState::from_name(state).ok_or_else(|| damaged("state of a migration"))?,
        started_at: Stamp::from_seconds(column(row, 4)?),
        listed_at: column::<Option<i64>>(row, 5)?.map(Stamp::from_seconds),
        counts: MigrationCounts {
            total: count(6)?,
            copied: count(7)?,
            copied_bytes: count(8)?,
            contents: count(9)?,
            stored_bytes: count(10)?,
            skipped: count(11)?,
            gone: count(12)?,
            refused: count(13)?,
            failed: count(14)?,
        },
    })
}
