//! How much memory and how many requests it takes to clean 100,000 of 1,000,000 contents, and to compare all of them with
//! the content store. Prints one line of JSON for each metadata store.
//!
//! Rows are inserted directly; the content store makes names up and counts requests. `CLEAN_BENCH_CONTENTS` changes the
//! number of contents, `CLEAN_BENCH_STORE` names one metadata store.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a measurement that cannot be set up fails")]

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use s3dedup_actors::cleaner::{CleanOptions, CleanReport, Cleaner, CleanerLimits};
use s3dedup_actors::model::{BlobInfo, BlobKey, Digest, KeyLayout, Result};
use s3dedup_actors::store::blob::{BlobPage, BlobReader, BlobStore, SpooledBytes, StaleUploads};
use s3dedup_actors::store::meta::{MetaStore, PostgresStore, SqliteSettings, SqliteStore};
use s3dedup_actors::testkit::postgres::PostgresServer;

/// One content of so many is garbage.
const GARBAGE_EVERY: u64 = 10;
const STORED_BYTES: u64 = 1000;

/// Objects that are nothing but numbers.
struct Made {
    count: u64,
    is_clean: AtomicBool,
    requests: AtomicU64,
    deleted: AtomicU64,
}

fn key(number: u64) -> BlobKey {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&(number << 32).to_be_bytes());
    BlobKey { digest: Digest::from_bytes(bytes), generation: 0, layout: KeyLayout::new(2) }
}

fn number(key: &BlobKey) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&key.digest.as_bytes()[..8]);
    u64::from_be_bytes(bytes) >> 32
}

#[async_trait]
impl BlobStore for Made {
    fn kind(&self) -> &'static str {
        "made up"
    }

    async fn put(&self, _: &BlobKey, _: &SpooledBytes, _: &BlobInfo) -> Result<()> {
        unreachable!("nothing is stored")
    }

    async fn open(&self, _: &BlobKey, _: Option<Range<u64>>) -> Result<Option<BlobReader>> {
        unreachable!("nothing is read")
    }

    async fn stat(&self, _: &BlobKey) -> Result<Option<BlobInfo>> {
        self.requests.fetch_add(1, Relaxed);
        Ok(None)
    }

    async fn delete(&self, keys: &[BlobKey]) -> Result<()> {
        assert!(keys.len() <= 1000 && keys.iter().all(|key| number(key).is_multiple_of(GARBAGE_EVERY)));
        self.requests.fetch_add(1, Relaxed);
        self.deleted.fetch_add(keys.len() as u64, Relaxed);
        tokio::time::sleep(Duration::from_millis(20)).await;
        Ok(())
    }

    async fn list(&self, after: Option<&str>, limit: usize) -> Result<BlobPage> {
        self.requests.fetch_add(1, Relaxed);
        let first = after.map_or(0, |name| number(&name.parse().unwrap()) + 1);
        let is_there = |number: &u64| !self.is_clean.load(Relaxed) || !number.is_multiple_of(GARBAGE_EVERY);
        let blobs: Vec<_> =
            (first..self.count).filter(is_there).take(limit).map(|number| (key(number), STORED_BYTES)).collect();
        let next = if blobs.len() == limit { blobs.last().map(|(key, _)| key.to_string()) } else { None };
        Ok(BlobPage { blobs, strangers: Vec::new(), next })
    }

    async fn abort_stale_uploads(&self, _: StaleUploads<'_>) -> Result<u64> {
        self.requests.fetch_add(1, Relaxed);
        Ok(0)
    }

    async fn owners(&self) -> Result<Vec<String>> {
        unreachable!("stores are not matched here")
    }

    async fn add_owner(&self, _: &str) -> Result<()> {
        unreachable!("stores are not matched here")
    }

    async fn remove_owner(&self, _: &str) -> Result<()> {
        unreachable!("stores are not matched here")
    }

    async fn probe(&self) -> Result<()> {
        self.requests.fetch_add(1, Relaxed);
        Ok(())
    }
}

/// What keeps the rows, as long as it is kept itself.
enum Keep {
    Folder { _dir: tempfile::TempDir },
    Server { _server: PostgresServer },
}

fn sqlite(count: u64) -> (Arc<dyn MetaStore>, Keep) {
    let dir = tempfile::tempdir().unwrap();
    let settings = SqliteSettings { path: dir.path().join("kv.db"), connections: 5, backlog: 1024 };
    drop(SqliteStore::open(&settings).unwrap());
    fill(&settings.path, count);
    (Arc::new(SqliteStore::open(&settings).unwrap()), Keep::Folder { _dir: dir })
}

async fn postgres(count: u64) -> (Arc<dyn MetaStore>, Keep) {
    let server = PostgresServer::start();
    let store = PostgresStore::open(&server.access(), 10, 1024).await.unwrap();
    let digest = "decode(lpad(to_hex(n), 8, '0') || repeat('0', 56), 'hex')";
    let garbage = format!("n % {GARBAGE_EVERY} = 0");
    let numbers = format!("generate_series(0, {count} - 1) AS n");
    server.sql(&format!(
        "INSERT INTO s3dedup.contents (digest, logical_size, unused_since)
            SELECT {digest}, 3000, CASE WHEN {garbage} THEN n::bigint * 7919 % 1000003 END FROM {numbers};
        INSERT INTO s3dedup.representations
            (digest, kind, generation, key_depth, encoding, stored_size, stored_hash)
            SELECT {digest}, 'whole', 0, 2, 'gzip', {STORED_BYTES}, {digest} FROM {numbers};
        INSERT INTO s3dedup.entries (namespace, name, rest, rest_hash, modified, digest)
            SELECT 1, 'files/' || lpad(n::text, 9, '0'), '', '', 1, {digest} FROM {numbers} WHERE NOT {garbage};
        UPDATE s3dedup.totals SET contents = {count}, stored_bytes = {count} * {STORED_BYTES},
            entries = {count} - ({count} + 9) / 10 WHERE shard = 0;
        ANALYZE"
    ));
    (Arc::new(store), Keep::Server { _server: server })
}

