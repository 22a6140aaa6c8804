//! Transactions that let names hold contents, or let go of them.

use rusqlite::{Connection, OptionalExtension, params};

use super::care::quarantine;
use super::journal::remembers_deletions;
use super::known::{former_object, known_size, possible_size};
use super::mirror::{bury, mark_written, tombstone};
use super::writer::{TotalsChange, Write};
use super::{damaged, sql_error, to_sql};
use crate::model::{BlobKey, Digest, EntryKey, Error, Result, Stamp, StoredBlob};
use crate::store::meta::care::HEALED;
use crate::store::meta::{
    CommitPut, DeleteOutcome, IntentId, NewIntent, Origin, PlanPut, PutCommit, PutPlan, Restored,
};

/// What a name holds now.
struct Current {
    stamp: Stamp,
    digest: Digest,
}

/// Answers a plan without an intent when it takes no write; `None` when it does.
pub(super) fn foresee(connection: &Connection, plan: &PlanPut) -> Result<Option<PutPlan>> {
    let current = current(connection, &plan.key)?;
    if let Some(stamp) = standing(plan.origin, plan.stamp, current.as_ref()) {
        return Ok(Some(PutPlan::Stale { current: stamp }));
    }
    if is_deleted(connection, plan.origin, &plan.key, plan.stamp)? {
        return Ok(Some(PutPlan::Deleted));
    }
    let is_known = known_size(connection, plan.digest)?.is_some();
    Ok(if is_known { None } else { Some(PutPlan::Missing) })
}

/// See [`MetaStore::plan_put`](crate::store::meta::MetaStore::plan_put).
pub(super) fn plan(connection: &Write<'_>, plan: &PlanPut) -> Result<PutPlan> {
    let current = current(connection, &plan.key)?;
    if let Some(stamp) = standing(plan.origin, plan.stamp, current.as_ref()) {
        return Ok(PutPlan::Stale { current: stamp });
    }
    if is_deleted(connection, plan.origin, &plan.key, plan.stamp)? {
        return Ok(PutPlan::Deleted);
    }
    if hold(connection, &plan.key, plan.stamp, plan.digest, current)? {
        if plan.origin == Origin::Mirrored {
            mark_written(connection, &plan.key)?;
        }
        return Ok(PutPlan::Committed);
    }
    let Some(intent) = &plan.intent else { return Ok(PutPlan::Missing) };
    let (intent, key) = make_intent(connection, plan.digest, intent)?;
    Ok(PutPlan::Upload { intent, key })
}

/// See [`MetaStore::commit_put`](crate::store::meta::MetaStore::commit_put).
pub(super) fn commit(connection: &Write<'_>, commit: &CommitPut) -> Result<PutCommit> {
    let key = commit.blob.key;
    let current = current(connection, &commit.key)?;
    let stale = standing(commit.origin, commit.stamp, current.as_ref());
    if is_deleted(connection, commit.origin, &commit.key, commit.stamp)? {
        return Ok(PutCommit::Deleted);
    }
    if known_size(connection, key.digest)?.is_none() {
        // Only a standing intent proves that the object has not been given up to cleaning.
        if !take_intent(connection, commit.intent, key)? {
            return Ok(match stale {
                Some(current) => PutCommit::Stale { current },
                None => PutCommit::IntentLost,
            });
        }
        adopt(connection, commit)?;
    }
    if let Some(current) = stale {
        return Ok(PutCommit::Stale { current });
    }
    if hold(connection, &commit.key, commit.stamp, key.digest, current)? {
        if commit.origin == Origin::Mirrored {
            mark_written(connection, &commit.key)?;
        }
        Ok(PutCommit::Committed)
    } else {
        Err(damaged("a known content has no row"))
    }
}

/// See [`MetaStore::delete`](crate::store::meta::MetaStore::delete).
pub(super) fn delete(connection: &Write<'_>, key: &EntryKey, stamp: Stamp) -> Result<DeleteOutcome> {
    let Some(current) = current(connection, key)? else { return Ok(DeleteOutcome::Absent) };
    if current.stamp > stamp {
        return Ok(DeleteOutcome::Stale { current: current.stamp });
    }
    let sql = "DELETE FROM entries WHERE namespace = ?1 AND name = ?2";
    execute(connection, sql, params![key.namespace().id(), key.name()])?;
    let size = release(connection, current.digest)?;
    connection.add_to_totals(TotalsChange { entries: -1, logical_bytes: -size, ..TotalsChange::default() });
    if remembers_deletions(connection)? {
        bury(connection, key, stamp)?;
    }
    Ok(DeleteOutcome::Deleted)
}

