//! Two stores and the shortest way to fill them.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::TryStreamExt;
use s3dedup_actors::cleaner::{CleanOptions, CleanReport, Cleaner, CleanerLimits};
use s3dedup_actors::model::{
    BlobInfo, BlobKey, EntryKey, Error, KeyLayout, Kind, Namespace, Recipe, Result, Stamp, StoredBlob,
};
use s3dedup_actors::store::blob::{
    BlobPage, BlobReader, BlobStore, FolderSettings, FolderStore, MemoryStore, SpooledBytes,
};
use s3dedup_actors::store::meta::{
    CommitPut, MetaStore, NewIntent, Origin, PlanPut, PostgresStore, PutCommit, PutPlan, SqliteSettings, SqliteStore,
};
use s3dedup_actors::testkit::postgres::PostgresServer;
use s3dedup_actors::testkit::{Place, spooled};

/// What happens to deletions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deletions {
    Done,
    /// Nothing is deleted, and that is told.
    Refused,
    /// They are done, and the answer is lost.
    Unanswered,
    /// They are done, and there never is an answer.
    Stuck,
    /// There never is an answer, and nothing is done.
    StuckBefore,
    /// The store cannot be reached.
    Down,
}

/// A content store that counts and fails on command.
pub struct Watched {
    pub inner: Arc<dyn BlobStore>,
    pub deletions: Mutex<Deletions>,
    pub delete_requests: AtomicU64,
    pub stats: AtomicU64,
}

impl Watched {
    pub fn set(&self, deletions: Deletions) {
        *self.deletions.lock().unwrap_or_else(PoisonError::into_inner) = deletions;
    }

    /// How many objects there are.
    pub async fn inner_names(&self) -> usize {
        let (mut count, mut after) = (0, None);
        loop {
            let page = self.inner.list(after.as_deref(), 1000).await.expect("a listing");
            count += page.blobs.len();
            match page.next {
                Some(next) => after = Some(next),
                None => return count,
            }
        }
    }

    fn now(&self) -> Deletions {
        *self.deletions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn down() -> Error {
    Error::new(Kind::Unavailable, "down on command")
}

#[async_trait]
impl BlobStore for Watched {
    fn kind(&self) -> &'static str {
        "watched"
    }

    async fn put(&self, key: &BlobKey, body: &SpooledBytes, info: &BlobInfo) -> Result<()> {
        self.inner.put(key, body, info).await
    }

    async fn open(&self, key: &BlobKey, range: Option<Range<u64>>) -> Result<Option<BlobReader>> {
        self.inner.open(key, range).await
    }

    async fn stat(&self, key: &BlobKey) -> Result<Option<BlobInfo>> {
        self.stats.fetch_add(1, SeqCst);
        self.inner.stat(key).await
    }

    async fn delete(&self, keys: &[BlobKey]) -> Result<()> {
        self.delete_requests.fetch_add(1, SeqCst);
        let deletions = self.now();
        match deletions {
            Deletions::Refused | Deletions::Down => return Err(down()),
            Deletions::StuckBefore => std::future::pending::<()>().await,
            _ => self.inner.delete(keys).await?,
        }
        match deletions {
            Deletions::Unanswered => Err(down()),
            Deletions::Stuck => std::future::pending().await,
            _ => Ok(()),
        }
    }

    async fn list(&self, after: Option<&str>, limit: usize) -> Result<BlobPage> {
        self.inner.list(after, limit).await
    }

    async fn owners(&self) -> Result<Vec<String>> {
        self.inner.owners().await
    }

    async fn add_owner(&self, owner: &str) -> Result<()> {
        self.inner.add_owner(owner).await
    }

    async fn remove_owner(&self, owner: &str) -> Result<()> {
        self.inner.remove_owner(owner).await
    }

    async fn probe(&self) -> Result<()> {
        if self.now() == Deletions::Down { Err(down()) } else { self.inner.probe().await }
    }
}

/// Stores that belong together.
pub struct Stores {
    pub metadata: Arc<dyn MetaStore>,
    pub contents: Arc<Watched>,
    pub memory: Arc<MemoryStore>,
    pub postgres: Option<PostgresServer>,
    pub dir: tempfile::TempDir,
    pub layout: KeyLayout,
}

impl Stores {
    pub fn sqlite() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let settings = SqliteSettings { path: dir.path().join("kv.db"), connections: 4, backlog: 1024 };
        Self::around(Arc::new(SqliteStore::open(&settings).expect("a database")), None, dir)
    }

    pub fn sqlite_and_folder() -> Self {
        let mut stores = Self::sqlite();
        let root = stores.dir.path().join("blobs");
        let folder = FolderStore::open(&FolderSettings { root, write_threads: 4, read_threads: 2 }).expect("a folder");
        stores.contents = watched(Arc::new(folder));
        stores
    }

    pub async fn postgres() -> Self {
        let server = PostgresServer::start();
        let store = PostgresStore::open(&server.access(), 8, 1024).await.expect("a database");
        Self::around(Arc::new(store), Some(server), tempfile::tempdir().expect("a folder"))
    }

