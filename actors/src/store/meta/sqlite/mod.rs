//! Metadata in one SQLite file: one writing thread with group commit, several reading ones (WAL).

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use quick_cache::sync::Cache;
use rusqlite::Connection;

use super::{
    CommitPut, DeleteOutcome, IntentId, ListPage, LocalReader, MetaStore, NamePage, OldIntent, PlanPut, PutCommit,
    PutPlan, Survey, Totals, UnusedContent, UnusedPage,
};
use crate::model::{BlobKey, Digest, Entry, EntryKey, Error, Kind, Result, Stamp, StoredBlob};
use crate::store::blocking::WorkerPool;

mod audit;
mod browse;
mod care;
mod clean;
mod journal;
mod known;
mod migrate;
mod mirror;
mod put;
mod read;
mod writer;

/// Page cache of the writing connection, in KiB.
const WRITER_CACHE_KIB: u32 = 16 * 1024;
/// Page cache of each reading connection, in KiB.
const READER_CACHE_KIB: u32 = 2 * 1024;
/// How many contents are remembered as known, at about 100 bytes each.
const RECENT_MAX: usize = 16 * 1024;

/// Where the database is and how much of it is used at once.
#[derive(Clone, Debug)]
pub struct SqliteSettings {
    /// The database file; its folder must exist.
    pub path: PathBuf,
    /// Connections of the store itself: one writes, the others read; at least two are opened.
    /// Each [`LocalReader`] opens one more.
    pub connections: usize,
    /// How many reads, and how many writes, may wait.
    pub backlog: usize,
}

/// The store. The threads end when it is dropped.
pub struct SqliteStore {
    path: PathBuf,
    writer: writer::Writer,
    readers: WorkerPool<Connection>,
    /// Contents that were known not long ago: a put of one of them goes to the writer at once. Only
    /// a hint: the writer looks again.
    recent: Cache<Digest, ()>,
}

impl SqliteStore {
    /// Opens or creates the database and brings its schema up to date. Blocks.
    pub fn open(settings: &SqliteSettings) -> Result<Self> {
        let threads = |error| Error::io("start the database threads", error);
        let connection = migrate::open(&settings.path, WRITER_CACHE_KIB)?;
        let readers = settings.connections.saturating_sub(1).max(1);
        let readers = (0..readers).map(|_| open_reader(&settings.path));
        let readers = readers.collect::<Result<Vec<_>>>()?;
        let readers = WorkerPool::with_states("sqlite-reader", readers, settings.backlog).map_err(threads)?;
        let writer = writer::Writer::start(connection, settings.backlog).map_err(threads)?;
        Ok(Self { path: settings.path.clone(), writer, readers, recent: Cache::new(RECENT_MAX) })
    }

    /// The store as it is, for reading only; a server may use it meanwhile. A database that is not there or has
    /// another version is refused. Blocks.
    pub fn attach(settings: &SqliteSettings) -> Result<Self> {
        let threads = |error| Error::io("start the database threads", error);
        migrate::check(&settings.path)?;
        let readers = (0..settings.connections.max(1)).map(|_| open_reader(&settings.path));
        let readers = readers.collect::<Result<Vec<_>>>()?;
        let readers = WorkerPool::with_states("sqlite-reader", readers, settings.backlog).map_err(threads)?;
        Ok(Self {
            path: settings.path.clone(),
            writer: writer::Writer::absent(),
            readers,
            recent: Cache::new(RECENT_MAX),
        })
    }

    async fn read<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        self.readers.try_run(move |connection| work(connection)).await?
    }
}

