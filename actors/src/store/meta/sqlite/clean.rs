//! Transactions of cleaning: condemn, (delete outside), forget.

use rusqlite::{Connection, OptionalExtension, params};

use super::put::execute;
use super::read::{blob_key, raw_blob};
use super::writer::{TotalsChange, Write};
use super::{damaged, sql_error, to_sql};
use crate::model::{BlobKey, Digest, Recipe, Result, Stamp};
use crate::store::meta::IntentId;

/// See [`MetaStore::condemn`](crate::store::meta::MetaStore::condemn).
pub(super) fn condemn(connection: &Write<'_>, digest: Digest, unused_since: Stamp) -> Result<Option<Recipe>> {
    let failed = |error| sql_error("read the database", error);
    let sql = "SELECT r.generation, r.key_depth, r.encoding, r.stored_size, r.stored_hash
        FROM contents c JOIN representations r ON r.digest = c.digest
        WHERE c.digest = ?1 AND c.refs = 0 AND c.unused_since <= ?2";
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    let row = statement.query_row(params![digest.as_bytes(), unused_since.seconds()], |row| raw_blob(row, 0));
    let Some(raw) = row.optional().map_err(failed)? else { return Ok(None) };
    let blob = raw.into_blob(digest)?;
    execute(connection, "DELETE FROM contents WHERE digest = ?1", [digest.as_bytes()])?;
    execute(connection, "DELETE FROM representations WHERE digest = ?1", [digest.as_bytes()])?;
    let stored_bytes = -to_sql(blob.stored_size)?;
    connection.add_to_totals(TotalsChange { contents: -1, stored_bytes, ..TotalsChange::default() });
    add_condemned(connection, blob.key)?;
    Ok(Some(Recipe::Whole(blob)))
}

/// See [`MetaStore::condemn_intent`](crate::store::meta::MetaStore::condemn_intent).
pub(super) fn condemn_intent(connection: &Connection, intent: IntentId, made_before: Stamp) -> Result<Option<BlobKey>> {
    let failed = |error| sql_error("write to the database", error);
    let sql = "DELETE FROM intents WHERE id = ?1 AND made_at <= ?2 RETURNING digest, generation, key_depth";
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    let row = statement
        .query_row(params![intent.0, made_before.seconds()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
    let Some((digest, generation, key_depth)) = row.optional().map_err(failed)? else { return Ok(None) };
    let digest: Vec<u8> = digest;
    let digest = Digest::from_slice(&digest).ok_or_else(|| damaged("length of a digest"))?;
    let key = blob_key(digest, generation, key_depth)?;
    add_condemned(connection, key)?;
    Ok(Some(key))
}

/// See [`MetaStore::forget`](crate::store::meta::MetaStore::forget).
pub(super) fn forget(connection: &Connection, key: BlobKey) -> Result<()> {
    let generation = to_sql(key.generation)?;
    let sql = "DELETE FROM condemned WHERE digest = ?1 AND generation = ?2";
    if execute(connection, sql, params![key.digest.as_bytes(), generation])? == 1 {
        // A deletion of this object may still be on its way somewhere: the number stays spent.
        let sql = "UPDATE state SET generation_floor = max(generation_floor, ?1 + 1) WHERE id = 1";
        execute(connection, sql, [generation])?;
    }
    Ok(())
}

fn add_condemned(connection: &Connection, key: BlobKey) -> Result<()> {
    let sql = "INSERT INTO condemned (digest, generation, key_depth, condemned_at) VALUES (?1, ?2, ?3, ?4)";
    let now = Stamp::now().seconds();
    let generation = to_sql(key.generation)?;
    execute(connection, sql, params![key.digest.as_bytes(), generation, key.layout.depth(), now]).map(drop)
}
