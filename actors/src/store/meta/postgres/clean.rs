//! Statements of cleaning (condemn, delete outside, forget) and of looking everything over.

use std::time::Duration;

use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use super::database::{Again, Database, Sql};
use super::read::{blob_key, column, damaged, digest, stored_blob, unsigned};
use super::write::signed;
use crate::model::{BlobKey, Digest, Kind, Recipe, Result, Stamp, StoredBlob};
use crate::store::meta::{
    GENERATION_OF_ORPHAN_MAX, IntentId, OldIntent, StoredContent, Survey, Unreadable, UnusedContent, UnusedPage,
};

/// So many contents are dealt with in one transaction: each takes a place in the server's table of locks.
pub(super) const PER_TRANSACTION: usize = 100;

const NOW: Sql = Sql { text: "SELECT s3dedup.seconds_now()", types: &[] };

/// So many rows are looked at together where unused contents are searched for, if not more are wanted.
const LOOKS_MIN: usize = 1000;

/// Every row of a page is looked at, whether or not it is unused: so the work of a page is bounded.
const LOOK_AT_UNUSED: Sql = Sql {
    text: "SELECT page.unused_since, page.digest, r.stored_size,
            EXISTS (SELECT 1 FROM s3dedup.entries e WHERE e.digest = page.digest),
            EXISTS (SELECT 1 FROM s3dedup.quarantined q WHERE q.digest = r.digest AND q.generation = r.generation)
        FROM (SELECT c.unused_since, c.digest FROM s3dedup.contents c
            WHERE c.unused_since <= $1 AND c.unused_since >= $2 AND (c.unused_since, c.digest) > ($2, $3)
            ORDER BY c.unused_since, c.digest LIMIT $4) page
        LEFT JOIN s3dedup.legible r ON r.digest = page.digest
        ORDER BY page.unused_since, page.digest",
    types: &[Type::INT8, Type::INT8, Type::BYTEA, Type::INT8],
};

const SETTLE: Sql = Sql { text: "SELECT s3dedup.settle($1, $2)", types: &[Type::TIMESTAMPTZ, Type::BYTEA_ARRAY] };

const CONDEMN: Sql = Sql {
    text: "SELECT o_generation, o_key_depth, o_encoding, o_stored_size, o_stored_hash, o_digest
        FROM s3dedup.condemn($1, $2, $3)",
    types: &[Type::TIMESTAMPTZ, Type::BYTEA_ARRAY, Type::INT8],
};

const LIST_INTENTS: Sql = Sql {
    text: "SELECT id, digest, generation, key_depth, made_at FROM s3dedup.intents i
        WHERE id > $1 AND made_at <= $2 AND NOT EXISTS (
            SELECT 1 FROM s3dedup.quarantined q WHERE q.digest = i.digest AND q.generation = i.generation)
        ORDER BY id LIMIT $3",
    types: &[Type::INT8, Type::INT8, Type::INT8],
};

const CONDEMN_INTENTS: Sql = Sql {
    text: "SELECT o_digest, o_generation, o_key_depth FROM s3dedup.condemn_intents($1, $2, $3)",
    types: &[Type::TIMESTAMPTZ, Type::INT8_ARRAY, Type::INT8],
};

const LIST_CONDEMNED: Sql = Sql {
    text: "SELECT digest, generation, key_depth FROM s3dedup.condemned
        WHERE (digest, generation) > ($1, $2) ORDER BY digest, generation LIMIT $3",
    types: &[Type::BYTEA, Type::INT8, Type::INT8],
};

const FORGET: Sql =
    Sql { text: "SELECT s3dedup.forget($1, $2, $3)", types: &[Type::TIMESTAMPTZ, Type::BYTEA_ARRAY, Type::INT8_ARRAY] };

