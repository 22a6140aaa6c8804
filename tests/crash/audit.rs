//! The whole store, looked at from outside: rows of the database against each other and against the objects.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};
use s3dedup_actors::testkit::postgres::PostgresServer;

/// Prefixes of an object's name, as configured by default.
const DEPTH: usize = 2;

/// Where the rows are.
pub enum Database<'a> {
    Sqlite(PathBuf),
    Postgres(&'a PostgresServer, String),
}

/// A table's name (or what is looked at), a digest, and numbers.
type Row = (String, String, [i64; 3]);

impl Database<'_> {
    fn rows(&self) -> Vec<Row> {
        match self {
            Self::Sqlite(path) => {
                let sql = "SELECT 'entry', lower(hex(digest)), 0, 0, 0 FROM entries
                    UNION ALL SELECT 'content', lower(hex(digest)), logical_size, refs, unused_since IS NOT NULL
                        FROM contents
                    UNION ALL SELECT 'stored', lower(hex(digest)), generation, key_depth, stored_size
                        FROM representations
                    UNION ALL SELECT 'named', lower(hex(digest)), generation, key_depth, 0 FROM intents
                    UNION ALL SELECT 'named', lower(hex(digest)), generation, key_depth, 0 FROM condemned
                    UNION ALL SELECT 'totals', '', entries, contents, 0 FROM state
                    UNION ALL SELECT 'bytes', '', logical_bytes, stored_bytes, 0 FROM state";
                let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE).unwrap();
                let whole: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
                assert_eq!(whole, "ok");
                let mut statement = connection.prepare(sql).unwrap();
                let rows = statement
                    .query_map([], |row| Ok((row.get(0)?, row.get(1)?, [row.get(2)?, row.get(3)?, row.get(4)?])));
                rows.unwrap().map(Result::unwrap).collect()
            }
            Self::Postgres(server, database) => {
                let sql = "SET search_path TO s3dedup;
                    SELECT 'entry', encode(digest, 'hex'), 0::bigint, 0::bigint, 0::bigint FROM entries
                    UNION ALL SELECT 'content', encode(digest, 'hex'), logical_size, -1, (unused_since IS NOT NULL)::int
                        FROM contents
                    UNION ALL SELECT 'stored', encode(digest, 'hex'), generation, key_depth, stored_size
                        FROM representations
                    UNION ALL SELECT 'named', encode(digest, 'hex'), generation, key_depth, 0 FROM intents
                    UNION ALL SELECT 'named', encode(digest, 'hex'), generation, key_depth, 0 FROM condemned
                    UNION ALL SELECT 'totals', '', sum(entries)::bigint, sum(contents)::bigint, 0 FROM totals
                    UNION ALL SELECT 'bytes', '', sum(logical_bytes)::bigint, sum(stored_bytes)::bigint, 0 FROM totals";
                let printed = server.sql_in(database, sql);
                let row = |line: &str| {
                    let columns: Vec<_> = line.split('|').collect();
                    let number = |at: usize| columns[at].parse().unwrap();
                    (columns[0].to_owned(), columns[1].to_owned(), [number(2), number(3), number(4)])
                };
                printed.lines().map(row).collect()
            }
        }
    }
}

fn name(digest: &str, generation: i64, depth: i64) -> String {
    let prefixes: String = (0..depth as usize).map(|at| format!("{}/", &digest[at * 2..at * 2 + 2])).collect();
    let suffix = if generation > 0 { format!(".{generation}") } else { String::new() };
    prefixes + digest + &suffix
}

/// The name of the object in this file.
fn object(path: &Path) -> String {
    let parts: Vec<_> = path.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    parts[parts.len().saturating_sub(DEPTH + 1)..].join("/")
}

/// What is wrong. Nothing may be in flight.
pub fn audit(database: &Database<'_>, objects: &[PathBuf]) -> Vec<String> {
    let sized = objects.iter().map(|path| (object(path), std::fs::metadata(path).unwrap().len()));
    audit_objects(database, sized.collect())
}

