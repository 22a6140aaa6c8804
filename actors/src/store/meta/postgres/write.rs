//! Statements that let names hold contents, or let go of them. Each is one call of a function of the schema,
//! where the transactions are written down.

use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use super::database::{Again, Database, Sql};
use super::names::StoredName;
use super::read::{blob_key, column, damaged};
use crate::model::{BlobKey, EntryKey, Error, Kind, Result, Stamp};
use crate::store::meta::{CommitPut, DeleteOutcome, IntentId, Origin, PlanPut, PutCommit, PutPlan};

const PLAN_PUT: Sql = Sql {
    text: "SELECT o_outcome, o_current, o_intent, o_generation, o_clock
        FROM s3dedup.plan_put($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    types: &[
        Type::TIMESTAMPTZ,
        Type::INT4,
        Type::TEXT,
        Type::TEXT,
        Type::BYTEA,
        Type::INT8,
        Type::BYTEA,
        Type::TEXT,
        Type::INT4,
    ],
};

const PLAN_PUT_BESIDE: Sql = Sql {
    text: "SELECT o_outcome, o_current, o_intent, o_generation, o_clock
        FROM s3dedup.plan_put_beside($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    types: &[
        Type::TIMESTAMPTZ,
        Type::INT4,
        Type::TEXT,
        Type::TEXT,
        Type::BYTEA,
        Type::INT8,
        Type::BYTEA,
        Type::TEXT,
        Type::INT4,
        Type::BOOL,
    ],
};

const COMMIT_PUT: Sql = Sql {
    text: "SELECT o_outcome, o_current, o_clock
        FROM s3dedup.commit_put($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
    types: &[
        Type::TIMESTAMPTZ,
        Type::INT4,
        Type::TEXT,
        Type::TEXT,
        Type::BYTEA,
        Type::INT8,
        Type::BYTEA,
        Type::INT8,
        Type::INT8,
        Type::INT8,
        Type::INT4,
        Type::TEXT,
        Type::INT8,
        Type::BYTEA,
    ],
};

const COMMIT_PUT_BESIDE: Sql = Sql {
    text: "SELECT o_outcome, o_current, o_clock
        FROM s3dedup.commit_put_beside($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
    types: &[
        Type::TIMESTAMPTZ,
        Type::INT4,
        Type::TEXT,
        Type::TEXT,
        Type::BYTEA,
        Type::INT8,
        Type::BYTEA,
        Type::INT8,
        Type::INT8,
        Type::INT8,
        Type::INT4,
        Type::TEXT,
        Type::INT8,
        Type::BYTEA,
        Type::BOOL,
    ],
};

const NOTE_DAMAGED: Sql =
    Sql { text: "SELECT s3dedup.note_damaged($1, $2, $3)", types: &[Type::TIMESTAMPTZ, Type::BYTEA, Type::INT8] };

const DELETE_BESIDE: Sql = Sql {
    text: "SELECT o_outcome, o_current, o_clock FROM s3dedup.delete_beside($1, $2, $3, $4, $5, $6)",
    types: &[Type::TIMESTAMPTZ, Type::INT4, Type::TEXT, Type::TEXT, Type::BYTEA, Type::INT8],
};

const DELETE: Sql = Sql {
    text: "SELECT o_outcome, o_current, o_clock FROM s3dedup.delete_entry($1, $2, $3, $4, $5)",
    types: &[Type::TIMESTAMPTZ, Type::INT4, Type::TEXT, Type::BYTEA, Type::INT8],
};

/// See [`MetaStore::plan_put`](crate::store::meta::MetaStore::plan_put).
pub(super) async fn plan_put(database: &Database, plan: &PlanPut) -> Result<PutPlan> {
    let name = StoredName::new(&plan.key);
    let digest = plan.digest.as_bytes().as_slice();
    let modified = plan.stamp.seconds();
    let instance = plan.intent.as_ref().map(|intent| intent.instance.as_str());
    let depth = plan.intent.as_ref().map(|intent| i32::from(intent.layout.depth()));
    // Repeated with an intent it may leave one that nobody uses, for the cleaner.
    let is_copy = plan.origin == Origin::Copied;
    let parameters: [&(dyn ToSql + Sync); 9] =
        [&name.namespace, &name.name, &name.rest, &name.rest_hash, &modified, &digest, &instance, &depth, &is_copy];
    let rows = match plan.origin {
        Origin::Client => database.write(Again::Harmless, &PLAN_PUT, &parameters[..8]).await?,
        Origin::Mirrored | Origin::Copied => database.write(Again::Harmless, &PLAN_PUT_BESIDE, &parameters).await?,
    };
    let row = answer(database, &rows, 4)?;
    Ok(match column(row, 0)? {
        "stale" => PutPlan::Stale { current: Stamp::from_seconds(column(row, 1)?) },
        "deleted" => PutPlan::Deleted,
        "committed" => PutPlan::Committed,
        "missing" => PutPlan::Missing,
        "upload" => {
            let key = blob_key(plan.digest, column(row, 3)?, depth.unwrap_or_default())?;
            PutPlan::Upload { intent: IntentId(column(row, 2)?), key }
        }
        _ => return Err(damaged("an unknown outcome")),
    })
}

/// See [`MetaStore::commit_put`](crate::store::meta::MetaStore::commit_put).
pub(super) async fn commit_put(database: &Database, commit: &CommitPut) -> Result<PutCommit> {
    let name = StoredName::new(&commit.key);
    let blob = &commit.blob;
    let (digest, stored_hash) = (blob.key.digest.as_bytes().as_slice(), blob.stored_hash.as_bytes().as_slice());
    let modified = commit.stamp.seconds();
    let (logical_size, stored_size) = (signed(commit.logical_size)?, signed(blob.stored_size)?);
    let generation = signed(blob.key.generation)?;
    let depth = i32::from(blob.key.layout.depth());
    let encoding = blob.encoding.as_str();
    let is_copy = commit.origin == Origin::Copied;
    let parameters: [&(dyn ToSql + Sync); 14] = [
        &name.namespace,
        &name.name,
        &name.rest,
        &name.rest_hash,
        &modified,
        &digest,
        &logical_size,
        &commit.intent.0,
        &generation,
        &depth,
        &encoding,
        &stored_size,
        &stored_hash,
        &is_copy,
    ];
    let rows = match commit.origin {
        Origin::Client => database.write(Again::Harmless, &COMMIT_PUT, &parameters[..13]).await?,
        Origin::Mirrored | Origin::Copied => database.write(Again::Harmless, &COMMIT_PUT_BESIDE, &parameters).await?,
    };
    let row = answer(database, &rows, 2)?;
    Ok(match column(row, 0)? {
        "stale" => PutCommit::Stale { current: Stamp::from_seconds(column(row, 1)?) },
        "deleted" => PutCommit::Deleted,
        "committed" => PutCommit::Committed,
        "lost" => PutCommit::IntentLost,
        _ => return Err(damaged("an unknown outcome")),
    })
}

/// See [`MetaStore::note_damaged`](crate::store::meta::MetaStore::note_damaged).
pub(super) async fn note_damaged(database: &Database, key: BlobKey) -> Result<()> {
    let (digest, generation) = (key.digest.as_bytes().as_slice(), signed(key.generation)?);
    database.write(Again::Harmless, &NOTE_DAMAGED, &[&digest, &generation]).await.map(drop)
}

/// See [`MetaStore::delete`](crate::store::meta::MetaStore::delete).
pub(super) async fn delete(database: &Database, key: &EntryKey, stamp: Stamp) -> Result<DeleteOutcome> {
    let name = StoredName::new(key);
    let modified = stamp.seconds();
    let parameters: [&(dyn ToSql + Sync); 4] = [&name.namespace, &name.name, &name.rest_hash, &modified];
    // The second time it would say that there was no such name.
    let rows = database.write(Again::Misleading, &DELETE, &parameters).await?;
    deleted(answer(database, &rows, 2)?)
}

/// See [`MetaStore::delete_beside`](crate::store::meta::MetaStore::delete_beside).
pub(super) async fn delete_beside(database: &Database, key: &EntryKey, stamp: Stamp) -> Result<DeleteOutcome> {
    let name = StoredName::new(key);
    let modified = stamp.seconds();
    let parameters: [&(dyn ToSql + Sync); 5] = [&name.namespace, &name.name, &name.rest, &name.rest_hash, &modified];
    let rows = database.write(Again::Misleading, &DELETE_BESIDE, &parameters).await?;
    deleted(answer(database, &rows, 2)?)
}

fn deleted(row: &Row) -> Result<DeleteOutcome> {
    Ok(match column(row, 0)? {
        "deleted" => DeleteOutcome::Deleted,
        "stale" => DeleteOutcome::Stale { current: Stamp::from_seconds(column(row, 1)?) },
        "absent" => DeleteOutcome::Absent,
        _ => return Err(damaged("an unknown outcome")),
    })
}

/// The one row of an answer, whose column `clock` shows the database's clock.
fn answer<'a>(database: &Database, rows: &'a [Row], clock: usize) -> Result<&'a Row> {
    let row = rows.first().ok_or_else(|| damaged("no answer"))?;
    database.clock.read(column(row, clock)?);
    Ok(row)
}

/// PostgreSQL's integers are signed: sizes and generations stay below 2^63.
pub(super) fn signed(number: u64) -> Result<i64> {
    i64::try_from(number).map_err(|error| Error::new(Kind::Invalid, "number is too large").with_source(error))
}