/// The version that stays, if what is here stands against a write.
fn standing(origin: Origin, stamp: Stamp, current: Option<&Current>) -> Option<Stamp> {
    let stands = |current: &Stamp| *current > stamp || (origin == Origin::Copied && *current == stamp);
    current.map(|current| current.stamp).filter(stands)
}

/// Whether a copy is of what was deleted here.
fn is_deleted(connection: &Connection, origin: Origin, key: &EntryKey, stamp: Stamp) -> Result<bool> {
    if origin != Origin::Copied {
        return Ok(false);
    }
    Ok(tombstone(connection, key.namespace(), key.name())?.is_some_and(|deleted| deleted >= stamp))
}

/// Points a name at a content and moves the counts; `false`, and nothing changed, when the content
/// is unknown. A repetition changes nothing.
fn hold(
    connection: &Write<'_>,
    key: &EntryKey,
    stamp: Stamp,
    digest: Digest,
    current: Option<Current>,
) -> Result<bool> {
    // A name may outlive what it holds, when rows or objects were lost: the content is to be uploaded anew then.
    let Some(size) = known_size(connection, digest)? else { return Ok(false) };
    point(connection, key, stamp, (digest, size), current)?;
    Ok(true)
}

/// See [`MetaCare::restore`](crate::store::meta::MetaCare::restore).
pub(super) fn restore(connection: &Write<'_>, key: &EntryKey, stamp: Stamp, digest: Digest) -> Result<Restored> {
    let current = current(connection, key)?;
    let stays = |now: &Current| now.stamp > stamp || (now.stamp == stamp && now.digest != digest);
    if current.as_ref().is_some_and(stays) {
        return Ok(Restored::Newer);
    }
    let Some(size) = logical_size(connection, digest)? else { return Ok(Restored::Unknown) };
    point(connection, key, stamp, (digest, possible_size(size).unwrap_or_default()), current)?;
    Ok(Restored::Held)
}

/// Points a name at a content that has a row, and that size.
fn point(
    connection: &Write<'_>,
    key: &EntryKey,
    stamp: Stamp,
    (digest, size): (Digest, i64),
    current: Option<Current>,
) -> Result<()> {
    if let Some(current) = &current
        && current.digest == digest
    {
        if current.stamp != stamp {
            let sql = "UPDATE entries SET modified = ?3 WHERE namespace = ?1 AND name = ?2";
            execute(connection, sql, params![key.namespace().id(), key.name(), stamp.seconds()])?;
        }
        return Ok(());
    }
    add_reference(connection, digest)?;
    let sql = "INSERT INTO entries (namespace, name, modified, digest) VALUES (?1, ?2, ?3, ?4)
        ON CONFLICT (namespace, name) DO UPDATE
        SET modified = excluded.modified, digest = excluded.digest, attrs = excluded.attrs";
    execute(connection, sql, params![key.namespace().id(), key.name(), stamp.seconds(), digest.as_bytes()])?;
    let (entries, replaced) = match current {
        Some(current) => (0, release(connection, current.digest)?),
        None => (1, 0),
    };
    connection.add_to_totals(TotalsChange { entries, logical_bytes: size - replaced, ..TotalsChange::default() });
    Ok(())
}

/// Gives a content that has a row one more reference.
fn add_reference(connection: &Connection, digest: Digest) -> Result<()> {
    let sql = "UPDATE contents SET refs = refs + 1, unused_since = NULL WHERE digest = ?1";
    execute(connection, sql, [digest.as_bytes()]).map(drop)
}

/// Takes one reference from a content; returns its logical size. A name is let go whatever became of its content: 0 when
/// that is unknown, and a count that is too low already stays what it is.
fn release(connection: &Connection, digest: Digest) -> Result<i64> {
    let sql = "UPDATE contents SET refs = max(refs - 1, 0), unused_since = CASE WHEN refs <= 1 THEN ?2 END
        WHERE digest = ?1 RETURNING logical_size";
    let size = counted(connection, sql, params![digest.as_bytes(), Stamp::now().seconds()])?;
    if size.is_none() {
        log::error!("a name is let go whose content has no row digest={digest}: run s3dedup verify");
    }
    Ok(size.unwrap_or_default())
}

