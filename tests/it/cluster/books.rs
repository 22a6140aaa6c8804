//! The database and the bucket, recounted.

use std::collections::{BTreeMap, BTreeSet};

use super::fixture::Cluster;
use crate::load::stamp::{self, Stamp};

/// Rows that must not be: what is wrong with them, and a query that finds them.
const WRONG_ROWS: [(&str, &str); 5] = [
    (
        "names whose content has no row",
        "SELECT name || rest FROM s3dedup.entries e WHERE NOT EXISTS \
         (SELECT FROM s3dedup.contents c WHERE c.digest = e.digest)",
    ),
    (
        "contents without a representation, or the reverse",
        "SELECT encode(digest, 'hex') FROM s3dedup.contents c FULL JOIN s3dedup.representations r USING (digest) \
         WHERE c.digest IS NULL OR r.digest IS NULL",
    ),
    (
        "contents that nobody refers to and that do not say so",
        "SELECT encode(digest, 'hex') FROM s3dedup.contents c WHERE unused_since IS NULL AND NOT EXISTS \
         (SELECT FROM s3dedup.entries e WHERE e.digest = c.digest)",
    ),
    (
        "contents whose object has been given up",
        "SELECT encode(digest, 'hex') FROM s3dedup.representations JOIN s3dedup.condemned USING (digest, generation)",
    ),
    (
        "contents whose object still has an intent",
        "SELECT encode(digest, 'hex') FROM s3dedup.representations JOIN s3dedup.intents USING (digest, generation)",
    ),
];

const TOTALS: &str = "SELECT coalesce(sum(entries), 0), coalesce(sum(contents), 0), \
    coalesce(sum(logical_bytes), 0), coalesce(sum(stored_bytes), 0) FROM s3dedup.totals";

const RECOUNT: &str = "SELECT (SELECT count(*) FROM s3dedup.entries), (SELECT count(*) FROM s3dedup.contents), \
    (SELECT coalesce(sum(logical_size), 0) FROM s3dedup.entries JOIN s3dedup.contents USING (digest)), \
    (SELECT coalesce(sum(stored_size), 0) FROM s3dedup.representations)";

const ENTRIES: &str = "SELECT name || rest, modified, encode(digest, 'hex'), logical_size FROM s3dedup.entries JOIN s3dedup.contents USING (digest)";

/// Names of objects as the database has them.
const OBJECTS: &str = "SELECT kind, key_depth, encode(digest, 'hex'), generation, stored_size FROM ( \
    SELECT 'content' AS kind, digest, generation, key_depth, stored_size FROM s3dedup.representations \
    UNION ALL SELECT 'intent', digest, generation, key_depth, 0 FROM s3dedup.intents \
    UNION ALL SELECT 'condemned', digest, generation, key_depth, 0 FROM s3dedup.condemned) AS objects";

/// A name as clients see it.
pub struct Name {
    pub name: String,
    pub version: Stamp,
    pub sha256: String,
    pub size: usize,
}

/// Everything in which the database differs from itself, from what clients see, or from the bucket.
pub fn differences(cluster: &Cluster, names: impl IntoIterator<Item = Name>) -> Vec<String> {
    let rows = |sql: &str| -> Vec<Vec<String>> {
        let split = |line: &str| line.split('|').map(str::to_owned).collect();
        cluster.postgres().sql(sql).lines().map(split).collect()
    };
    let mut wrong = Vec::new();
    for (what, query) in WRONG_ROWS {
        let found = rows(query);
        if !found.is_empty() {
            wrong.push(format!("{what}: {found:?}"));
        }
    }
    let (totals, recount) = (rows(TOTALS), rows(RECOUNT));
    if totals != recount {
        wrong.push(format!("entries, contents, logical and stored bytes are {recount:?} and not {totals:?}"));
    }
    let stored: BTreeSet<Vec<String>> = rows(ENTRIES).into_iter().collect();
    let expected = names.into_iter().map(|Name { name, version, sha256, size }| {
        vec![name, stamp::stored(version).to_string(), sha256, size.to_string()]
    });
    let expected: BTreeSet<Vec<String>> = expected.collect();
    for row in stored.symmetric_difference(&expected) {
        let whose = if stored.contains(row) { "only the database" } else { "only the clients" };
        wrong.push(format!("{whose} know {row:?}"));
    }
    wrong.extend(bucket_differences(cluster, &rows(OBJECTS)));
    wrong
}

/// Every content has its whole object, and every other object is known as superfluous.
fn bucket_differences(cluster: &Cluster, known: &[Vec<String>]) -> Vec<String> {
    let objects: BTreeMap<String, u64> =
        cluster.bucket.objects().into_iter().map(|(key, size)| (key.to_string(), size)).collect();
    let mut wrong = Vec::new();
    let mut explained = BTreeSet::new();
    for row in known {
        let [kind, depth, digest, generation, stored_size] = row.as_slice() else { panic!("{row:?}") };
        let folders = (0..depth.parse().unwrap()).map(|level: usize| format!("{}/", &digest[level * 2..level * 2 + 2]));
        let ending = if generation == "0" { String::new() } else { format!(".{generation}") };
        let object = format!("{}{digest}{ending}", folders.collect::<String>());
        if kind == "content" && objects.get(&object).map(u64::to_string).as_ref() != Some(stored_size) {
            wrong.push(format!("{object} should have {stored_size} bytes, and has {:?}", objects.get(&object)));
        }
        explained.insert(object);
    }
    for object in objects.keys().filter(|object| !explained.contains(*object)) {
        wrong.push(format!("{object} is in the bucket, and the database does not know it"));
    }
    wrong
}
