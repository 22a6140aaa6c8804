//! A store with some names and contents, and ways to damage it by hand.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::StreamExt;
use s3dedup_actors::model::{BlobKey, Digest, EntryKey, KeyLayout, Namespace, Recipe, Result, Stamp, StoredBlob};
use s3dedup_actors::store::blob::{BlobStore, FolderSettings, FolderStore, Spooled};
use s3dedup_actors::store::meta::{
    CommitPut, DeleteOutcome, MetaCare, NewIntent, Origin, PlanPut, PostgresStore, PutCommit, PutPlan, SqliteSettings,
    SqliteStore,
};
use s3dedup_actors::store::postgres::PostgresSettings;
use s3dedup_actors::testkit::postgres::PostgresServer;
use s3dedup_actors::testkit::{Place, noise, spooled};
use s3dedup_actors::verify::{
    Examiner, Pace, Progress, Stores, Tools, VerifyReport, VerifySettings, VerifyState, verify,
};
use sha2::Digest as _;
use tempfile::TempDir;

#[derive(Clone)]
enum Database {
    Sqlite(PathBuf),
    Postgres(PostgresSettings),
}

pub struct World {
    pub stores: Stores,
    pub dir: TempDir,
    database: Database,
    server: Option<PostgresServer>,
    /// What every name holds.
    pub names: BTreeMap<String, Vec<u8>>,
}

pub fn key(name: &str) -> EntryKey {
    EntryKey::parse(Namespace::FILETRACKER, name.as_bytes()).unwrap()
}

pub fn digest(content: &[u8]) -> Digest {
    Digest::from_bytes(sha2::Sha256::digest(content).into())
}

/// A body as an upload leaves it.
pub fn body(content: &[u8]) -> Spooled {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(content).unwrap();
    let mut body = spooled(&gzip.finish().unwrap(), Place::Memory);
    body.digest = digest(content);
    body.logical_size = content.len() as u64;
    body
}

impl World {
    /// Twenty contents under thirty names; one of them unreferenced.
    pub async fn new(kind: &str) -> Self {
        let mut world = Self::empty(kind).await;
        for number in 0..20u64 {
            let len = if number == 3 { 700_000 } else { (number * 517) as usize };
            world.put(&format!("a/{number}"), &noise(number, len)).await;
        }
        for number in 0..10u64 {
            world
                .put(
                    &format!("b/{number}"),
                    &noise(number, if number == 3 { 700_000 } else { (number * 517) as usize }),
                )
                .await;
        }
        world.put("gone", b"nobody needs this any more").await;
        world.names.remove("gone");
        let deleted = world.stores.metadata.delete(key("gone"), Stamp::from_seconds(9)).await.unwrap();
        assert_eq!(deleted, DeleteOutcome::Deleted);
        world
    }

    pub async fn empty(kind: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = (kind == "postgres").then(PostgresServer::start);
        let database = match &server {
            None => Database::Sqlite(dir.path().join("kv.db")),
            Some(server) => Database::Postgres(server.access()),
        };
        let settings = FolderSettings { root: dir.path().join("blobs"), write_threads: 2, read_threads: 2 };
        let contents: Arc<dyn BlobStore> = Arc::new(FolderStore::open(&settings).unwrap());
        let metadata = Self::open_database(&database).await;
        Self { stores: Stores { metadata, contents }, dir, database, server, names: BTreeMap::new() }
    }

    async fn open_database(database: &Database) -> Arc<dyn MetaCare> {
        match database {
            Database::Sqlite(path) => {
                let settings = SqliteSettings { path: path.clone(), connections: 3, backlog: 1024 };
                Arc::new(SqliteStore::open(&settings).unwrap())
            }
            Database::Postgres(settings) => Arc::new(PostgresStore::open(settings, 4, 1024).await.unwrap()),
        }
    }

    fn server(&self) -> &PostgresServer {
        self.server.as_ref().unwrap()
    }

    /// The database is lost; a new one takes its place.
    pub async fn lose_database(&mut self) {
        match self.database.clone() {
            Database::Sqlite(path) => {
                let moved = path.with_file_name("new.db");
                self.database = Database::Sqlite(moved);
            }
            Database::Postgres(settings) => {
                let database = format!("{}n", settings.database);
                self.server().sql(&format!("CREATE DATABASE {database}"));
                self.database = Database::Postgres(PostgresSettings { database, ..settings });
            }
        }
        self.stores.metadata = Self::open_database(&self.database).await;
    }

    /// Stores a file as the engine does.
    pub async fn put(&mut self, name: &str, content: &[u8]) {
        self.names.insert(name.to_owned(), content.to_vec());
        let body = body(content);
        let intent = Some(NewIntent { instance: "test".into(), layout: KeyLayout::new(2) });
        let (stamp, logical_size) = (Stamp::from_seconds(5), body.logical_size);
        let plan = PlanPut { key: key(name), stamp, digest: body.digest, logical_size, intent, origin: Origin::Client };
        let PutPlan::Upload { intent, key: object } = self.stores.metadata.plan_put(plan).await.unwrap() else {
            return;
        };
        let blob = self.store(object, &body).await;
        let commit = CommitPut { key: key(name), stamp, logical_size, intent, blob, origin: Origin::Client };
        assert_eq!(self.stores.metadata.commit_put(commit).await.unwrap(), PutCommit::Committed);
    }

