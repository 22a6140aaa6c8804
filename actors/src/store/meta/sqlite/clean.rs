//! Transactions of cleaning: condemn, (delete outside), forget.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::known::{known_size, legible_blob};
use super::put::execute;
use super::read::{blob_key, raw_blob};
use super::writer::{TotalsChange, Write};
use super::{damaged, sql_error, to_sql};
use crate::model::{BlobKey, Digest, Kind, Recipe, Result, Stamp, StoredBlob};
use crate::store::meta::{
    GENERATION_OF_ORPHAN_MAX, IntentId, OldIntent, StoredContent, Survey, Unreadable, UnusedContent, UnusedPage,
};

const LIST_CONTENTS: &str = "SELECT c.digest, c.logical_size, c.refs,
        r.generation, r.key_depth, r.encoding, r.stored_size, r.stored_hash, r.suspect_since IS NOT NULL
    FROM contents c JOIN representations r ON r.digest = c.digest
    WHERE c.digest > ?1 ORDER BY c.digest LIMIT ?2";

/// See [`MetaStore::list_unused`](crate::store::meta::MetaStore::list_unused).
pub(super) fn list_unused(connection: &Connection, page: &UnusedPage) -> Result<Vec<UnusedContent>> {
    let failed = |error| sql_error("read the database", error);
    // Only what can be condemned.
    let sql = "SELECT c.unused_since, c.digest, r.stored_size
        FROM contents c JOIN representations r ON r.digest = c.digest
        WHERE c.unused_since <= ?1 AND (c.unused_since, c.digest) > (?2, ?3) AND r.stored_size >= 0
            AND NOT EXISTS (SELECT 1 FROM entries e WHERE e.digest = c.digest)
            AND NOT EXISTS (SELECT 1 FROM quarantined q WHERE q.digest = r.digest AND q.generation = r.generation)
        ORDER BY c.unused_since, c.digest LIMIT ?4";
    let (since, digest) = match &page.after {
        Some((since, digest)) => (since.seconds(), digest.as_bytes().as_slice()),
        None => (i64::MIN, [].as_slice()),
    };
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    let limit = to_sql(page.rows as u64)?;
    let rows = statement.query_map(params![page.unused_since.seconds(), since, digest, limit], |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?))
    });
    let unused = |row: rusqlite::Result<(i64, Vec<u8>, i64)>| {
        let (since, digest, stored_size) = row.map_err(failed)?;
        Ok(UnusedContent {
            digest: read_digest(&digest)?,
            unused_since: Stamp::from_seconds(since),
            stored_size: u64::try_from(stored_size).map_err(|_| damaged("negative size"))?,
        })
    };
    rows.map_err(failed)?.map(unused).collect()
}

/// See [`MetaStore::condemn`](crate::store::meta::MetaStore::condemn).
pub(super) fn condemn(connection: &Write<'_>, digests: &[Digest], unused_since: Stamp) -> Result<Vec<StoredBlob>> {
    let condemned = digests.iter().map(|digest| condemn_one(connection, *digest, unused_since));
    condemned.filter_map(Result::transpose).collect()
}