fn fill(path: &std::path::Path, count: u64) {
    let mut database = rusqlite::Connection::open(path).unwrap();
    database.pragma_update(None, "synchronous", "off").unwrap();
    let transaction = database.transaction().unwrap();
    {
        let contents = "INSERT INTO contents (digest, logical_size, refs, unused_since) VALUES (?1, 3000, ?2, ?3)";
        let mut contents = transaction.prepare(contents).unwrap();
        let representations = "INSERT INTO representations
            (digest, kind, generation, key_depth, encoding, stored_size, stored_hash) VALUES (?1, 'whole', 0, 2, 'gzip', ?2, ?1)";
        let mut representations = transaction.prepare(representations).unwrap();
        let entry = "INSERT INTO entries (namespace, name, modified, digest) VALUES (1, ?1, 1, ?2)";
        let mut entries = transaction.prepare(entry).unwrap();
        for number in 0..count {
            let digest = key(number).digest;
            let digest = digest.as_bytes();
            let is_garbage = number.is_multiple_of(GARBAGE_EVERY);
            // In another order than that of the digests.
            let unused_since = is_garbage.then_some((number * 7919 % 1_000_003) as i64);
            contents.execute(rusqlite::params![digest, i64::from(!is_garbage), unused_since]).unwrap();
            representations.execute(rusqlite::params![digest, STORED_BYTES as i64]).unwrap();
            if !is_garbage {
                entries.execute(rusqlite::params![format!("files/{number:09}"), digest]).unwrap();
            }
        }
        let totals = "UPDATE state SET contents = ?1, stored_bytes = ?1 * 1000, entries = ?1 - (?1 + 9) / 10";
        transaction.execute(totals, [count as i64]).unwrap();
    }
    transaction.commit().unwrap();
}

fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

/// Runs and returns how far memory rose above what it was.
async fn measured(cleaner: &Cleaner, options: CleanOptions) -> (CleanReport, u64, f64) {
    let (before, begun) = (resident_bytes(), Instant::now());
    let is_over = Arc::new(AtomicBool::new(false));
    let peak = {
        let is_over = Arc::clone(&is_over);
        std::thread::spawn(move || {
            let mut peak = 0;
            while !is_over.load(Relaxed) {
                peak = peak.max(resident_bytes());
                std::thread::sleep(Duration::from_millis(2));
            }
            peak
        })
    };
    let report = cleaner.run(options).await.unwrap();
    is_over.store(true, Relaxed);
    let growth = peak.join().unwrap().saturating_sub(before);
    assert!(report.first_error.is_none(), "{report:?}");
    (report, growth, begun.elapsed().as_secs_f64())
}

fn main() {
    // Cargo asks every benchmark for its tests as well.
    if std::env::args().any(|argument| argument == "--test" || argument == "--list") {
        return;
    }
    let count = std::env::var("CLEAN_BENCH_CONTENTS").map_or(1_000_000, |text| text.parse().unwrap());
    let Ok(kind) = std::env::var("CLEAN_BENCH_STORE") else {
        // A process for each: memory that one gave back would be taken again by the other.
        for kind in ["sqlite", "postgres"] {
            let mut command = std::process::Command::new(std::env::current_exe().unwrap());
            assert!(command.env("CLEAN_BENCH_STORE", kind).status().unwrap().success(), "{kind}");
        }
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(run(&kind, count));
}

async fn run(kind: &str, count: u64) {
    let (metadata, _keep) = if kind == "postgres" { postgres(count).await } else { sqlite(count) };
    let (is_clean, requests, deleted) = Default::default();
    let contents = Arc::new(Made { count, is_clean, requests, deleted });
    let limits = CleanerLimits { deletes_max: count, ..CleanerLimits::default() };
    let cleaner = Cleaner::new(Arc::clone(&metadata), Arc::clone(&contents) as _, limits, "bench".into());

    let garbage = count.div_ceil(GARBAGE_EVERY);
    let (report, clean_growth, clean_seconds) = measured(&cleaner, CleanOptions::default()).await;
    assert_eq!((report.deleted(), contents.deleted.load(Relaxed)), (garbage, garbage));
    let clean_requests = contents.requests.swap(0, Relaxed);
    contents.is_clean.store(true, Relaxed);
    let (report, scan_growth, scan_seconds) =
        measured(&cleaner, CleanOptions { full_scan: true, ..CleanOptions::default() }).await;
    let scan = report.scan.unwrap();
    assert_eq!((scan.objects, scan.contents), (count - garbage, count - garbage));
    assert!(scan.is_whole() && scan.orphans.count == 0);
    let mib = |bytes: u64| (bytes as f64 / f64::from(1 << 20) * 10.0).round() / 10.0;
    let report = serde_json::json!({
        "metadata": metadata.kind(),
        "contents": count,
        "garbage": garbage,
        "clean_rss_growth_mib": mib(clean_growth),
        "clean_requests": clean_requests,
        "clean_requests_per_1000_deletions": (clean_requests as f64 * 1000.0 / garbage as f64 * 1000.0).round() / 1000.0,
        "clean_seconds": (clean_seconds * 10.0).round() / 10.0,
        "scan_rss_growth_mib": mib(scan_growth),
        "scan_requests": contents.requests.load(Relaxed),
        "scan_seconds": (scan_seconds * 10.0).round() / 10.0,
    });
    println!("{report}");
}