/// Runs an update of at most one row that returns one number.
fn counted(connection: &Connection, sql: &str, params: impl rusqlite::Params) -> Result<Option<i64>> {
    let failed = |error| sql_error("write to the database", error);
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    statement.query_row(params, |row| row.get(0)).optional().map_err(failed)
}

/// Makes an uploaded object the recipe of a content that was unknown or whose object was not what it should be, with the
/// references that names have kept. A size that cannot be was never counted: the totals then have what is true already.
fn adopt(connection: &Write<'_>, commit: &CommitPut) -> Result<()> {
    let blob = &commit.blob;
    let digest = blob.key.digest;
    let size = to_sql(commit.logical_size)?;
    let former_size = logical_size(connection, digest)?;
    let is_new = former_size.is_none();
    let mut named = 0;
    // A wrong size makes every read look damaged.
    if former_size != Some(size) {
        named = references(connection, digest)?;
    }
    if is_new {
        insert_content(connection, digest, size, named, Stamp::now())?;
    } else if former_size != Some(size) {
        let sql = "UPDATE contents SET logical_size = ?2 WHERE digest = ?1";
        execute(connection, sql, params![digest.as_bytes(), size])?;
    }
    let former = former_object(connection, digest)?;
    if let Some(key) = former.and_then(|former| former.key) {
        let reason = if is_new { "its content was lost from the database and uploaded anew" } else { HEALED };
        quarantine(connection, key, reason)?;
    }
    let stored_size = insert_representation(connection, blob)?;
    let replaced = match former {
        Some(former) if !is_new => former.counted_size.unwrap_or(stored_size),
        _ => 0,
    };
    let grown = match former_size {
        None => size,
        Some(former) => possible_size(former).map_or(0, |former| size - former),
    };
    let change = TotalsChange {
        contents: i64::from(is_new),
        stored_bytes: stored_size - replaced,
        logical_bytes: named.saturating_mul(grown),
        ..TotalsChange::default()
    };
    connection.add_to_totals(change);
    Ok(())
}

/// How many names hold a content.
pub(super) fn references(connection: &Connection, digest: Digest) -> Result<i64> {
    let failed = |error| sql_error("read the database", error);
    let mut statement = connection.prepare_cached("SELECT count(*) FROM entries WHERE digest = ?1").map_err(failed)?;
    statement.query_row([digest.as_bytes()], |row| row.get(0)).map_err(failed)
}

/// Adds a content that `references` names hold; without any it counts as unused since `unused_since`.
pub(super) fn insert_content(
    connection: &Connection,
    digest: Digest,
    logical_size: i64,
    references: i64,
    unused_since: Stamp,
) -> Result<()> {
    let sql = "INSERT INTO contents (digest, logical_size, refs, unused_since)
        VALUES (?1, ?2, ?3, CASE WHEN ?3 = 0 THEN ?4 END)";
    execute(connection, sql, params![digest.as_bytes(), logical_size, references, unused_since.seconds()]).map(drop)
}

/// Notes where the bytes of a content are, instead of what was noted before; returns how many they are.
pub(super) fn insert_representation(connection: &Connection, blob: &StoredBlob) -> Result<i64> {
    let sql = "INSERT INTO representations (digest, kind, generation, key_depth, encoding, stored_size, stored_hash)
        VALUES (?1, 'whole', ?2, ?3, ?4, ?5, ?6) ON CONFLICT (digest) DO UPDATE SET kind = excluded.kind,
        generation = excluded.generation, key_depth = excluded.key_depth, encoding = excluded.encoding,
        stored_size = excluded.stored_size, stored_hash = excluded.stored_hash, suspect_since = NULL";
    let stored_size = to_sql(blob.stored_size)?;
    let row = params![
        blob.key.digest.as_bytes(),
        to_sql(blob.key.generation)?,
        blob.key.layout.depth(),
        blob.encoding.as_str(),
        stored_size,
        blob.stored_hash.as_bytes()
    ];
    execute(connection, sql, row)?;
    Ok(stored_size)
}