    /// Puts an object under a name.
    pub async fn store(&self, key: BlobKey, body: &Spooled) -> StoredBlob {
        self.stores.contents.put(&key, &body.bytes, &body.info()).await.unwrap();
        let info = body.info();
        StoredBlob { key, encoding: info.encoding, stored_size: info.stored_size, stored_hash: info.stored_hash }
    }

    /// The bytes of a name as a client would get them, every check passed.
    pub async fn get(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let Some(entry) = self.stores.metadata.lookup(key(name)).await? else { return Ok(None) };
        let Recipe::Whole(blob) = &entry.recipe else { unreachable!() };
        let Some(mut reader) = self.stores.contents.open(&blob.key, None).await? else { return Ok(None) };
        let mut stored = Vec::new();
        while let Some(piece) = reader.stream.next().await {
            stored.extend_from_slice(&piece?);
        }
        assert_eq!(*blake3::hash(&stored).as_bytes(), *blob.stored_hash.as_bytes());
        let mut plain = flate2::write::MultiGzDecoder::new(Vec::new());
        plain.write_all(&stored).unwrap();
        Ok(Some(plain.finish().unwrap()))
    }

    pub async fn assert_all_readable(&self) {
        for (name, content) in &self.names {
            assert!(self.get(name).await.unwrap().as_ref() == Some(content), "{name}");
        }
    }

    pub fn is_sqlite(&self) -> bool {
        matches!(self.database, Database::Sqlite(_))
    }

    /// Runs SQL; `{x}` stands for the digest as bytes, `@` for the schema.
    pub fn sql(&self, sql: &str, digest: Digest) {
        match &self.database {
            Database::Sqlite(path) => {
                let sql = sql.replace('@', "").replace("{x}", &format!("x'{digest}'"));
                rusqlite::Connection::open(path).unwrap().execute_batch(&sql).unwrap();
            }
            Database::Postgres(settings) => {
                let sql = sql.replace('@', "s3dedup.").replace("{x}", &format!("decode('{digest}', 'hex')"));
                self.server().sql_in(&settings.database, &sql);
            }
        }
    }

    /// The same for what no row could be written with.
    pub fn unchecked_sql(&self, sql: &str, digest: Digest) {
        let without_checks = if self.is_sqlite() {
            "PRAGMA ignore_check_constraints = 1;"
        } else {
            "ALTER TABLE @contents DROP CONSTRAINT IF EXISTS contents_logical_size_check;
            ALTER TABLE @representations DROP CONSTRAINT IF EXISTS representations_generation_check,
                DROP CONSTRAINT IF EXISTS representations_stored_size_check,
                DROP CONSTRAINT IF EXISTS representations_stored_hash_check;"
        };
        self.sql(&format!("{without_checks} {sql}"), digest);
    }

    pub fn content(&self, name: &str) -> Digest {
        digest(&self.names[name])
    }

    /// The file of a content's object of generation 0.
    pub fn object(&self, digest: Digest) -> PathBuf {
        self.dir.path().join("blobs").join(object(digest).to_string())
    }

    /// Sizes of all files of the content store, descriptions included, the mark of the database left out.
    pub fn files(&self) -> BTreeMap<PathBuf, u64> {
        let mut found = BTreeMap::new();
        let mut folders = vec![self.dir.path().join("blobs")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let entry = entry.unwrap();
                if entry.file_type().unwrap().is_dir() {
                    folders.extend(Some(entry.path()).filter(|path| !path.ends_with("s3dedup-database")));
                } else {
                    found.insert(entry.path(), entry.metadata().unwrap().len());
                }
            }
        }
        found
    }

    pub async fn verify(&self, deep: bool) -> VerifyReport {
        self.try_verify(deep).await.unwrap()
    }

    pub async fn try_verify(&self, deep: bool) -> Result<VerifyReport> {
        let examiner = examiner();
        let (progress, mut save) = (Progress::default(), |_: &VerifyState| Ok(()));
        let tools = Tools { examiner: &examiner, progress: &progress, save: &mut save };
        verify(&self.stores, &settings(deep), VerifyState::default(), tools).await
    }
}

pub fn object(digest: Digest) -> BlobKey {
    BlobKey { digest, generation: 0, layout: KeyLayout::new(2) }
}

pub fn examiner() -> Examiner {
    Examiner::start(2, Pace::unbounded()).unwrap()
}

pub fn settings(deep: bool) -> VerifySettings {
    VerifySettings { deep, concurrency: 4 }
}

/// What is wrong, by word and content.
pub fn words(report: &VerifyReport) -> Vec<(&'static str, Digest)> {
    let mut words: Vec<_> = report.damages.iter().map(|damage| (damage.word(), damage.digest)).collect();
    words.sort();
    words.dedup();
    words
}