fn condemn_one(connection: &Write<'_>, digest: Digest, unused_since: Stamp) -> Result<Option<StoredBlob>> {
    let failed = |error| sql_error("read the database", error);
    // A count can be wrong after damage. No content is given up that a name holds, whatever is noted of it.
    let sql = "SELECT r.generation, r.key_depth, r.encoding, r.stored_size, r.stored_hash
        FROM contents c JOIN representations r ON r.digest = c.digest
        WHERE c.digest = ?1 AND c.refs = 0 AND c.unused_since <= ?2
            AND NOT EXISTS (SELECT 1 FROM entries e WHERE e.digest = c.digest)
            AND NOT EXISTS (SELECT 1 FROM quarantined q WHERE q.digest = r.digest AND q.generation = r.generation)";
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    let row = statement.query_row(params![digest.as_bytes(), unused_since.seconds()], |row| raw_blob(row, 0));
    let Some(raw) = row.optional().map_err(failed)? else { return Ok(None) };
    let Some(blob) = legible_blob(raw, digest) else {
        // One such row is not to hold up the others.
        log::error!("an unused content is kept, its row cannot be read: run s3dedup verify digest={digest}");
        return Ok(None);
    };
    execute(connection, "DELETE FROM contents WHERE digest = ?1", [digest.as_bytes()])?;
    execute(connection, "DELETE FROM representations WHERE digest = ?1", [digest.as_bytes()])?;
    let stored_bytes = -to_sql(blob.stored_size)?;
    connection.add_to_totals(TotalsChange { contents: -1, stored_bytes, ..TotalsChange::default() });
    add_condemned(connection, blob.key)?;
    Ok(Some(blob))
}

/// See [`MetaStore::list_intents`](crate::store::meta::MetaStore::list_intents).
pub(super) fn list_intents(
    connection: &Connection,
    made_before: Stamp,
    after: Option<IntentId>,
    rows: usize,
) -> Result<Vec<OldIntent>> {
    let failed = |error| sql_error("read the database", error);
    let sql = "SELECT id, digest, generation, key_depth, made_at FROM intents i
        WHERE id > ?1 AND made_at <= ?2
            AND NOT EXISTS (SELECT 1 FROM quarantined q WHERE q.digest = i.digest AND q.generation = i.generation)
        ORDER BY id LIMIT ?3";
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    let after = after.map_or(i64::MIN, |intent| intent.0);
    let rows = statement.query_map(params![after, made_before.seconds(), to_sql(rows as u64)?], |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
    });
    let intent = |row: rusqlite::Result<(i64, Vec<u8>, i64, i64, i64)>| {
        let (id, digest, generation, key_depth, made_at) = row.map_err(failed)?;
        let key = blob_key(read_digest(&digest)?, generation, key_depth)?;
        Ok(OldIntent { id: IntentId(id), key, made_at: Stamp::from_seconds(made_at) })
    };
    rows.map_err(failed)?.map(intent).collect()
}

/// See [`MetaStore::condemn_intents`](crate::store::meta::MetaStore::condemn_intents).
pub(super) fn condemn_intents(
    connection: &Connection,
    intents: &[IntentId],
    made_before: Stamp,
) -> Result<Vec<BlobKey>> {
    let condemned = intents.iter().map(|intent| condemn_intent(connection, *intent, made_before));
    condemned.filter_map(Result::transpose).collect()
}

fn condemn_intent(connection: &Connection, intent: IntentId, made_before: Stamp) -> Result<Option<BlobKey>> {
    let failed = |error| sql_error("write to the database", error);
    let sql = "DELETE FROM intents AS i WHERE id = ?1 AND made_at <= ?2
            AND NOT EXISTS (SELECT 1 FROM quarantined q WHERE q.digest = i.digest AND q.generation = i.generation)
        RETURNING digest, generation, key_depth";
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    let row = statement
        .query_row(params![intent.0, made_before.seconds()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
    let Some((digest, generation, key_depth)) = row.optional().map_err(failed)? else { return Ok(None) };
    let digest: Vec<u8> = digest;
    let key = blob_key(read_digest(&digest)?, generation, key_depth)?;
    add_condemned(connection, key)?;
    Ok(Some(key))
}

/// See [`MetaStore::list_condemned`](crate::store::meta::MetaStore::list_condemned).
pub(super) fn list_condemned(connection: &Connection, after: Option<BlobKey>, rows: usize) -> Result<Vec<BlobKey>> {
    let failed = |error| sql_error("read the database", error);
    let sql = "SELECT digest, generation, key_depth FROM condemned
        WHERE (digest, generation) > (?1, ?2) ORDER BY digest, generation LIMIT ?3";
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    let (digest, generation) = match &after {
        Some(key) => (key.digest.as_bytes().as_slice(), to_sql(key.generation)?),
        None => ([].as_slice(), -1),
    };
    let rows = statement.query_map(params![digest, generation, to_sql(rows as u64)?], |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?))
    });
    let key = |row: rusqlite::Result<(Vec<u8>, i64, i64)>| {
        let (digest, generation, key_depth) = row.map_err(failed)?;
        blob_key(read_digest(&digest)?, generation, key_depth)
    };
    rows.map_err(failed)?.map(key).collect()
}

