//! An engine on stores of its own.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use s3dedup_actors::cleaner::CleanerLimits;
use s3dedup_actors::migrator::MigrationPlan;
use s3dedup_actors::migrator::source::Tree;
use s3dedup_actors::model::{EntryKey, KeyLayout, Namespace, Result, Stamp};
use s3dedup_actors::store::blob::MemoryStore;
use s3dedup_actors::store::instances::Instance;
use s3dedup_actors::store::meta::{MetaStore, MigrationJournal, PostgresStore, SqliteSettings, SqliteStore};
use s3dedup_actors::testkit::faulty::{Faults, FaultyBlobs, FaultyMeta};
use s3dedup_actors::testkit::postgres::PostgresServer;
use s3dedup_actors::{
    BesideSettings, BodyEncoding, CleanerSettings, DistributedLockSettings, Engine, EngineSettings, EngineTree,
    ExporterSettings, Membership, PutOutcome, SpoolLimits, Spooled,
};

/// The time in which whatever repeats itself does so here.
const SOON: Duration = Duration::from_millis(100);

pub struct TestEngine {
    pub engine: Engine,
    pub blob_faults: Faults,
    pub meta_faults: Faults,
    /// How often the engine gave up.
    pub fatal: Arc<AtomicUsize>,
    /// Why.
    pub why: Arc<Mutex<String>>,
    tree: EngineTree,
    metadata: Arc<SqliteStore>,
    postgres: Option<Arc<PostgresServer>>,
    dir: tempfile::TempDir,
}

impl TestEngine {
    pub fn start() -> Self {
        Self::start_with(|_| {})
    }

    /// With actors of every kind.
    pub async fn start_with_all(postgres: Arc<PostgresServer>, change: impl FnOnce(&mut EngineSettings)) -> Self {
        let access = postgres.access();
        let mut test = Self::start_with(|settings| {
            settings.distributed_locks = Some(DistributedLockSettings::new(access.clone(), "bucket"));
            let limits = CleanerLimits { grace: Duration::ZERO, ..CleanerLimits::default() };
            settings.cleaner = Some(CleanerSettings { interval: SOON, full_scan: None, limits });
            change(settings);
        });
        let path = test.dir.path().join("names.jsonl");
        let settings = ExporterSettings { interval: SOON, path, keep: 1 };
        test.tree.export(settings, "test", Arc::clone(&test.metadata) as _).expect("an exporter");
        std::fs::create_dir_all(test.dir.path().join("old/files")).expect("a folder");
        let source = Arc::new(Tree::new(&test.dir.path().join("old"), 1).expect("a source"));
        let (sources, journal) = (vec![Arc::clone(&source) as _], Arc::clone(&test.metadata) as _);
        test.tree.stand_beside(&test.engine, BesideSettings { sources, server: None, journal, concurrency: 1 });
        let plan = MigrationPlan { source, concurrency: 1, holder: "test".into() };
        test.migrate(Arc::clone(&test.metadata) as _, plan);
        let registry = PostgresStore::open(&access, 2, 16).await.expect("a registry");
        let [id, address, version, contents, locks] = ["a", "a:80", "1", "memory", "postgres"].map(str::to_owned);
        let me = Instance { id, address, version, contents, locks };
        test.tree.keep_up(Membership::join(Arc::new(registry), me).await.expect("a membership"));
        test.postgres = Some(postgres);
        test
    }

    /// Puts an old side beside the store.
    #[allow(dead_code, reason = "the tests of migrations use it")]
    pub fn stand_beside(&mut self, settings: BesideSettings) {
        self.tree.stand_beside(&self.engine, settings);
    }