/// The same for objects by their names, with their sizes.
pub fn audit_objects(database: &Database<'_>, mut objects: BTreeMap<String, u64>) -> Vec<String> {
    let mut wrong = Vec::new();
    let rows = database.rows();
    let of = |table: &'static str| rows.iter().filter(move |row| row.0 == table);
    let mut references = BTreeMap::<&str, i64>::new();
    for (_, digest, _) in of("entry") {
        *references.entry(digest).or_default() += 1;
    }
    let contents: BTreeMap<_, _> = of("content").map(|(_, digest, numbers)| (digest.as_str(), numbers)).collect();
    for (digest, [_, refs, is_unused]) in &contents {
        let counted = references.get(digest).copied().unwrap_or_default();
        if *refs >= 0 && *refs != counted {
            wrong.push(format!("{digest} has {counted} references, {refs} are noted"));
        }
        if counted == 0 && *is_unused == 0 {
            wrong.push(format!("{digest} has no reference and would never be cleaned"));
        }
    }
    for digest in references.keys().filter(|digest| !contents.contains_key(*digest)) {
        wrong.push(format!("a name leads to {digest}, which is not there"));
    }
    let stored: BTreeSet<_> = of("stored").map(|row| row.1.as_str()).collect();
    if stored != contents.keys().copied().collect() {
        wrong.push("contents and representations are not the same digests".to_owned());
    }
    let mut stored_bytes = 0;
    for (_, digest, [generation, depth, size]) in of("stored") {
        stored_bytes += size;
        let name = name(digest, *generation, *depth);
        match objects.remove(&name) {
            Some(found) if found as i64 == *size => {}
            found => wrong.push(format!("{name} should have {size} bytes: {found:?}")),
        }
    }
    for (_, digest, [generation, depth, _]) in of("named") {
        objects.remove(&name(digest, *generation, *depth));
    }
    wrong.extend(objects.keys().map(|object| format!("no row names the object {object}")));

    let logical_bytes: i64 = of("entry").filter_map(|row| contents.get(row.1.as_str())).map(|numbers| numbers[0]).sum();
    let entries = of("entry").count() as i64;
    let counted = ([entries, contents.len() as i64, 0], [logical_bytes, stored_bytes, 0]);
    let noted = (of("totals").next().unwrap().2, of("bytes").next().unwrap().2);
    if counted != noted {
        wrong.push(format!("totals: counted {counted:?}, noted {noted:?}"));
    }
    wrong
}

/// An audit that finds nothing would prove nothing.
#[test]
fn what_is_wrong_is_found() {
    use crate::support::{Noise, TestServer, upload};
    let mut server = TestServer::start();
    for number in 0..3 {
        upload(&server, &format!("f{number}"), 0, &Noise::bytes(number, 1000)).send().assert_status(200);
    }
    server.stop();
    let path = server.data_dir().join("kv.db");
    let database = Database::Sqlite(path.clone());
    let objects = server.objects();
    assert_eq!(audit(&database, &objects), Vec::<String>::new());
    assert_eq!(audit(&database, &objects[1..]).len(), 1, "a lost object");
    let rows = Connection::open(path).unwrap();
    for (what, spoil, wrong, repair) in [
        ("a count", "UPDATE contents SET refs = refs + 1", 3, "UPDATE contents SET refs = refs - 1"),
        ("a total", "UPDATE state SET logical_bytes = 1", 1, "UPDATE state SET logical_bytes = 3000"),
        ("a size", "UPDATE representations SET stored_size = stored_size + 1", 4, ""),
        ("a content", "DELETE FROM contents; DELETE FROM representations", 7, ""),
    ] {
        rows.execute_batch(spoil).unwrap();
        let found = audit(&database, &objects);
        assert_eq!(found.len(), wrong, "{what}: {found:?}");
        rows.execute_batch(repair).unwrap();
    }
}
