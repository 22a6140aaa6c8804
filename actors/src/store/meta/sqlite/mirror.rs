//! Transactions of marks and tombstones.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, params};

use super::journal::remembers_deletions;
use super::put::{self, execute};
use super::writer::Write;
use super::{SqliteStore, damaged, sql_error, to_sql};
use crate::model::{Digest, EntryKey, Namespace, Result, Stamp};
use crate::store::meta::{ClaimId, Claimed, DeleteOutcome, KnownHere, Mark, MarkSummary, MirrorJournal, Settled};

/// Whoever wrote has a moment to tell the old server before others look for it.
const HEAD_START: Duration = Duration::from_secs(3);

#[async_trait]
impl MirrorJournal for SqliteStore {
    async fn mark(&self, key: EntryKey) -> Result<()> {
        self.writer.run(move |write| mark(write, &key, Duration::ZERO)).await
    }

    async fn claim_mark(&self, key: EntryKey, claim: ClaimId, lease: Duration) -> Result<Claimed> {
        self.writer.run(move |write| claim_one(write, key, claim, lease)).await
    }

    async fn is_claimed(&self, key: EntryKey) -> Result<bool> {
        let sql = "SELECT 1 FROM marks WHERE namespace = ?1 AND name = ?2 AND claimed_until > ?3";
        let look = move |connection: &Connection| {
            number(connection, sql, params![key.namespace().id(), key.name(), milliseconds_now()])
        };
        Ok(self.read(look).await?.is_some())
    }

    async fn claim_due_marks(&self, claim: ClaimId, lease: Duration, rows: usize) -> Result<Vec<Mark>> {
        // Most of the time there are none, which takes no write to see.
        if self.read(|connection| due(connection, 1)).await?.is_empty() {
            return Ok(Vec::new());
        }
        self.writer.run(move |write| claim_due(write, claim, lease, rows)).await
    }

    async fn begin_telling(&self, key: EntryKey, claim: ClaimId, digest: Digest, lease: Duration) -> Result<bool> {
        let work = move |write: &Write<'_>| {
            let sql = "UPDATE marks SET telling = ?4, claimed_until = ?5
                WHERE namespace = ?1 AND name = ?2 AND claim = ?3";
            let until = milliseconds_now() + milliseconds(lease);
            execute(write, sql, params![key.namespace().id(), key.name(), claim.0, digest.as_bytes(), until])
        };
        Ok(self.writer.run(work).await? == 1)
    }

    async fn settle_mark(&self, mark: Mark, claim: ClaimId) -> Result<Settled> {
        self.writer.run(move |write| settle(write, &mark, claim)).await
    }

    async fn fail_mark(
        &self,
        key: EntryKey,
        claim: ClaimId,
        error: String,
        pause: Duration,
        hold: Duration,
    ) -> Result<()> {
        let work = move |write: &Write<'_>| {
            let now = milliseconds_now();
            let sql = "UPDATE marks SET attempts = attempts + 1, last_error = ?4, next_at = ?5, claim = NULL,
                claimed_until = ?6 WHERE namespace = ?1 AND name = ?2 AND claim = ?3";
            let (next_at, until) = (now + milliseconds(pause), now + milliseconds(hold));
            execute(write, sql, params![key.namespace().id(), key.name(), claim.0, error, next_at, until]).map(drop)
        };
        self.writer.run(work).await
    }

    async fn mark_summary(&self) -> Result<MarkSummary> {
        self.read(summary).await
    }

    async fn are_here(&self, namespace: Namespace, names: Vec<String>) -> Result<Vec<KnownHere>> {
        self.read(move |connection| are_here(connection, namespace, &names)).await
    }

    async fn forget_marks(&self, rows: usize) -> Result<bool> {
        let limit = to_sql(rows as u64)?;
        let work = move |write: &Write<'_>| {
            let sql = "DELETE FROM marks WHERE (namespace, name) IN (SELECT namespace, name FROM marks LIMIT ?1)";
            execute(write, sql, [limit])
        };
        Ok(self.writer.run(work).await? >= rows)
    }

    async fn count_tombstones(&self) -> Result<u64> {
        let count = self.read(|connection| number(connection, "SELECT count(*) FROM tombstones", [])).await?;
        u64::try_from(count.unwrap_or_default()).map_err(|_| damaged("negative number"))
    }

    async fn forget_tombstones(&self, rows: usize) -> Result<bool> {
        let limit = to_sql(rows as u64)?;
        let work = move |write: &Write<'_>| {
            if remembers_deletions(write)? {
                return Ok(0);
            }
            let sql =
                "DELETE FROM tombstones WHERE (namespace, name) IN (SELECT namespace, name FROM tombstones LIMIT ?1)";
            execute(write, sql, [limit])
        };
        Ok(self.writer.run(work).await? >= rows)
    }
}