/// Both sides are given where they begin: a merge of the two would else read the second from its start for each page.
const LIST_CONTENTS: Sql = Sql {
    text: "SELECT c.digest, c.logical_size, r.generation, r.key_depth, r.encoding, r.stored_size, r.stored_hash,
            r.suspect_since IS NOT NULL
        FROM s3dedup.contents c JOIN s3dedup.representations r ON r.digest = c.digest
        WHERE c.digest > $1 AND r.digest > $1 ORDER BY c.digest LIMIT $2",
    types: &[Type::BYTEA, Type::INT8],
};

const ARE_KNOWN: Sql = Sql {
    text: "SELECT EXISTS (SELECT 1 FROM s3dedup.representations r
                WHERE r.digest = k.digest AND r.generation = k.generation AND r.key_depth = k.key_depth)
            OR EXISTS (SELECT 1 FROM s3dedup.intents i
                WHERE i.digest = k.digest AND i.generation = k.generation AND i.key_depth = k.key_depth)
            OR EXISTS (SELECT 1 FROM s3dedup.condemned c
                WHERE c.digest = k.digest AND c.generation = k.generation AND c.key_depth = k.key_depth)
            OR EXISTS (SELECT 1 FROM s3dedup.quarantined q
                WHERE q.digest = k.digest AND q.generation = k.generation AND q.key_depth = k.key_depth)
        FROM unnest($1, $2, $3) WITH ORDINALITY AS k (digest, generation, key_depth, number) ORDER BY k.number",
    types: &[Type::BYTEA_ARRAY, Type::INT8_ARRAY, Type::INT4_ARRAY],
};

const CONDEMN_UNKNOWN: Sql = Sql {
    text: "SELECT o_digest, o_generation, o_key_depth FROM s3dedup.condemn_unknown($1, $2, $3, $4)",
    types: &[Type::TIMESTAMPTZ, Type::BYTEA_ARRAY, Type::INT8_ARRAY, Type::INT4_ARRAY],
};

const LEAD: Sql = Sql {
    text: "SELECT s3dedup.lead($1, $2, $3, $4)",
    types: &[Type::TIMESTAMPTZ, Type::TEXT, Type::TEXT, Type::INT8],
};

/// See [`MetaStore::now`](crate::store::meta::MetaStore::now).
pub(super) async fn now(database: &Database) -> Result<Stamp> {
    let rows = database.read(&NOW, &[]).await?;
    Ok(Stamp::from_seconds(column(rows.first().ok_or_else(|| damaged("no answer"))?, 0)?))
}

/// See [`MetaStore::list_unused`](crate::store::meta::MetaStore::list_unused).
pub(super) async fn list_unused(database: &Database, page: &UnusedPage) -> Result<Vec<UnusedContent>> {
    let (mut unused, mut after) = (Vec::new(), page.after);
    let rows_max = page.rows.max(LOOKS_MIN);
    loop {
        let (since, digest_after) = match &after {
            Some((since, digest)) => (since.seconds(), digest.as_bytes().as_slice()),
            None => (i64::MIN, [].as_slice()),
        };
        let parameters: [&(dyn ToSql + Sync); 4] =
            [&page.unused_since.seconds(), &since, &digest_after, &limit(rows_max)];
        let rows = database.read(&LOOK_AT_UNUSED, &parameters).await?;
        let mut used = Vec::new();
        for row in &rows {
            let (unused_since, digest) = (Stamp::from_seconds(column(row, 0)?), digest(row, 1)?);
            after = Some((unused_since, digest));
            let (stored_size, is_used, is_kept): (Option<i64>, bool, bool) =
                (column(row, 2)?, column(row, 3)?, column(row, 4)?);
            match stored_size {
                _ if is_used => used.push(digest),
                Some(stored_size) if !is_kept && unused.len() < page.rows => {
                    unused.push(UnusedContent { digest, unused_since, stored_size: unsigned(stored_size)? });
                }
                _ => {}
            }
        }
        if page.settle && !used.is_empty() {
            // Off the list, so that it stays short.
            let used: Vec<&[u8]> = used.iter().map(|digest| digest.as_bytes().as_slice()).collect();
            database.write(Again::Harmless, &SETTLE, &[&used]).await?;
        }
        if unused.len() >= page.rows || rows.len() < rows_max {
            return Ok(unused);
        }
    }
}