    fn around(metadata: Arc<dyn MetaStore>, postgres: Option<PostgresServer>, dir: tempfile::TempDir) -> Self {
        let memory = Arc::new(MemoryStore::new());
        let contents = watched(Arc::clone(&memory) as _);
        Self { metadata, contents, memory, postgres, dir, layout: KeyLayout::new(2) }
    }

    /// Runs SQL on rows, `@` is where the tables are, whatever rows are allowed to hold.
    pub fn spoil(&self, sql: &str) {
        match &self.postgres {
            Some(server) => drop(server.sql(&sql.replace('@', "s3dedup."))),
            None => {
                let database = rusqlite::Connection::open(self.dir.path().join("kv.db")).expect("the database");
                let sql = format!("PRAGMA ignore_check_constraints = 1; {}", sql.replace('@', ""));
                database.execute_batch(&sql).expect("damage");
            }
        }
    }

    pub fn cleaner(&self, limits: CleanerLimits) -> Cleaner {
        Cleaner::new(Arc::clone(&self.metadata), Arc::clone(&self.contents) as _, limits, "test".into())
    }

    /// A run that must not fail.
    pub async fn clean(&self, limits: CleanerLimits) -> CleanReport {
        self.clean_with(limits, CleanOptions::default()).await
    }

    pub async fn clean_with(&self, limits: CleanerLimits, options: CleanOptions) -> CleanReport {
        let report = self.cleaner(limits).run(options).await.expect("nobody else cleans");
        assert!(report.first_error.is_none(), "{report:?}");
        report
    }

    /// Begins an upload and stores its object, unless the content is known.
    pub async fn upload(&self, name: &str, stamp: i64, bytes: &[u8]) -> Option<CommitPut> {
        let body = spooled(bytes, Place::Memory);
        let intent = Some(NewIntent { instance: "test".into(), layout: self.layout });
        let (key, stamp, logical_size) = (key(name), Stamp::from_seconds(stamp), body.logical_size);
        let plan =
            PlanPut { key: key.clone(), stamp, digest: body.digest, logical_size, intent, origin: Origin::Client };
        match self.metadata.plan_put(plan).await.expect("a plan") {
            PutPlan::Committed => None,
            PutPlan::Upload { intent, key: blob_key } => {
                let info = body.info();
                self.contents.put(&blob_key, &body.bytes, &info).await.expect("an object");
                let BlobInfo { encoding, stored_size, stored_hash, .. } = info;
                let blob = StoredBlob { key: blob_key, encoding, stored_size, stored_hash };
                Some(CommitPut { key, stamp, logical_size, intent, blob, origin: Origin::Client })
            }
            other => panic!("{other:?}"),
        }
    }

    /// Stores a name, as the engine does: a lost intent is planned anew.
    pub async fn put(&self, name: &str, stamp: i64, bytes: &[u8]) {
        for _ in 0..1000 {
            let Some(commit) = self.upload(name, stamp, bytes).await else { return };
            match self.metadata.commit_put(commit).await.expect("a commit") {
                PutCommit::Committed => return,
                PutCommit::IntentLost => {}
                stale => panic!("{stale:?}"),
            }
        }
        panic!("{name} is lost again and again");
    }

    pub async fn delete(&self, name: &str, stamp: i64) {
        self.metadata.delete(key(name), Stamp::from_seconds(stamp)).await.expect("a deletion");
    }

    /// Stores `count` contents without a name, and the same number with one.
    pub async fn fill(&self, count: u64) {
        for number in 0..count {
            self.put(&format!("garbage{number}"), 1, format!("garbage {number}").as_bytes()).await;
            self.delete(&format!("garbage{number}"), 1).await;
            self.put(&format!("used{number}"), 1, format!("used {number}").as_bytes()).await;
        }
    }

    /// What a name holds; the object must be there.
    pub async fn get(&self, name: &str) -> Option<Vec<u8>> {
        let entry = self.metadata.lookup(key(name)).await.expect("a look-up")?;
        let Recipe::Whole(blob) = entry.recipe else { panic!("another recipe") };
        let reader = self.contents.open(&blob.key, None).await.expect("a store").expect("an object");
        let pieces: Vec<_> = reader.stream.try_collect().await.expect("bytes");
        Some(pieces.concat())
    }

    pub async fn assert_used_is_there(&self, count: u64) {
        for number in 0..count {
            assert_eq!(self.get(&format!("used{number}")).await.unwrap(), format!("used {number}").as_bytes());
        }
    }
}

fn watched(inner: Arc<dyn BlobStore>) -> Arc<Watched> {
    let (delete_requests, stats) = Default::default();
    Arc::new(Watched { inner, deletions: Mutex::new(Deletions::Done), delete_requests, stats })
}

/// Limits without grace.
pub fn at_once() -> CleanerLimits {
    CleanerLimits { grace: Duration::ZERO, ..CleanerLimits::default() }
}

pub fn key(name: &str) -> EntryKey {
    EntryKey::parse(Namespace::FILETRACKER, name.as_bytes()).expect("a name")
}
