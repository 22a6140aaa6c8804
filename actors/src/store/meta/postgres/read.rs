//! Statements that only read, and rows as values.

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::database::{Database, Sql};
use super::names::{StoredName, namespace, split};
use crate::model::{
    BlobHash, BlobKey, Digest, Entry, EntryKey, Error, KeyLayout, Kind, Recipe, Result, Stamp, StoredBlob,
};
use crate::store::meta::{ListPage, NamePage, Totals};

const LOOKUP: Sql = Sql {
    text: "SELECT e.modified, e.digest, c.logical_size,
            r.generation, r.key_depth, r.encoding, r.stored_size, r.stored_hash
        FROM s3dedup.entries e
        LEFT JOIN s3dedup.contents c ON c.digest = e.digest
        LEFT JOIN s3dedup.representations r ON r.digest = e.digest
        WHERE e.namespace = $1 AND e.name = $2 AND e.rest_hash = $3",
    types: &[Type::INT4, Type::TEXT, Type::BYTEA],
};

/// The names of a range are those whose two parts, compared one after the other, are in it. The single
/// comparisons of the first part are what the index can use.
const LIST: Sql = Sql {
    text: "SELECT name || rest, modified FROM s3dedup.entries
        WHERE namespace = $1 AND name >= $2 AND (name, rest) > ($2, $3)
            AND ($4::text IS NULL OR (name <= $4 AND (name, rest) < ($4, $5)))
        ORDER BY name, rest LIMIT $6",
    types: &[Type::INT4, Type::TEXT, Type::TEXT, Type::TEXT, Type::TEXT, Type::INT8],
};

const TOTALS: Sql = Sql {
    text: "SELECT sum(entries)::bigint, sum(contents)::bigint, sum(logical_bytes)::bigint, sum(stored_bytes)::bigint,
            (SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM s3dedup.intents_id_seq)
        FROM s3dedup.totals",
    types: &[],
};

const IDENTITY: Sql = Sql { text: "SELECT identity FROM s3dedup.state WHERE id = 1", types: &[] };

const PROBE: Sql = Sql { text: "SELECT 1", types: &[] };

/// What a name points at. A name whose content is unknown is damage, never absence.
pub(super) async fn lookup(database: &Database, key: &EntryKey) -> Result<Option<Entry>> {
    let name = StoredName::new(key);
    let rows = database.read(&LOOKUP, &[&name.namespace, &name.name, &name.rest_hash]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let digest = digest(row, 1)?;
    let lost = || damaged(&format!("content {digest} has a name but no row"));
    let logical_size: i64 = column::<Option<i64>>(row, 2)?.ok_or_else(lost)?;
    if column::<Option<i64>>(row, 3)?.is_none() {
        return Err(lost());
    }
    Ok(Some(Entry {
        stamp: Stamp::from_seconds(column(row, 0)?),
        digest,
        logical_size: unsigned(logical_size)?,
        recipe: Recipe::Whole(stored_blob(row, 3, digest)?),
    }))
}

/// One page of names; see [`ListPage`].
pub(super) async fn list(database: &Database, page: &ListPage) -> Result<NamePage> {
    // '0' is the byte after '/': the names below a directory are a range.
    let (start, end) = match page.directory.as_str() {
        "" => (String::new(), None),
        directory => (format!("{directory}/"), Some(format!("{directory}0"))),
    };
    let skip = start.len();
    let after = page.after.clone().unwrap_or(start);
    let (name, rest) = split(&after);
    let (end_name, end_rest) = end.as_deref().map(split).unzip();
    let limit = i64::try_from(page.rows).unwrap_or(i64::MAX);
    let namespace = namespace(page.namespace);
    let rows = database.read(&LIST, &[&namespace, &name, &rest, &end_name, &end_rest, &limit]).await?;
    let mut names = Vec::with_capacity(rows.len());
    for row in &rows {
        let modified: i64 = column(row, 1)?;
        if modified <= page.not_after.seconds() {
            names.push(column::<&str>(row, 0)?[skip..].to_owned());
        }
    }
    let is_full = rows.len() >= page.rows;
    let next = rows.last().filter(|_| is_full).map(|row| column::<&str>(row, 0).map(str::to_owned)).transpose()?;
    Ok(NamePage { names, next, any: !rows.is_empty() })
}

/// The number that no other database has.
pub(super) async fn identity(database: &Database) -> Result<String> {
    let rows = database.read(&IDENTITY, &[]).await?;
    column(rows.first().ok_or_else(|| damaged("no identity"))?, 0)
}

/// Sums over the shards.
pub(super) async fn totals(database: &Database) -> Result<Totals> {
    let rows = database.read(&TOTALS, &[]).await?;
    let row = rows.first().ok_or_else(|| damaged("no totals"))?;
    Ok(Totals {
        entries: unsigned(column(row, 0)?)?,
        contents: unsigned(column(row, 1)?)?,
        logical_bytes: unsigned(column(row, 2)?)?,
        stored_bytes: unsigned(column(row, 3)?)?,
        uploads_begun: unsigned(column(row, 4)?)?,
    })
}

/// Cheap proof that the database answers.
pub(super) async fn probe(database: &Database) -> Result<()> {
    database.read(&PROBE, &[]).await.map(drop)
}

/// Reads the columns generation, key_depth, encoding, stored_size, stored_hash from `first` on.
pub(super) fn stored_blob(row: &Row, first: usize, digest: Digest) -> Result<StoredBlob> {
    let stored_hash: &[u8] = column(row, first + 4)?;
    Ok(StoredBlob {
        key: blob_key(digest, column(row, first)?, column(row, first + 1)?)?,
        encoding: column::<&str>(row, first + 2)?.parse().map_err(|_| damaged("encoding"))?,
        stored_size: unsigned(column(row, first + 3)?)?,
        stored_hash: BlobHash::from_slice(stored_hash).ok_or_else(|| damaged("length of a hash"))?,
    })
}

/// The name of an object from its columns.
pub(super) fn blob_key(digest: Digest, generation: i64, key_depth: i32) -> Result<BlobKey> {
    let depth = u8::try_from(key_depth).map_err(|_| damaged("key depth"))?;
    Ok(BlobKey { digest, generation: unsigned(generation)?, layout: KeyLayout::new(depth) })
}

/// The digest in a column.
pub(super) fn digest(row: &Row, index: usize) -> Result<Digest> {
    Digest::from_slice(column(row, index)?).ok_or_else(|| damaged("length of a digest"))
}

/// The value of a column.
pub(super) fn column<'a, T: tokio_postgres::types::FromSql<'a>>(row: &'a Row, index: usize) -> Result<T> {
    row.try_get(index).map_err(|error| damaged("a column of another type").with_source(error))
}

/// A number that is never negative.
pub(super) fn unsigned(number: i64) -> Result<u64> {
    u64::try_from(number).map_err(|_| damaged("negative number"))
}

/// A row that cannot be what was written.
pub(super) fn damaged(what: &str) -> Error {
    Error::new(Kind::Corrupt, format!("the database is damaged: {what}"))
}