/// See [`MetaStore::delete_beside`](crate::store::meta::MetaStore::delete_beside).
pub(super) fn delete_beside(write: &Write<'_>, key: &EntryKey, stamp: Stamp) -> Result<DeleteOutcome> {
    let outcome = put::delete(write, key, stamp)?;
    if !matches!(outcome, DeleteOutcome::Stale { .. }) {
        bury(write, key, stamp)?;
        mark(write, key, HEAD_START)?;
    }
    Ok(outcome)
}

/// Remembers a deletion, so that no copy brings the name back.
pub(super) fn bury(write: &Write<'_>, key: &EntryKey, stamp: Stamp) -> Result<()> {
    let sql = "INSERT INTO tombstones (namespace, name, modified) VALUES (?1, ?2, ?3)
        ON CONFLICT (namespace, name) DO UPDATE SET modified = max(modified, excluded.modified)";
    execute(write, sql, params![key.namespace().id(), key.name(), stamp.seconds()]).map(drop)
}

/// Marks a name that a client has just written.
pub(super) fn mark_written(write: &Write<'_>, key: &EntryKey) -> Result<()> {
    mark(write, key, HEAD_START)
}

/// When the name was deleted here, if it was.
pub(super) fn tombstone(connection: &Connection, namespace: Namespace, name: &str) -> Result<Option<Stamp>> {
    let sql = "SELECT modified FROM tombstones WHERE namespace = ?1 AND name = ?2";
    let found = number(connection, sql, params![namespace.id(), name])?;
    Ok(found.map(Stamp::from_seconds))
}

fn mark(write: &Write<'_>, key: &EntryKey, head_start: Duration) -> Result<()> {
    execute(write, "UPDATE state SET marks_made = marks_made + 1 WHERE id = 1", [])?;
    let sql = "INSERT INTO marks (namespace, name, seq, since, next_at)
        VALUES (?1, ?2, (SELECT marks_made FROM state WHERE id = 1), ?3, ?4)
        ON CONFLICT (namespace, name) DO UPDATE SET seq = excluded.seq, next_at = min(next_at, excluded.next_at)";
    let next_at = milliseconds_now() + milliseconds(head_start);
    execute(write, sql, params![key.namespace().id(), key.name(), Stamp::now().seconds(), next_at]).map(drop)
}

fn claim_one(write: &Write<'_>, key: EntryKey, claim: ClaimId, lease: Duration) -> Result<Claimed> {
    let failed = |error| sql_error("write to the database", error);
    let now = milliseconds_now();
    let sql = "UPDATE marks SET claim = ?3, claimed_until = ?4 WHERE namespace = ?1 AND name = ?2
        AND (claimed_until <= ?5 OR claim = ?3) RETURNING seq, attempts";
    let parameters = params![key.namespace().id(), key.name(), claim.0, now + milliseconds(lease), now];
    let mut statement = write.prepare_cached(sql).map_err(failed)?;
    let claimed = statement.query_row(parameters, |row| Ok((row.get(0)?, row.get(1)?))).optional().map_err(failed)?;
    if let Some((seq, attempts)) = claimed {
        return Ok(Claimed::Yes(Mark { key, seq, attempts }));
    }
    let sql = "SELECT 1 FROM marks WHERE namespace = ?1 AND name = ?2";
    let is_marked = number(write, sql, params![key.namespace().id(), key.name()])?.is_some();
    Ok(if is_marked { Claimed::Held } else { Claimed::Absent })
}