/// See [`MetaStore::forget`](crate::store::meta::MetaStore::forget).
pub(super) fn forget(connection: &Connection, keys: &[BlobKey]) -> Result<()> {
    let mut floor = None;
    for key in keys {
        let generation = to_sql(key.generation)?;
        let sql = "DELETE FROM condemned WHERE digest = ?1 AND generation = ?2";
        if execute(connection, sql, params![key.digest.as_bytes(), generation])? == 1 {
            floor = floor.max(Some(generation + 1));
        }
    }
    if let Some(floor) = floor {
        // A deletion of these objects may still be on its way somewhere: the numbers stay spent.
        let sql = "UPDATE state SET generation_floor = max(generation_floor, ?1) WHERE id = 1";
        execute(connection, sql, [floor])?;
    }
    Ok(())
}

/// Reads the columns of [`LIST_CONTENTS`].
fn stored_content(row: &Row<'_>) -> Result<StoredContent> {
    let failed = |error| sql_error("read the database", error);
    let read = || {
        let numbers: (i64, i64) = (row.get(1)?, row.get(2)?);
        Ok((row.get::<_, Vec<u8>>(0)?, numbers, raw_blob(row, 3)?, row.get(8)?))
    };
    let (digest, (logical_size, refs), blob, is_suspect) = read().map_err(failed)?;
    let digest = read_digest(&digest)?;
    let unsigned = |number: i64| u64::try_from(number).map_err(|_| damaged("negative number"));
    Ok(StoredContent {
        digest,
        logical_size: unsigned(logical_size)?,
        recipe: Recipe::Whole(blob.into_blob(digest)?),
        references: Some(unsigned(refs)?),
        is_suspect,
    })
}

/// See [`MetaStore::survey`](crate::store::meta::MetaStore::survey).
pub(super) fn survey(connection: &Connection, after: &[u8], rows: usize) -> Result<Survey> {
    let failed = |error| sql_error("read the database", error);
    let mut survey = Survey::default();
    let mut statement = connection.prepare_cached(LIST_CONTENTS).map_err(failed)?;
    let mut found = statement.query(params![after, to_sql(rows as u64)?]).map_err(failed)?;
    let (mut seen, mut last) = (0, None);
    loop {
        match found.next() {
            Ok(Some(row)) => {
                seen += 1;
                let digest = row.get_ref(0).map_err(failed)?.as_bytes().unwrap_or_default().to_vec();
                match stored_content(row) {
                    Ok(content) => survey.contents.push(content),
                    Err(error) if error.kind() == Kind::Corrupt => {
                        survey.unreadable.push(Unreadable::content(&digest, error));
                    }
                    Err(error) => return Err(error),
                }
                last = Some(digest);
            }
            Ok(None) => {
                survey.next = last.filter(|_| seen == rows);
                return Ok(survey);
            }
            Err(error) => {
                let error = failed(error);
                if error.kind() != Kind::Corrupt {
                    return Err(error);
                }
                // A page of the file is broken. What is behind it is looked for at the next beginnings of digests.
                let last = last.as_deref().unwrap_or(after);
                let place = format!(
                    "contents after {}",
                    if last.is_empty() { "the beginning".to_owned() } else { hex::encode(last) }
                );
                survey.unreadable.push(Unreadable { place, why: error.to_string() });
                survey.next = last.first().copied().unwrap_or_default().checked_add(1).map(|byte| vec![byte]);
                return Ok(survey);
            }
        }
    }
}

