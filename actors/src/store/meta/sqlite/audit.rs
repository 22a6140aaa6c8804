//! Looking everything over in one read transaction.
//!
//! Names have no index by content. So contents are taken in ranges of their digests, and for each range all names
//! are read once: the memory is that of one range, and a million contents take a few passes.

use std::collections::HashMap;

use rusqlite::{Connection, params};

use super::clean::read_digest;
use super::read::blob_key;
use super::{damaged, sql_error, to_sql};
use crate::model::{Digest, Kind, Result};
use crate::store::meta::{Audit, AuditTotals, Finding};

/// Contents of one range.
const RANGE_ROWS: usize = 1 << 18;
/// What SQLite tells of a file at most.
const QUICK_CHECK_MAX: u32 = 100;

/// See [`MetaCare::audit`](crate::store::meta::MetaCare::audit).
pub(super) fn audit(connection: &Connection, findings_max: usize) -> Result<Audit> {
    audit_in_ranges(connection, findings_max, RANGE_ROWS)
}

fn audit_in_ranges(connection: &Connection, findings_max: usize, range_rows: usize) -> Result<Audit> {
    let failed = |error| sql_error("read the database", error);
    let mut auditor = Auditor { connection, findings_max, audit: Audit::default() };
    // Before the snapshot of the rest: while one is read, a server's log cannot be used from its beginning again.
    auditor.step("the file", Auditor::file)?;
    connection.execute_batch("BEGIN").map_err(failed)?;
    let outcome = auditor.run(range_rows);
    // Nothing was written; and SQLite does not commit even that after it has met a broken page.
    connection.execute_batch("ROLLBACK").map_err(failed)?;
    outcome.map(|()| auditor.audit)
}

struct Auditor<'a> {
    connection: &'a Connection,
    findings_max: usize,
    audit: Audit,
}

/// A content as it is noted, and what was counted of it.
struct Counted {
    noted: u64,
    counted: u64,
    logical_size: i64,
}

/// Contents of a range of digests.
type Range = HashMap<Digest, Counted>;