fn due(connection: &Connection, rows: usize) -> Result<Vec<Mark>> {
    let failed = |error| sql_error("read the database", error);
    let sql = "SELECT namespace, name, seq, attempts FROM marks WHERE next_at <= ?1 AND claimed_until <= ?1
        ORDER BY next_at LIMIT ?2";
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    let mut found = statement.query(params![milliseconds_now(), to_sql(rows as u64)?]).map_err(failed)?;
    let mut marks = Vec::new();
    while let Some(row) = found.next().map_err(failed)? {
        let namespace = Namespace::from_id(row.get(0).map_err(failed)?);
        let name: String = row.get(1).map_err(failed)?;
        let key = EntryKey::parse(namespace, name.as_bytes()).map_err(|_| damaged("a marked name"))?;
        marks.push(Mark { key, seq: row.get(2).map_err(failed)?, attempts: row.get(3).map_err(failed)? });
    }
    Ok(marks)
}

fn claim_due(write: &Write<'_>, claim: ClaimId, lease: Duration, rows: usize) -> Result<Vec<Mark>> {
    let marks = due(write, rows)?;
    let until = milliseconds_now() + milliseconds(lease);
    for mark in &marks {
        let sql = "UPDATE marks SET claim = ?3, claimed_until = ?4 WHERE namespace = ?1 AND name = ?2";
        execute(write, sql, params![mark.key.namespace().id(), mark.key.name(), claim.0, until])?;
    }
    Ok(marks)
}

fn settle(write: &Write<'_>, mark: &Mark, claim: ClaimId) -> Result<Settled> {
    let (namespace, name) = (mark.key.namespace().id(), mark.key.name());
    let sql = "DELETE FROM marks WHERE namespace = ?1 AND name = ?2 AND claim = ?3 AND seq = ?4";
    if execute(write, sql, params![namespace, name, claim.0, mark.seq])? == 1 {
        return Ok(Settled::Done);
    }
    let sql = "UPDATE marks SET claim = NULL, claimed_until = 0, next_at = ?4, telling = NULL
        WHERE namespace = ?1 AND name = ?2 AND claim = ?3";
    let changed = execute(write, sql, params![namespace, name, claim.0, milliseconds_now()])?;
    Ok(if changed == 1 { Settled::Changed } else { Settled::Lost })
}

fn summary(connection: &Connection) -> Result<MarkSummary> {
    let failed = |error| sql_error("read the database", error);
    let sql = "SELECT count(*), min(since),
        (SELECT last_error FROM marks WHERE last_error IS NOT NULL ORDER BY next_at DESC LIMIT 1) FROM marks";
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    let row = statement.query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
    let (marks, oldest, last_error): (i64, Option<i64>, Option<String>) = row.map_err(failed)?;
    let marks = u64::try_from(marks).map_err(|_| damaged("negative number"))?;
    Ok(MarkSummary { marks, oldest: oldest.map(Stamp::from_seconds), last_error })
}

fn are_here(connection: &Connection, namespace: Namespace, names: &[String]) -> Result<Vec<KnownHere>> {
    let mut known = Vec::with_capacity(names.len());
    for name in names {
        let sql = "SELECT 1 FROM entries WHERE namespace = ?1 AND name = ?2";
        let is_here = number(connection, sql, params![namespace.id(), name])?.is_some();
        let (deleted, telling) = (tombstone(connection, namespace, name)?, telling(connection, namespace, name)?);
        known.push(KnownHere { is_here, deleted, telling });
    }
    Ok(known)
}

fn telling(connection: &Connection, namespace: Namespace, name: &str) -> Result<Option<Digest>> {
    let failed = |error| sql_error("read the database", error);
    let sql = "SELECT telling FROM marks WHERE namespace = ?1 AND name = ?2";
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    let found = statement.query_row(params![namespace.id(), name], |row| row.get::<_, Option<Vec<u8>>>(0));
    match found.optional().map_err(failed)?.flatten() {
        Some(digest) => Digest::from_slice(&digest).map(Some).ok_or_else(|| damaged("length of a digest")),
        None => Ok(None),
    }
}

fn number(connection: &Connection, sql: &str, parameters: impl rusqlite::Params) -> Result<Option<i64>> {
    let failed = |error| sql_error("read the database", error);
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    statement.query_row(parameters, |row| row.get(0)).optional().map_err(failed)
}

fn milliseconds_now() -> i64 {
    milliseconds(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn milliseconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}