/// See [`MetaStore::are_known`](crate::store::meta::MetaStore::are_known).
pub(super) fn are_known(connection: &Connection, keys: &[BlobKey]) -> Result<Vec<bool>> {
    let failed = |error| sql_error("read the database", error);
    let sql = "SELECT EXISTS (SELECT 1 FROM representations WHERE digest = ?1 AND generation = ?2 AND key_depth = ?3)
            OR EXISTS (SELECT 1 FROM intents WHERE digest = ?1 AND generation = ?2 AND key_depth = ?3)
            OR EXISTS (SELECT 1 FROM condemned WHERE digest = ?1 AND generation = ?2 AND key_depth = ?3)
            OR EXISTS (SELECT 1 FROM quarantined WHERE digest = ?1 AND generation = ?2 AND key_depth = ?3)";
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    let mut is_known = |key: &BlobKey| {
        let generation = to_sql(key.generation)?;
        let row = params![key.digest.as_bytes(), generation, key.layout.depth()];
        statement.query_row(row, |row| row.get(0)).map_err(failed)
    };
    keys.iter().map(&mut is_known).collect()
}

/// See [`MetaStore::condemn_unknown`](crate::store::meta::MetaStore::condemn_unknown).
pub(super) fn condemn_unknown(connection: &Connection, keys: &[BlobKey]) -> Result<Vec<BlobKey>> {
    let failed = |error| sql_error("read the database", error);
    // Another depth of the same generation counts as known: it could not be condemned beside it.
    let sql = "SELECT EXISTS (SELECT 1 FROM representations WHERE digest = ?1 AND generation = ?2)
            OR EXISTS (SELECT 1 FROM intents WHERE digest = ?1 AND generation = ?2)
            OR EXISTS (SELECT 1 FROM quarantined WHERE digest = ?1 AND generation = ?2)
            OR EXISTS (SELECT 1 FROM condemned WHERE digest = ?1 AND generation = ?2)";
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    let mut condemned = Vec::with_capacity(keys.len());
    for key in keys.iter().filter(|key| key.generation <= GENERATION_OF_ORPHAN_MAX) {
        let row = params![key.digest.as_bytes(), to_sql(key.generation)?];
        let is_something: bool = statement.query_row(row, |row| row.get(0)).map_err(failed)?;
        if !is_something && !may_be_the_last(connection, key.digest)? {
            add_condemned(connection, *key)?;
            condemned.push(*key);
        }
    }
    Ok(condemned)
}

/// Whether any object may be the last one of a content: it has names or a row, and no object of its own that is taken for
/// good.
fn may_be_the_last(connection: &Connection, digest: Digest) -> Result<bool> {
    if known_size(connection, digest)?.is_some() {
        return Ok(false);
    }
    let failed = |error| sql_error("read the database", error);
    let sql = "SELECT EXISTS (SELECT 1 FROM contents WHERE digest = ?1)
        OR EXISTS (SELECT 1 FROM entries WHERE digest = ?1)";
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    statement.query_row([digest.as_bytes()], |row| row.get(0)).map_err(failed)
}

pub(super) fn read_digest(bytes: &[u8]) -> Result<Digest> {
    Digest::from_slice(bytes).ok_or_else(|| damaged("length of a digest"))
}

pub(super) fn add_condemned(connection: &Connection, key: BlobKey) -> Result<()> {
    let sql = "INSERT INTO condemned (digest, generation, key_depth, condemned_at) VALUES (?1, ?2, ?3, ?4)
        ON CONFLICT DO NOTHING";
    let now = Stamp::now().seconds();
    let generation = to_sql(key.generation)?;
    execute(connection, sql, params![key.digest.as_bytes(), generation, key.layout.depth(), now]).map(drop)
}