/// See [`MetaStore::condemn`](crate::store::meta::MetaStore::condemn).
pub(super) async fn condemn(
    database: &Database,
    mut digests: Vec<Digest>,
    unused_since: Stamp,
) -> Result<Vec<StoredBlob>> {
    digests.sort_unstable();
    digests.dedup();
    let mut condemned = Vec::with_capacity(digests.len());
    for digests in digests.chunks(PER_TRANSACTION) {
        let bytes: Vec<&[u8]> = digests.iter().map(|digest| digest.as_bytes().as_slice()).collect();
        // What an answer that was lost condemned is found among the condemned.
        let rows = database.write(Again::Harmless, &CONDEMN, &[&bytes, &unused_since.seconds()]).await?;
        for row in &rows {
            condemned.push(stored_blob(row, 0, digest(row, 5)?)?);
        }
    }
    Ok(condemned)
}

/// See [`MetaStore::list_intents`](crate::store::meta::MetaStore::list_intents).
pub(super) async fn list_intents(
    database: &Database,
    made_before: Stamp,
    after: Option<IntentId>,
    rows: usize,
) -> Result<Vec<OldIntent>> {
    let after = after.map_or(i64::MIN, |intent| intent.0);
    let rows = database.read(&LIST_INTENTS, &[&after, &made_before.seconds(), &limit(rows)]).await?;
    let intent = |row: &Row| {
        let key = blob_key(digest(row, 1)?, column(row, 2)?, column(row, 3)?)?;
        Ok(OldIntent { id: IntentId(column(row, 0)?), key, made_at: Stamp::from_seconds(column(row, 4)?) })
    };
    rows.iter().map(intent).collect()
}

/// See [`MetaStore::condemn_intents`](crate::store::meta::MetaStore::condemn_intents).
pub(super) async fn condemn_intents(
    database: &Database,
    intents: Vec<IntentId>,
    made_before: Stamp,
) -> Result<Vec<BlobKey>> {
    let mut condemned = Vec::with_capacity(intents.len());
    for intents in intents.chunks(PER_TRANSACTION) {
        let numbers: Vec<i64> = intents.iter().map(|intent| intent.0).collect();
        let rows = database.write(Again::Harmless, &CONDEMN_INTENTS, &[&numbers, &made_before.seconds()]).await?;
        for row in &rows {
            condemned.push(blob_key(digest(row, 0)?, column(row, 1)?, column(row, 2)?)?);
        }
    }
    Ok(condemned)
}

/// See [`MetaStore::list_condemned`](crate::store::meta::MetaStore::list_condemned).
pub(super) async fn list_condemned(database: &Database, after: Option<BlobKey>, rows: usize) -> Result<Vec<BlobKey>> {
    let (bytes, generation) = match &after {
        Some(key) => (key.digest.as_bytes().as_slice(), signed(key.generation)?),
        None => ([].as_slice(), -1),
    };
    let rows = database.read(&LIST_CONDEMNED, &[&bytes, &generation, &limit(rows)]).await?;
    rows.iter().map(|row| blob_key(digest(row, 0)?, column(row, 1)?, column(row, 2)?)).collect()
}

/// See [`MetaStore::forget`](crate::store::meta::MetaStore::forget).
pub(super) async fn forget(database: &Database, keys: Vec<BlobKey>) -> Result<()> {
    for keys in keys.chunks(PER_TRANSACTION) {
        let Columns { digests, generations, .. } = Columns::of(keys)?;
        database.write(Again::Harmless, &FORGET, &[&digests, &generations]).await?;
    }
    Ok(())
}