impl Auditor<'_> {
    fn run(&mut self, range_rows: usize) -> Result<()> {
        self.step("the totals", |auditor| {
            auditor.audit.noted = auditor.noted()?;
            Ok(())
        })?;
        self.step("contents and their objects", Self::representations)?;
        self.step("contents and names", |auditor| auditor.references(range_rows))?;
        self.audit.findings.sort_by_key(Finding::digest);
        Ok(())
    }

    /// What cannot be read ends a step, not the audit.
    fn step(&mut self, what: &str, step: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        match step(self) {
            Err(error) if error.kind() == Kind::Corrupt => {
                self.audit.is_cut = true;
                self.audit.unreadable(self.findings_max, what.to_owned(), error);
                Ok(())
            }
            outcome => outcome,
        }
    }

    /// SQLite's own look at the file: pages, order of rows, constraints.
    fn file(&mut self) -> Result<()> {
        let failed = |error| sql_error("check the database", error);
        let sql = format!("PRAGMA quick_check({QUICK_CHECK_MAX})");
        let mut statement = self.connection.prepare(&sql).map_err(failed)?;
        let mut rows = statement.query([]).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            let told: String = row.get(0).map_err(failed)?;
            if told != "ok" {
                self.audit.unreadable(self.findings_max, "the file".to_owned(), told.replace('\n', " "));
            }
        }
        Ok(())
    }

    fn references(&mut self, range_rows: usize) -> Result<()> {
        let mut after: Vec<u8> = Vec::new();
        loop {
            let (mut range, last) = self.contents(&after, range_rows)?;
            self.count(&mut range, &after, last.as_deref())?;
            for (digest, Counted { noted, counted, logical_size }) in &range {
                self.audit.counted.logical_bytes += logical_size * counted.cast_signed();
                if noted != counted {
                    self.add(Finding::WrongCount { digest: *digest, stored: *noted, counted: *counted });
                }
            }
            match last {
                Some(last) => after = last,
                None => return Ok(()),
            }
        }
    }

    fn add(&mut self, finding: Finding) {
        if self.audit.findings.len() < self.findings_max {
            self.audit.findings.push(finding);
        } else {
            self.audit.left_off += 1;
        }
    }

    /// What a row says, when it can be read; otherwise that is noted. `row` tells it from others.
    fn legible<T>(&mut self, table: &str, row: &[u8], read: Result<T>) -> Result<Option<T>> {
        match read {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.kind() == Kind::Corrupt => {
                let place = format!("{table} {}", hex::encode(row));
                self.audit.unreadable(self.findings_max, place, error);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn noted(&self) -> Result<AuditTotals> {
        let failed = |error| sql_error("read the database", error);
        let sql = "SELECT entries, contents, logical_bytes, stored_bytes FROM state WHERE id = 1";
        let row = self.connection.query_row(sql, [], |row| {
            Ok(AuditTotals {
                entries: row.get(0)?,
                contents: row.get(1)?,
                logical_bytes: row.get(2)?,
                stored_bytes: row.get(3)?,
            })
        });
        row.map_err(failed)
    }

    /// Both tables have the order of digests: neither is looked for in the other more than once.
    fn representations(&mut self) -> Result<()> {
        let failed = |error| sql_error("read the database", error);
        let sql = "SELECT c.digest, r.stored_size FROM contents c LEFT JOIN representations r ON r.digest = c.digest";
        let mut statement = self.connection.prepare(sql).map_err(failed)?;
        let mut rows = statement.query([]).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            self.audit.counted.contents += 1;
            match row.get::<_, Option<i64>>(1).map_err(failed)? {
                Some(stored_size) => self.audit.counted.stored_bytes += stored_size,
                None => {
                    let bytes = row.get::<_, Vec<u8>>(0).map_err(failed)?;
                    if let Some(digest) = self.legible("contents", &bytes, read_digest(&bytes))? {
                        self.add(Finding::NoRepresentation { digest });
                    }
                }
            }
        }
        let sql = "SELECT r.digest, r.generation, r.key_depth FROM representations r
            WHERE NOT EXISTS (SELECT 1 FROM contents c WHERE c.digest = r.digest)";
        let mut statement = self.connection.prepare(sql).map_err(failed)?;
        let mut rows = statement.query([]).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            let bytes = row.get::<_, Vec<u8>>(0).map_err(failed)?;
            let (generation, depth) = (row.get(1).map_err(failed)?, row.get(2).map_err(failed)?);
            let key = read_digest(&bytes).and_then(|digest| blob_key(digest, generation, depth));
            if let Some(key) = self.legible("representations", &bytes, key)? {
                self.add(Finding::StrayRepresentation { digest: key.digest, key });
            }
        }
        Ok(())
    }

    /// Up to `rows` contents after a digest, and the last one's digest if there may be more.
    fn contents(&mut self, after: &[u8], rows: usize) -> Result<(Range, Option<Vec<u8>>)> {
        let failed = |error| sql_error("read the database", error);
        let sql = "SELECT digest, refs, logical_size FROM contents WHERE digest > ?1 ORDER BY digest LIMIT ?2";
        let connection = self.connection;
        let mut statement = connection.prepare_cached(sql).map_err(failed)?;
        let mut found = statement.query(params![after, to_sql(rows as u64)?]).map_err(failed)?;
        let (mut range, mut last, mut seen) = (HashMap::new(), None, 0);
        while let Some(row) = found.next().map_err(failed)? {
            let bytes = row.get_ref(0).map_err(failed)?.as_blob().map_err(|_| damaged("a digest"))?;
            seen += 1;
            last = Some(bytes.to_vec());
            let noted: i64 = row.get(1).map_err(failed)?;
            let logical_size = row.get(2).map_err(failed)?;
            let noted = u64::try_from(noted).map_err(|_| damaged("negative number"));
            let read = read_digest(bytes).and_then(|digest| Ok((digest, noted?)));
            if let Some((digest, noted)) = self.legible("contents", bytes, read)? {
                range.insert(digest, Counted { noted, counted: 0, logical_size });
            }
        }
        Ok((range, last.filter(|_| seen == rows)))
    }

    /// Reads all names and counts those whose content is in the range: after `after`, up to `last`.
    fn count(&mut self, range: &mut Range, after: &[u8], last: Option<&[u8]>) -> Result<()> {
        let failed = |error| sql_error("read the database", error);
        let connection = self.connection;
        let mut statement = connection.prepare_cached("SELECT digest FROM entries").map_err(failed)?;
        let mut rows = statement.query([]).map_err(failed)?;
        // Bounded: more of them than are told are only counted, the same one perhaps several times.
        let mut unknown = HashMap::new();
        while let Some(row) = rows.next().map_err(failed)? {
            let bytes = row.get_ref(0).map_err(failed)?.as_blob().map_err(|_| damaged("a digest"))?;
            if (!after.is_empty() && bytes <= after) || last.is_some_and(|last| bytes > last) {
                continue;
            }
            self.audit.counted.entries += 1;
            let Some(digest) = self.legible("entries of content", bytes, read_digest(bytes))? else { continue };
            if let Some(content) = range.get_mut(&digest) {
                content.counted += 1;
            } else if unknown.len() < self.findings_max || unknown.contains_key(&digest) {
                unknown.insert(digest, ());
            } else {
                self.audit.left_off += 1;
            }
        }
        for digest in unknown.into_keys() {
            self.add(Finding::UnknownContent { digest });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{SqliteSettings, SqliteStore};
    use super::*;

    #[test]
    fn ranges_of_any_size_count_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kv.db");
        drop(SqliteStore::open(&SqliteSettings { path: path.clone(), connections: 2, backlog: 1 }).unwrap());
        let connection = Connection::open(path).unwrap();
        for byte in 1..=20u8 {
            let (digest, refs) = ([byte; 32], i64::from(byte % 3));
            if byte % 7 != 0 {
                let unused = (refs == 0).then_some(1);
                let row = params![digest, 10, refs, unused];
                connection.execute("INSERT INTO contents VALUES (?1, ?2, ?3, ?4)", row).unwrap();
            }
            let row = params![digest, [0u8; 32]];
            connection
                .execute("INSERT INTO representations VALUES (?1, 'whole', 0, 2, 'gzip', 5, ?2, NULL)", row)
                .unwrap();
            for name in 0..i64::from(byte % 4) {
                let row = params![format!("{byte}/{name}"), digest];
                connection.execute("INSERT INTO entries VALUES (1, ?1, 1, ?2, NULL)", row).unwrap();
            }
        }
        let whole = audit(&connection, 100).unwrap();
        assert!(whole.findings.iter().any(|finding| matches!(finding, Finding::UnknownContent { .. })));
        assert!(whole.findings.iter().any(|finding| matches!(finding, Finding::StrayRepresentation { .. })));
        assert!(whole.findings.iter().any(|finding| matches!(finding, Finding::WrongCount { .. })));
        assert_eq!(whole.counted.entries, (1..=20).map(|byte| byte % 4).sum::<i64>());
        for rows in [1, 2, 3, 7, 18, 19, 50] {
            let other = audit_in_ranges(&connection, 100, rows).unwrap();
            assert_eq!(other.counted, whole.counted, "{rows}");
            assert_eq!(other.findings.len(), whole.findings.len(), "{rows}");
            assert!(whole.findings.iter().all(|finding| other.findings.contains(finding)), "{rows}");
        }
        let few = audit(&connection, 2).unwrap();
        assert_eq!(few.findings.len(), 2);
        assert!(few.left_off > 0);
    }
}