    pub fn start_with(change: impl FnOnce(&mut EngineSettings)) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let settings = SqliteSettings { path: dir.path().join("kv.db"), connections: 3, backlog: 256 };
        let (blob_faults, meta_faults) = (Faults::default(), Faults::default());
        let store = Arc::new(SqliteStore::open(&settings).expect("a database"));
        let metadata = Arc::new(FaultyMeta { inner: Arc::clone(&store) as _, faults: meta_faults.clone() });
        let contents = FaultyBlobs { inner: Arc::new(MemoryStore::new()), faults: blob_faults.clone() };
        let mut settings = EngineSettings {
            instance: "test".into(),
            layout: KeyLayout::new(2),
            spool: SpoolLimits {
                memory_bytes_max: 1 << 20,
                temp_dir: dir.path().to_owned(),
                files_are_kept: false,
                logical_bytes_max: 64 << 20,
                compression_level: 6,
            },
            spool_memory_bytes_max: 16 << 20,
            cache_bytes: 0,
            request_slots_max: 64,
            metadata_actors: 2,
            uploaders: 4,
            upload_backlog_max: 64,
            compute_threads: 2,
            upload_time_min: s3dedup_actors::UPLOAD_TIME_MIN,
            stuck_after: Duration::from_secs(30),
            distributed_locks: None,
            cleaner: None,
        };
        change(&mut settings);
        let fatal = Arc::new(AtomicUsize::new(0));
        let why = Arc::new(Mutex::new(String::new()));
        let (given_up, reason) = (Arc::clone(&fatal), Arc::clone(&why));
        let on_fatal = Box::new(move |why| {
            *reason.lock().expect("a reason") = why;
            given_up.fetch_add(1, Ordering::SeqCst);
        });
        let started = Engine::start(settings, metadata, Arc::new(contents), on_fatal);
        let (engine, tree) = started.expect("an engine");
        Self { engine, blob_faults, meta_faults, fatal, why, tree, metadata: store, postgres: None, dir }
    }

    /// Starts a migration.
    pub fn migrate(&mut self, journal: Arc<dyn MigrationJournal>, plan: MigrationPlan) {
        self.tree.migrate(&self.engine, journal, plan);
    }

    /// Ends the engine whatever is under way.
    #[allow(dead_code, reason = "the tests of migrations use it")]
    pub async fn end(self) {
        drop(self.engine);
        assert!(self.tree.stop(Duration::from_secs(20)).await);
    }

    /// Makes all actors of that name panic.
    pub fn strike(&self, name: &str) {
        self.tree.strike(name);
    }

    /// Lets all actors of that name end with an error.
    pub fn fail(&self, name: &str) {
        self.tree.fail(name);
    }

    /// Keeps their threads, each until what is returned for it is dropped.
    pub fn hold(&self, name: &str) -> Vec<Sender<()>> {
        self.tree.hold(name)
    }

    pub async fn spool(&self, body: &[u8]) -> Spooled {
        let mut spooler = self.engine.spooler(BodyEncoding::Plain);
        spooler.write(Bytes::copy_from_slice(body)).await.expect("a piece");
        spooler.finish().await.expect("a body")
    }

    pub async fn put(&self, name: &str, stamp: i64, body: &[u8]) -> Result<PutOutcome> {
        let body = self.spool(body).await;
        self.engine.put(key(name), Stamp::from_seconds(stamp), body).await
    }

    pub async fn get(&self, name: &str) -> Result<Option<(i64, Vec<u8>)>> {
        let Some(download) = self.engine.open(&key(name)).await? else { return Ok(None) };
        let stamp = download.entry.stamp.seconds();
        let pieces: Vec<Bytes> = download.decoded().try_collect().await?;
        Ok(Some((stamp, pieces.concat())))
    }

    /// Whether the next upload of what a name holds is to bring it back.
    pub async fn is_noted(&self, name: &str) -> bool {
        let entry = self.metadata.lookup(key(name)).await.expect("a look-up").expect("a name");
        let contents = self.metadata.survey(Vec::new(), 1000).await.expect("contents").contents;
        contents.iter().any(|content| content.digest == entry.digest && content.is_suspect)
    }

    pub async fn list(&self, directory: &str) -> Vec<String> {
        let far = Stamp::from_seconds(i64::MAX);
        let listed = self.engine.list(Namespace::FILETRACKER, directory.to_owned(), far).await.expect("a listing");
        match listed {
            Some(pages) => pages.try_concat().await.expect("pages"),
            None => Vec::new(),
        }
    }

    /// Checks that nothing is left inside, and ends the engine.
    pub async fn stop(self) {
        let quiet = async {
            loop {
                let gauges = self.engine.gauges();
                if (gauges.requests, gauges.locks, gauges.uploads_waiting, gauges.spool_bytes) == (0, 0, 0, 0) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let is_quiet = tokio::time::timeout(Duration::from_secs(20), quiet).await.is_ok();
        assert!(is_quiet, "left behind: {:?}", self.engine.gauges());
        drop(self.engine);
        assert!(self.tree.stop(Duration::from_secs(20)).await);
        drop(self.postgres);
    }
}

pub fn key(name: &str) -> EntryKey {
    EntryKey::parse(Namespace::FILETRACKER, name.as_bytes()).expect("a name")
}
