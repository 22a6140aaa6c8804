//! Queries for people who look around.

use async_trait::async_trait;
use rusqlite::{Connection, Row, params};

use super::{SqliteStore, damaged, sql_error, to_sql};
use crate::model::{Digest, Namespace, Result, Stamp};
use crate::store::meta::browse::end_of;
use crate::store::meta::{FileRow, FilesPage, MetaBrowser, SharedContent, SharedPage, SharedPart};

const HOLDERS: &str = "SELECT name FROM entries WHERE digest = ?1 AND namespace = ?2 ORDER BY name LIMIT ?3";

/// The last content of a part.
const PART_END: &str = "SELECT digest FROM contents WHERE digest > ?1 ORDER BY digest LIMIT 1 OFFSET ?2";

const MOST_SHARED: &str = "
    SELECT c.digest, c.refs, c.logical_size, r.stored_size
    FROM (SELECT digest, refs, logical_size FROM contents WHERE digest > ?1 AND digest <= ?2 AND refs > 1
        ORDER BY refs DESC, digest LIMIT ?3) c
    LEFT JOIN representations r ON r.digest = c.digest ORDER BY c.refs DESC, c.digest";

/// After all digests.
const END: [u8; 33] = [0xff; 33];

#[async_trait]
impl MetaBrowser for SqliteStore {
    async fn files(&self, page: FilesPage) -> Result<Vec<FileRow>> {
        self.read(move |connection| files(connection, &page)).await
    }

    async fn names_of(&self, namespace: Namespace, digest: Digest, rows: usize) -> Result<Vec<String>> {
        let rows = to_sql(rows as u64)?;
        let work = move |connection: &Connection| {
            all(connection, HOLDERS, params![digest.as_bytes(), namespace.id(), rows], |row| {
                row.get(0).map_err(|error| sql_error("read the database", error))
            })
        };
        self.read(work).await
    }

    async fn most_shared(&self, part: SharedPart) -> Result<SharedPage> {
        self.read(move |connection| most_shared(connection, part)).await
    }
}

fn most_shared(connection: &Connection, part: SharedPart) -> Result<SharedPage> {
    let after = part.after.as_ref().map_or([].as_slice(), |digest| digest.as_bytes());
    let end = all(connection, PART_END, params![after, to_sql(part.looked_at as u64)?], |row| digest(row, 0))?;
    let next = end.first().copied();
    let until = next.as_ref().map_or(END.as_slice(), |digest| digest.as_bytes());
    let contents = all(connection, MOST_SHARED, params![after, until, to_sql(part.rows as u64)?], shared)?;
    Ok(SharedPage { contents, next })
}

/// There is one lower bound only: of two, SQLite would begin at the first.
fn files(connection: &Connection, page: &FilesPage) -> Result<Vec<FileRow>> {
    // A cursor from before the prefix is none.
    let after = page.after.as_ref().filter(|after| **after >= page.prefix);
    let (from, start) = after.map_or((">=", &page.prefix), |after| (">", after));
    let end = end_of(&page.prefix);
    let until = if end.is_some() { "e.name < ?3" } else { "?3 IS NULL" };
    let sql = format!(
        "SELECT e.name, e.modified, e.digest, c.logical_size
        FROM entries e LEFT JOIN contents c ON c.digest = e.digest
        WHERE e.namespace = ?1 AND e.name {from} ?2 AND {until} ORDER BY e.name LIMIT ?4"
    );
    all(connection, &sql, params![page.namespace.id(), start, end, to_sql(page.rows as u64)?], file)
}

fn file(row: &Row<'_>) -> Result<FileRow> {
    let failed = |error| sql_error("read the database", error);
    Ok(FileRow {
        name: row.get(0).map_err(failed)?,
        stamp: Stamp::from_seconds(row.get(1).map_err(failed)?),
        digest: digest(row, 2)?,
        logical_size: size(row, 3)?,
    })
}

fn shared(row: &Row<'_>) -> Result<SharedContent> {
    Ok(SharedContent {
        digest: digest(row, 0)?,
        names: size(row, 1)?.unwrap_or_default(),
        logical_size: size(row, 2)?,
        stored_size: size(row, 3)?,
    })
}

fn digest(row: &Row<'_>, column: usize) -> Result<Digest> {
    let bytes: Vec<u8> = row.get(column).map_err(|error| sql_error("read the database", error))?;
    Digest::from_slice(&bytes).ok_or_else(|| damaged("length of a digest"))
}

fn size(row: &Row<'_>, column: usize) -> Result<Option<u64>> {
    let size: Option<i64> = row.get(column).map_err(|error| sql_error("read the database", error))?;
    size.map(|size| u64::try_from(size).map_err(|_| damaged("negative number"))).transpose()
}

/// All rows of a query.
fn all<T>(
    connection: &Connection,
    sql: &str,
    parameters: impl rusqlite::Params,
    make: impl Fn(&Row<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    let failed = |error| sql_error("read the database", error);
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    let mut rows = statement.query(parameters).map_err(failed)?;
    let mut made = Vec::new();
    while let Some(row) = rows.next().map_err(failed)? {
        made.push(make(row)?);
    }
    Ok(made)
}