#[async_trait]
impl MetaStore for SqliteStore {
    fn kind(&self) -> &'static str {
        "sqlite"
    }

    fn is_near(&self) -> bool {
        true
    }

    /// Those of the pool of readers.
    fn connection_use(&self) -> (usize, usize) {
        let (readers, busy) = self.readers.usage();
        (busy, readers - busy)
    }

    async fn lookup(&self, key: EntryKey) -> Result<Option<Entry>> {
        self.read(move |connection| read::lookup(connection, &key)).await
    }

    async fn plan_put(&self, plan: PlanPut) -> Result<PutPlan> {
        if plan.intent.is_none() {
            // Most unknown contents are found out by a read, without a turn of the writer.
            let asked = plan.clone();
            if self.recent.get(&plan.digest).is_none()
                && let Some(plan) = self.read(move |connection| put::foresee(connection, &asked)).await?
            {
                return Ok(plan);
            }
        }
        let digest = plan.digest;
        let answer = self.writer.run(move |connection| put::plan(connection, &plan)).await?;
        if answer == PutPlan::Committed {
            self.recent.insert(digest, ());
        }
        Ok(answer)
    }

    fn local_reader(&self) -> Result<Option<Box<dyn LocalReader>>> {
        Ok(Some(Box::new(Reader(open_reader(&self.path)?))))
    }

    async fn commit_put(&self, commit: CommitPut) -> Result<PutCommit> {
        self.writer.run(move |connection| put::commit(connection, &commit)).await
    }

    async fn note_damaged(&self, key: BlobKey) -> Result<()> {
        self.writer.run(move |connection| put::note_damaged(connection, key)).await
    }

    async fn delete(&self, key: EntryKey, stamp: Stamp) -> Result<DeleteOutcome> {
        self.writer.run(move |connection| put::delete(connection, &key, stamp)).await
    }

    async fn delete_beside(&self, key: EntryKey, stamp: Stamp) -> Result<DeleteOutcome> {
        self.writer.run(move |connection| mirror::delete_beside(connection, &key, stamp)).await
    }

    async fn list(&self, page: ListPage) -> Result<NamePage> {
        self.read(move |connection| read::list(connection, &page)).await
    }

    async fn identity(&self) -> Result<String> {
        self.read(read::identity).await
    }

    async fn totals(&self) -> Result<Totals> {
        self.read(read::totals).await
    }

    async fn list_unused(&self, page: UnusedPage) -> Result<Vec<UnusedContent>> {
        self.read(move |connection| clean::list_unused(connection, &page)).await
    }

    async fn condemn(&self, digests: Vec<Digest>, unused_since: Stamp) -> Result<Vec<StoredBlob>> {
        self.writer.run(move |connection| clean::condemn(connection, &digests, unused_since)).await
    }

    async fn list_intents(&self, made_before: Stamp, after: Option<IntentId>, rows: usize) -> Result<Vec<OldIntent>> {
        self.read(move |connection| clean::list_intents(connection, made_before, after, rows)).await
    }

    async fn condemn_intents(&self, intents: Vec<IntentId>, made_before: Stamp) -> Result<Vec<BlobKey>> {
        self.writer.run(move |connection| clean::condemn_intents(connection, &intents, made_before)).await
    }

    async fn list_condemned(&self, after: Option<BlobKey>, rows: usize) -> Result<Vec<BlobKey>> {
        self.read(move |connection| clean::list_condemned(connection, after, rows)).await
    }

    async fn forget(&self, keys: Vec<BlobKey>) -> Result<()> {
        self.writer.run(move |connection| clean::forget(connection, &keys)).await
    }

    async fn survey(&self, after: Vec<u8>, rows: usize) -> Result<Survey> {
        self.read(move |connection| clean::survey(connection, &after, rows)).await
    }

    async fn are_known(&self, keys: Vec<BlobKey>) -> Result<Vec<bool>> {
        self.read(move |connection| clean::are_known(connection, &keys)).await
    }

    async fn condemn_unknown(&self, keys: Vec<BlobKey>) -> Result<Vec<BlobKey>> {
        self.writer.run(move |connection| clean::condemn_unknown(connection, &keys)).await
    }

    async fn lead(&self, _: &str, _: &str, _: Duration) -> Result<bool> {
        // One process at most has the database: its lock file sees to that.
        Ok(true)
    }

    async fn probe(&self) -> Result<()> {
        self.totals().await.map(drop)
    }
}

/// A connection that stays on one thread.
struct Reader(Connection);

impl LocalReader for Reader {
    fn lookup(&self, key: &EntryKey) -> Result<Option<Entry>> {
        read::lookup(&self.0, key)
    }
}

fn open_reader(path: &Path) -> Result<Connection> {
    let reader = migrate::connect(path, READER_CACHE_KIB)?;
    reader.pragma_update(None, "query_only", true).map_err(|error| sql_error("open the database", error))?;
    Ok(reader)
}

/// Wraps an error of SQLite by what a caller can do about it.
fn sql_error(doing: &str, error: rusqlite::Error) -> Error {
    use rusqlite::Error::{
        FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType, QueryReturnedNoRows, Utf8Error,
    };
    use rusqlite::ErrorCode::{ConstraintViolation, DatabaseCorrupt, DiskFull, NotADatabase};
    use rusqlite::ffi::SQLITE_IOERR_SHMSIZE;
    let extended = error.sqlite_error().map(|error| error.extended_code);
    let kind = match error.sqlite_error_code() {
        Some(DiskFull) => Kind::NoSpace,
        // The index of the log could not grow: SQLite has no better name for a full disk there.
        _ if extended == Some(SQLITE_IOERR_SHMSIZE) => Kind::NoSpace,
        // The transactions keep every constraint of rows that are whole.
        Some(DatabaseCorrupt | NotADatabase | ConstraintViolation) => Kind::Corrupt,
        Some(_) => Kind::Unavailable,
        None => match error {
            // Rows have the types that they were written with, and those that are always there are there.
            InvalidColumnType(..)
            | FromSqlConversionFailure(..)
            | IntegralValueOutOfRange(..)
            | Utf8Error(..)
            | QueryReturnedNoRows => Kind::Corrupt,
            _ => Kind::Internal,
        },
    };
    Error::new(kind, format!("can't {doing}")).with_source(error)
}

/// A number from the database that cannot be what was written.
fn damaged(what: &str) -> Error {
    Error::new(Kind::Corrupt, format!("the database is damaged: {what}"))
}

/// SQLite's integers are signed: sizes and generations stay below 2^63.
fn to_sql(number: u64) -> Result<i64> {
    i64::try_from(number).map_err(|error| Error::new(Kind::Invalid, "number is too large").with_source(error))
}
