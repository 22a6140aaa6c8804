//! Transactions that only read.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{damaged, sql_error, to_sql};
use crate::model::{BlobHash, BlobKey, Digest, Entry, EntryKey, KeyLayout, Recipe, Result, Stamp, StoredBlob};
use crate::store::meta::{ListPage, NamePage, Totals};

const LOOKUP: &str = "
    SELECT e.modified, e.digest, c.logical_size, r.generation, r.key_depth, r.encoding, r.stored_size, r.stored_hash
    FROM entries e
    LEFT JOIN contents c ON c.digest = e.digest
    LEFT JOIN representations r ON r.digest = e.digest
    WHERE e.namespace = ?1 AND e.name = ?2";

/// A row of numbers and bytes as the database has them.
struct RawEntry {
    modified: i64,
    digest: Vec<u8>,
    logical_size: Option<i64>,
    blob: Option<RawBlob>,
}

/// A row of `representations`.
pub(super) struct RawBlob {
    pub(super) generation: i64,
    pub(super) key_depth: i64,
    pub(super) encoding: String,
    pub(super) stored_size: i64,
    pub(super) stored_hash: Vec<u8>,
}

/// What a name points at. A name whose content is unknown is damage, never absence.
pub(super) fn lookup(connection: &Connection, key: &EntryKey) -> Result<Option<Entry>> {
    let failed = |error| sql_error("read the database", error);
    let mut statement = connection.prepare_cached(LOOKUP).map_err(failed)?;
    let row = statement.query_row(params![key.namespace().id(), key.name()], raw_entry).optional().map_err(failed)?;
    let Some(raw) = row else { return Ok(None) };
    let digest = Digest::from_slice(&raw.digest).ok_or_else(|| damaged("length of a digest"))?;
    let lost = || damaged(&format!("content {digest} has a name but no row"));
    let logical_size = raw.logical_size.ok_or_else(lost)?;
    let recipe = Recipe::Whole(raw.blob.ok_or_else(lost)?.into_blob(digest)?);
    Ok(Some(Entry {
        stamp: Stamp::from_seconds(raw.modified),
        digest,
        logical_size: u64::try_from(logical_size).map_err(|_| damaged("negative size"))?,
        recipe,
    }))
}

fn raw_entry(row: &Row<'_>) -> rusqlite::Result<RawEntry> {
    let generation: Option<i64> = row.get(3)?;
    let blob = match generation {
        Some(_) => Some(raw_blob(row, 3)?),
        None => None,
    };
    Ok(RawEntry { modified: row.get(0)?, digest: row.get(1)?, logical_size: row.get(2)?, blob })
}

/// Reads the columns generation, key_depth, encoding, stored_size, stored_hash from `first` on.
pub(super) fn raw_blob(row: &Row<'_>, first: usize) -> rusqlite::Result<RawBlob> {
    Ok(RawBlob {
        generation: row.get(first)?,
        key_depth: row.get(first + 1)?,
        encoding: row.get(first + 2)?,
        stored_size: row.get(first + 3)?,
        stored_hash: row.get(first + 4)?,
    })
}

impl RawBlob {
    pub(super) fn into_blob(self, digest: Digest) -> Result<StoredBlob> {
        Ok(StoredBlob {
            key: blob_key(digest, self.generation, self.key_depth)?,
            encoding: self.encoding.parse().map_err(|_| damaged("encoding"))?,
            stored_size: u64::try_from(self.stored_size).map_err(|_| damaged("negative size"))?,
            stored_hash: BlobHash::from_slice(&self.stored_hash).ok_or_else(|| damaged("length of a hash"))?,
        })
    }
}

/// The name of an object from its columns.
pub(super) fn blob_key(digest: Digest, generation: i64, key_depth: i64) -> Result<BlobKey> {
    Ok(BlobKey {
        digest,
        generation: u64::try_from(generation).map_err(|_| damaged("negative generation"))?,
        layout: KeyLayout::new(u8::try_from(key_depth).map_err(|_| damaged("key depth"))?),
    })
}

/// One page of names; see [`ListPage`].
pub(super) fn list(connection: &Connection, page: &ListPage) -> Result<NamePage> {
    let failed = |error| sql_error("read the database", error);
    // '0' is the byte after '/': the names below a directory are a range of the primary key.
    let (start, end) = match page.directory.as_str() {
        "" => (String::new(), None),
        directory => (format!("{directory}/"), Some(format!("{directory}0"))),
    };
    let skip = start.len();
    let bounded = "SELECT name, modified FROM entries
        WHERE namespace = ?1 AND name > ?2 AND name < ?3 ORDER BY name LIMIT ?4";
    let unbounded = "SELECT name, modified FROM entries
        WHERE namespace = ?1 AND name > ?2 AND ?3 IS NULL ORDER BY name LIMIT ?4";
    let sql = if end.is_some() { bounded } else { unbounded };
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    let after = page.after.clone().unwrap_or(start);
    let limit = to_sql(page.rows as u64)?;
    let mut rows = statement.query(params![page.namespace.id(), after, end, limit]).map_err(failed)?;
    let mut names = Vec::with_capacity(page.rows.min(4096));
    let mut last = None;
    let mut looked_at = 0;
    while let Some(row) = rows.next().map_err(failed)? {
        looked_at += 1;
        let name = row.get_ref(0).map_err(failed)?.as_str().map_err(|_| damaged("a name is no text"))?;
        let modified: i64 = row.get(1).map_err(failed)?;
        if modified <= page.not_after.seconds() {
            names.push(name[skip..].to_owned());
        }
        if looked_at == page.rows {
            last = Some(name.to_owned());
        }
    }
    Ok(NamePage { names, next: last, any: looked_at > 0 })
}

/// The number that no other database has.
pub(super) fn identity(connection: &Connection) -> Result<String> {
    let identity = connection.query_row("SELECT identity FROM state WHERE id = 1", [], |row| row.get(0));
    identity.map_err(|error| sql_error("read the database", error))
}

/// The one row of totals.
pub(super) fn totals(connection: &Connection) -> Result<Totals> {
    let failed = |error| sql_error("read the database", error);
    let sql = "SELECT entries, contents, logical_bytes, stored_bytes,
        coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'intents'), 0) FROM state WHERE id = 1";
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    let row = statement.query_row([], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?]));
    let [entries, contents, logical_bytes, stored_bytes, uploads_begun]: [i64; 5] = row.map_err(failed)?;
    let unsigned = |number: i64| u64::try_from(number).map_err(|_| damaged("negative total"));
    Ok(Totals {
        entries: unsigned(entries)?,
        contents: unsigned(contents)?,
        logical_bytes: unsigned(logical_bytes)?,
        stored_bytes: unsigned(stored_bytes)?,
        uploads_begun: unsigned(uploads_begun)?,
    })
}