/// Writes an intent under a generation that no object of this content has had or may still have. One whose row does not
/// tell its generation had at most the highest that could have been given until now.
pub(super) fn make_intent(connection: &Connection, digest: Digest, intent: &NewIntent) -> Result<(IntentId, BlobKey)> {
    let failed = |error| sql_error("read the database", error);
    let sql = "SELECT max(
            (SELECT generation_floor FROM state WHERE id = 1),
            coalesce((SELECT max(generation) + 1 FROM intents WHERE digest = ?1), 0),
            coalesce((SELECT max(generation) + 1 FROM condemned WHERE digest = ?1), 0),
            coalesce((SELECT max(generation) + 1 FROM representations
                WHERE digest = ?1 AND generation BETWEEN 0 AND ?2), 0)
        ) + (SELECT count(*) FROM representations WHERE digest = ?1 AND generation NOT BETWEEN 0 AND ?2)";
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    let row = params![digest.as_bytes(), to_sql(BlobKey::GENERATION_MAX)?];
    let generation: i64 = statement.query_row(row, |row| row.get(0)).map_err(failed)?;
    let sql = "INSERT INTO intents (digest, generation, key_depth, instance, made_at) VALUES (?1, ?2, ?3, ?4, ?5)";
    let made_at = Stamp::now().seconds();
    let depth = intent.layout.depth();
    execute(connection, sql, params![digest.as_bytes(), generation, depth, intent.instance, made_at])?;
    let key = super::read::blob_key(digest, generation, i64::from(depth))?;
    Ok((IntentId(connection.last_insert_rowid()), key))
}

/// Removes an intent; `false` when it does not stand any more.
pub(super) fn take_intent(connection: &Connection, intent: IntentId, key: BlobKey) -> Result<bool> {
    let sql = "DELETE FROM intents WHERE id = ?1 AND digest = ?2 AND generation = ?3";
    let taken = execute(connection, sql, params![intent.0, key.digest.as_bytes(), to_sql(key.generation)?])?;
    Ok(taken == 1)
}

fn current(connection: &Connection, key: &EntryKey) -> Result<Option<Current>> {
    let failed = |error| sql_error("read the database", error);
    let sql = "SELECT modified, digest FROM entries WHERE namespace = ?1 AND name = ?2";
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    let row = statement.query_row(params![key.namespace().id(), key.name()], |row| Ok((row.get(0)?, row.get(1)?)));
    let Some((modified, digest)) = row.optional().map_err(failed)? else { return Ok(None) };
    let digest: Vec<u8> = digest;
    let digest = Digest::from_slice(&digest).ok_or_else(|| damaged("length of a digest"))?;
    Ok(Some(Current { stamp: Stamp::from_seconds(modified), digest }))
}

/// See [`MetaStore::note_damaged`](crate::store::meta::MetaStore::note_damaged).
pub(super) fn note_damaged(connection: &Connection, key: BlobKey) -> Result<()> {
    let sql = "UPDATE representations SET suspect_since = ?3
        WHERE digest = ?1 AND generation = ?2 AND suspect_since IS NULL";
    let row = params![key.digest.as_bytes(), to_sql(key.generation)?, Stamp::now().seconds()];
    execute(connection, sql, row).map(drop)
}

/// Takes [`note_damaged`] back: the object proved to be good, or is taken for good.
pub(super) fn clear_damaged(connection: &Connection, key: BlobKey) -> Result<()> {
    let sql = "UPDATE representations SET suspect_since = NULL
        WHERE digest = ?1 AND generation = ?2 AND suspect_since IS NOT NULL";
    execute(connection, sql, params![key.digest.as_bytes(), to_sql(key.generation)?]).map(drop)
}

/// The size that a content is noted with; `None` when it has no row.
pub(super) fn logical_size(connection: &Connection, digest: Digest) -> Result<Option<i64>> {
    let failed = |error| sql_error("read the database", error);
    let mut statement =
        connection.prepare_cached("SELECT logical_size FROM contents WHERE digest = ?1").map_err(failed)?;
    statement.query_row([digest.as_bytes()], |row| row.get(0)).optional().map_err(failed)
}

/// Runs a statement that writes; returns the number of rows it changed.
pub(super) fn execute(connection: &Connection, sql: &str, params: impl rusqlite::Params) -> Result<usize, Error> {
    let run = connection.prepare_cached(sql).and_then(|mut statement| statement.execute(params));
    run.map_err(|error| sql_error("write to the database", error))
}