/// Reads the columns of [`LIST_CONTENTS`].
fn stored_content(row: &Row) -> Result<StoredContent> {
    let digest = digest(row, 0)?;
    Ok(StoredContent {
        digest,
        logical_size: unsigned(column(row, 1)?)?,
        recipe: Recipe::Whole(stored_blob(row, 2, digest)?),
        references: None,
        is_suspect: column(row, 7)?,
    })
}

/// See [`MetaStore::survey`](crate::store::meta::MetaStore::survey).
pub(super) async fn survey(database: &Database, after: &[u8], rows_max: usize) -> Result<Survey> {
    let rows = database.read(&LIST_CONTENTS, &[&after, &limit(rows_max)]).await?;
    let mut survey = Survey::default();
    for row in &rows {
        match stored_content(row) {
            Ok(content) => survey.contents.push(content),
            Err(error) if error.kind() == Kind::Corrupt => {
                survey.unreadable.push(Unreadable::content(column(row, 0)?, error));
            }
            Err(error) => return Err(error),
        }
    }
    let last = rows.last().filter(|_| rows.len() == rows_max);
    survey.next = last.map(|row| column::<&[u8]>(row, 0).map(<[u8]>::to_vec)).transpose()?;
    Ok(survey)
}

/// See [`MetaStore::are_known`](crate::store::meta::MetaStore::are_known).
pub(super) async fn are_known(database: &Database, keys: Vec<BlobKey>) -> Result<Vec<bool>> {
    let Columns { digests, generations, depths } = Columns::of(&keys)?;
    let rows = database.read(&ARE_KNOWN, &[&digests, &generations, &depths]).await?;
    if rows.len() != keys.len() {
        return Err(damaged("an answer for each object"));
    }
    rows.iter().map(|row| column(row, 0)).collect()
}

/// See [`MetaStore::condemn_unknown`](crate::store::meta::MetaStore::condemn_unknown).
pub(super) async fn condemn_unknown(database: &Database, mut keys: Vec<BlobKey>) -> Result<Vec<BlobKey>> {
    keys.retain(|key| key.generation <= GENERATION_OF_ORPHAN_MAX);
    // The order in which locks are taken.
    keys.sort_unstable_by_key(|key| (key.digest, key.generation));
    let mut condemned = Vec::with_capacity(keys.len());
    for keys in keys.chunks(PER_TRANSACTION) {
        let Columns { digests, generations, depths } = Columns::of(keys)?;
        let rows = database.write(Again::Harmless, &CONDEMN_UNKNOWN, &[&digests, &generations, &depths]).await?;
        for row in &rows {
            condemned.push(blob_key(digest(row, 0)?, column(row, 1)?, column(row, 2)?)?);
        }
    }
    Ok(condemned)
}

/// See [`MetaStore::lead`](crate::store::meta::MetaStore::lead).
pub(super) async fn lead(database: &Database, task: &str, holder: &str, term: Duration) -> Result<bool> {
    let milliseconds = i64::try_from(term.as_millis()).unwrap_or(i64::MAX);
    let rows = database.write(Again::Harmless, &LEAD, &[&task, &holder, &milliseconds]).await?;
    column(rows.first().ok_or_else(|| damaged("no answer"))?, 0)
}

/// Names of objects as columns.
pub(super) struct Columns<'a> {
    pub(super) digests: Vec<&'a [u8]>,
    pub(super) generations: Vec<i64>,
    depths: Vec<i32>,
}

impl<'a> Columns<'a> {
    pub(super) fn of(keys: &'a [BlobKey]) -> Result<Self> {
        Ok(Self {
            digests: keys.iter().map(|key| key.digest.as_bytes().as_slice()).collect(),
            generations: keys.iter().map(|key| signed(key.generation)).collect::<Result<_>>()?,
            depths: keys.iter().map(|key| i32::from(key.layout.depth())).collect(),
        })
    }
}

pub(super) fn limit(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}
