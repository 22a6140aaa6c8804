//! Statements for people who look around.

use async_trait::async_trait;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::PostgresStore;
use super::clean::limit;
use super::database::Sql;
use super::names::{namespace, split};
use super::read::{column, digest, unsigned};
use crate::model::{Digest, Namespace, Result, Stamp};
use crate::store::meta::browse::end_of;
use crate::store::meta::{FileRow, FilesPage, MetaBrowser, SharedContent, SharedPage, SharedPart};

/// The single comparisons of the first part of a name are what the index can use. A name is after $2 and $3, or that one
/// itself where $6 says so.
const FILES: Sql = Sql {
    text: "SELECT e.name || e.rest, e.modified, e.digest, c.logical_size
        FROM (SELECT name, rest, modified, digest FROM s3dedup.entries
            WHERE namespace = $1 AND name >= $2 AND ((name, rest) > ($2, $3) OR ($6 AND (name, rest) = ($2, $3)))
                AND ($4::text IS NULL OR (name <= $4 AND (name, rest) < ($4, $5)))
            ORDER BY name, rest LIMIT $7) e
        LEFT JOIN s3dedup.contents c ON c.digest = e.digest
        ORDER BY e.name, e.rest",
    types: &[Type::INT4, Type::TEXT, Type::TEXT, Type::TEXT, Type::TEXT, Type::BOOL, Type::INT8],
};

const HOLDERS: Sql = Sql {
    text: "SELECT name || rest FROM s3dedup.entries WHERE digest = $1 AND namespace = $2 LIMIT $3",
    types: &[Type::BYTEA, Type::INT4, Type::INT8],
};

/// The last content of a part. All names of it belong to the part.
const PART_END: Sql = Sql {
    text: "SELECT digest FROM s3dedup.entries WHERE digest > $1 ORDER BY digest LIMIT 1 OFFSET $2",
    types: &[Type::BYTEA, Type::INT8],
};

const MOST_SHARED: Sql = Sql {
    text: "SELECT t.digest, t.names, c.logical_size, r.stored_size
        FROM (SELECT digest, count(*) AS names FROM s3dedup.entries
            WHERE digest > $1 AND ($2::bytea IS NULL OR digest <= $2)
            GROUP BY digest HAVING count(*) > 1 ORDER BY count(*) DESC, digest LIMIT $3) t
        LEFT JOIN s3dedup.contents c ON c.digest = t.digest
        LEFT JOIN s3dedup.representations r ON r.digest = t.digest
        ORDER BY t.names DESC, t.digest",
    types: &[Type::BYTEA, Type::BYTEA, Type::INT8],
};

#[async_trait]
impl MetaBrowser for PostgresStore {
    async fn files(&self, page: FilesPage) -> Result<Vec<FileRow>> {
        let end = end_of(&page.prefix);
        let (end_name, end_rest) = end.as_deref().map(split).unzip();
        // A cursor from before the prefix is none.
        let after = page.after.as_deref().filter(|after| *after >= page.prefix.as_str());
        let (name, rest) = split(after.unwrap_or(&page.prefix));
        let is_first = after.is_none();
        let (namespace, rows) = (namespace(page.namespace), limit(page.rows));
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 7] =
            [&namespace, &name, &rest, &end_name, &end_rest, &is_first, &rows];
        self.database.read(&FILES, &parameters).await?.iter().map(file).collect()
    }

    async fn names_of(&self, of: Namespace, digest: Digest, rows: usize) -> Result<Vec<String>> {
        let (digest, of, rows) = (digest.as_bytes().as_slice(), namespace(of), limit(rows));
        let mut names = Vec::new();
        for row in &self.database.read(&HOLDERS, &[&digest, &of, &rows]).await? {
            names.push(column(row, 0)?);
        }
        names.sort_unstable();
        Ok(names)
    }

    async fn most_shared(&self, part: SharedPart) -> Result<SharedPage> {
        let after = part.after.as_ref().map_or([].as_slice(), |digest| digest.as_bytes());
        let end = self.database.read(&PART_END, &[&after, &limit(part.looked_at)]).await?;
        let next = end.first().map(|row| digest(row, 0)).transpose()?;
        let until = next.as_ref().map(|digest| digest.as_bytes().as_slice());
        let rows = self.database.read(&MOST_SHARED, &[&after, &until, &limit(part.rows)]).await?;
        Ok(SharedPage { contents: rows.iter().map(shared).collect::<Result<_>>()?, next })
    }
}

fn file(row: &Row) -> Result<FileRow> {
    Ok(FileRow {
        name: column(row, 0)?,
        stamp: Stamp::from_seconds(column(row, 1)?),
        digest: digest(row, 2)?,
        logical_size: size(row, 3)?,
    })
}

fn shared(row: &Row) -> Result<SharedContent> {
    Ok(SharedContent {
        digest: digest(row, 0)?,
        names: unsigned(column(row, 1)?)?,
        logical_size: size(row, 2)?,
        stored_size: size(row, 3)?,
    })
}

fn size(row: &Row, index: usize) -> Result<Option<u64>> {
    column::<Option<i64>>(row, index)?.map(unsigned).transpose()
}
