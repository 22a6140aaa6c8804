//! What is noted of a content, whether or not it can be read.
//!
//! A row that cannot be read tells nobody where the bytes are. Such a content is as unknown as one without a row: an upload
//! that relied on it would be acknowledged and could never be read.

use rusqlite::{Connection, OptionalExtension, Row};

use super::read::{RawBlob, blob_key, raw_blob};
use super::sql_error;
use crate::model::{BlobKey, Digest, KeyLayout, Result, StoredBlob};
use crate::store::meta::SIZE_MAX;

/// The object that a row names.
#[derive(Clone, Copy)]
pub(super) struct FormerObject {
    /// Its name, as far as it can be told.
    pub(super) key: Option<BlobKey>,
    /// The size that the totals have; `None` when no object has the size that is noted.
    pub(super) counted_size: Option<i64>,
}

/// The size of a content whose bytes are stored; `None` when it is unknown, when it is not known where they are or that
/// cannot be read, or when they are known to be missing or damaged.
pub(super) fn known_size(connection: &Connection, digest: Digest) -> Result<Option<i64>> {
    let failed = |error| sql_error("read the database", error);
    let sql = "SELECT c.logical_size, r.kind, r.generation, r.key_depth, r.encoding, r.stored_size, r.stored_hash
        FROM contents c JOIN representations r ON r.digest = c.digest
        WHERE c.digest = ?1 AND r.suspect_since IS NULL";
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    let row = statement.query_row([digest.as_bytes()], |row| Ok(legible_size(row, digest)));
    row.optional().map(Option::flatten).map_err(failed)
}

/// Whether the rows of a content, which has both, cannot be read.
pub(super) fn is_unreadable(connection: &Connection, digest: Digest) -> Result<bool> {
    let failed = |error| sql_error("read the database", error);
    let sql = "SELECT c.logical_size, r.kind, r.generation, r.key_depth, r.encoding, r.stored_size, r.stored_hash
        FROM contents c JOIN representations r ON r.digest = c.digest WHERE c.digest = ?1";
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    let row = statement.query_row([digest.as_bytes()], |row| Ok(legible_size(row, digest)));
    Ok(row.optional().map_err(failed)? == Some(None))
}

/// The size in a row of [`known_size`], if all of the row can be read.
fn legible_size(row: &Row<'_>, digest: Digest) -> Option<i64> {
    let (size, kind): (i64, String) = (row.get(0).ok()?, row.get(1).ok()?);
    legible_blob(raw_blob(row, 2).ok()?, digest)?;
    if kind == "whole" { possible_size(size) } else { None }
}

/// Where the bytes of a content are, if the row can be read and says what can be.
pub(super) fn legible_blob(raw: RawBlob, digest: Digest) -> Option<StoredBlob> {
    name(digest, raw.generation, raw.key_depth)?;
    possible_size(raw.stored_size)?;
    raw.into_blob(digest).ok()
}

/// The object that was noted for a content, which another one replaces.
pub(super) fn former_object(connection: &Connection, digest: Digest) -> Result<Option<FormerObject>> {
    let failed = |error| sql_error("read the database", error);
    let sql = "SELECT generation, key_depth, stored_size FROM representations WHERE digest = ?1";
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    let row = statement.query_row([digest.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
    let Some((generation, key_depth, stored_size)) = row.optional().map_err(failed)? else { return Ok(None) };
    Ok(Some(FormerObject { key: name(digest, generation, key_depth), counted_size: possible_size(stored_size) }))
}

/// A size, unless nothing can have it.
pub(super) fn possible_size(size: i64) -> Option<i64> {
    (0..=SIZE_MAX).contains(&size).then_some(size)
}

/// The name of an object, unless none can have it.
fn name(digest: Digest, generation: i64, key_depth: i64) -> Option<BlobKey> {
    let is_name = u64::try_from(generation).is_ok_and(|generation| generation <= BlobKey::GENERATION_MAX)
        && (0..=i64::from(KeyLayout::DEPTH_MAX)).contains(&key_depth);
    if is_name { blob_key(digest, generation, key_depth).ok() } else { None }
}
