//! The one door for front ends.
//!
//! The flow of every request is here; what each step does is behind the actors. Asks go down
//! (engine, locks, metadata and uploads, stores), never up.

mod actors;
pub(crate) mod beside;
mod delete;
mod get;
mod list;
mod put;
mod start;
mod watch;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use actix::dev::ToEnvelope;
use actix::{Actor, Handler, Message};

use self::actors::Roster;
pub use self::actors::{ActorReport, ActorTree};
use self::beside::Beside;
pub use self::beside::{BesideReport, BesideSettings, Description, Fetched, Reading};
pub use self::list::NameStream;
pub use self::put::{Migrated, PutOutcome};
pub use self::start::{EngineSettings, EngineTree};
use self::watch::Counts;
pub use self::watch::{BackendReading, EngineReading};
use crate::cleaner::CleanerStats;
use crate::download::{ContentCache, ContentSource, Damage};
use crate::exporter::ExporterStats;
use crate::lock::distributed::DistributedLockStats;
use crate::lock::{LockStats, Locks};
use crate::metadata::{GetTotals, Lookup, MetadataActor, MetadataRouter, Probe, Timely};
use crate::migrator::{MigrationProgress, MigrationSnapshot};
use crate::model::{Entry, EntryKey, Error, Kind, Result};
use crate::runtime::admission::{Admission, Permit};
use crate::runtime::breaker::Breaker;
use crate::runtime::budget::MemoryBudget;
use crate::runtime::pulse::Pulse;
use crate::runtime::way::Way;
use crate::spool::{BodyEncoding, SpoolLimits, Spooler};
use crate::store::blocking::BlockingPool;
use crate::store::meta::{MetaStore, NewIntent, Totals};
use crate::upload::{UploadStats, UploaderPool};

/// How long a metadata transaction may take, queueing included: a client is to get its 503 within
/// five seconds.
const METADATA_WAIT_MAX: Duration = Duration::from_millis(4500);

/// How long it takes at most to tell whether the engine is ready.
const READINESS_WAIT_MAX: Duration = Duration::from_secs(2);

/// The engine, as front ends see it. Clones are cheap and share everything.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    admission: Admission,
    locks: Locks,
    metadata: Arc<MetadataRouter>,
    /// Only to be looked at: requests go through the router.
    metadata_store: Arc<dyn MetaStore>,
    uploads: Way<UploaderPool>,
    source: ContentSource,
    compute: BlockingPool,
    cache: ContentCache,
    spool_limits: SpoolLimits,
    spool_budget: MemoryBudget,
    intent: NewIntent,
    lock_stats: LockStats,
    key_stats: DistributedLockStats,
    upload_stats: UploadStats,
    cleaner_stats: CleanerStats,
    exporter_stats: ExporterStats,
    damage: Damage,
    roster: Roster,
    content_breaker: Arc<Breaker>,
    /// What the last probe of the content store found wrong.
    contents_trouble: Mutex<Option<String>>,
    counts: Counts,
    uploaders: usize,
    pulse: Pulse,
    is_metadata_near: bool,
    migration: OnceLock<MigrationProgress>,
    /// Files that were copied into this store by this process, in the background or for a client.
    migrated: AtomicU64,
    beside: OnceLock<Beside>,
}

/// Whether the engine can do its work.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Readiness {
    /// Why names cannot be read and written; `None` when they can.
    pub metadata: Option<String>,
    /// Why contents cannot be read and stored; `None` as far as is known. What is cached or known goes on.
    pub contents: Option<String>,
    /// Which actor is stuck or gone; `None` when none is. One that is being rebuilt is back in a moment.
    pub actors: Option<String>,
}

/// What is inside right now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gauges {
    /// Requests.
    pub requests: usize,
    /// Locks that are held or awaited.
    pub locks: usize,
    /// Keys of locks that are held, or being asked for, in the database that instances share.
    pub keys_held: usize,
    /// Requests that wait for a key.
    pub keys_waiting: usize,
    /// Uploads that wait for an uploader.
    pub uploads_waiting: usize,
    /// Memory taken by received bodies, in bytes.
    pub spool_bytes: u64,
}

/// What is counted of a migration since the start of the process.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct MigrationTotals {
    /// Whether files are being copied, or an old server stands beside this one.
    pub is_active: bool,
    /// Files that were copied here, in the background or because a client asked.
    pub files_migrated: u64,
    /// Reads of clients that the old server answered.
    pub fallbacks: u64,
}

impl Engine {
    /// A place for one request, to be held until its answer is complete (for a download: until the
    /// body is sent); [`Kind::Overloaded`] at once when there is none.
    pub fn admit(&self) -> Result<Permit> {
        self.inner.admission.try_enter()
    }

    /// Ready when no request is inside. Keeps nobody out, and nothing of the engine alive.
    pub fn quiet(&self) -> impl Future<Output = ()> + use<> {
        let admission = self.inner.admission.clone();
        async move { admission.quiet().await }
    }

    /// Starts to receive a body.
    pub fn spooler(&self, encoding: BodyEncoding) -> Spooler {
        let inner = &self.inner;
        Spooler::new(encoding, inner.spool_limits.clone(), &inner.spool_budget, inner.compute.clone())
    }

    /// What a name points at.
    pub async fn stat(&self, key: &EntryKey) -> Result<Option<Entry>> {
        self.metadata(Lookup(key.clone())).await
    }

    /// Whether it costs next to nothing to ask for a version before a body is received.
    pub fn is_metadata_near(&self) -> bool {
        self.inner.is_metadata_near
    }

    /// Asks the metadata store whether it answers, for two seconds at most.
    pub async fn readiness(&self) -> Readiness {
        let late = || Error::new(Kind::Unavailable, "the metadata store does not answer in time");
        let metadata = tokio::time::timeout(READINESS_WAIT_MAX, self.metadata(Probe)).await;
        let metadata = metadata.unwrap_or_else(|_| Err(late()));
        let told = |outcome: Result<()>| outcome.err().map(|error| error.context().to_owned());
        let contents = told(self.inner.source.expect_up()).or_else(|| self.contents_trouble());
        let metadata = told(metadata);
        Readiness { metadata, contents, actors: self.actors().trouble() }
    }

    /// Totals over everything.
    pub async fn totals(&self) -> Result<Totals> {
        self.metadata(GetTotals).await
    }

    /// What is inside right now; all zero when nothing is going on.
    pub fn gauges(&self) -> Gauges {
        Gauges {
            requests: self.inner.admission.in_use(),
            locks: self.inner.lock_stats.live(),
            keys_held: self.inner.key_stats.held(),
            keys_waiting: self.inner.key_stats.waiting(),
            uploads_waiting: self.inner.upload_stats.waiting(),
            spool_bytes: self.inner.spool_budget.used(),
        }
    }

    /// How the locks among instances do; all zero when there are none.
    pub fn distributed_locks(&self) -> DistributedLockStats {
        self.inner.key_stats.clone()
    }

    /// What the periodic cleaner has done.
    pub fn cleaner_stats(&self) -> &CleanerStats {
        &self.inner.cleaner_stats
    }

    /// The old server beside this store, if there is one.
    fn beside(&self) -> Option<&Beside> {
        self.inner.beside.get()
    }

    /// What goes on between this store and the old server beside it, if there is one.
    pub fn beside_report(&self) -> Option<BesideReport> {
        self.beside().map(Beside::report)
    }

    /// How far the migration into this store is, if this process runs one.
    pub fn migration(&self) -> Option<MigrationSnapshot> {
        self.inner.migration.get().map(MigrationProgress::snapshot)
    }

    /// Where to put what is too much for memory, and threads to do so.
    pub(crate) fn spool_place(&self) -> (BlockingPool, std::path::PathBuf) {
        (self.inner.compute.clone(), self.inner.spool_limits.temp_dir.clone())
    }

    /// Whether what the old server beside this store has of a name may be in a version of its own.
    pub(crate) async fn doubts_old_server(&self, key: &EntryKey) -> Result<bool> {
        match self.beside() {
            Some(beside) => beside.doubts(key).await,
            None => Ok(false),
        }
    }

    /// What is counted of the migration into this store, for metrics.
    pub fn migration_totals(&self) -> MigrationTotals {
        MigrationTotals {
            is_active: self.beside().is_some() || self.migration().is_some_and(|now| now.is_active()),
            files_migrated: self.inner.migrated.load(Relaxed),
            fallbacks: self.beside().map_or(0, Beside::fallbacks),
        }
    }

    /// What the periodic export has done.
    pub fn exporter_stats(&self) -> &ExporterStats {
        &self.inner.exporter_stats
    }

    /// How many stored objects reads found missing or damaged, twice each, since the start.
    pub fn damage_seen(&self) -> u64 {
        self.inner.damage.count()
    }

    /// Asks the metadata actor. Without an answer in time the outcome of a write is unknown; every
    /// write may be repeated.
    async fn metadata<M, T>(&self, message: M) -> Result<T>
    where
        M: Message<Result = Result<T>> + Send + 'static,
        T: Send + 'static,
        MetadataActor: Handler<Timely<M>>,
        <MetadataActor as Actor>::Context: ToEnvelope<MetadataActor, Timely<M>>,
    {
        self.metadata_within(METADATA_WAIT_MAX, message).await
    }

    /// The same within this time.
    async fn metadata_within<M, T>(&self, wait_max: Duration, message: M) -> Result<T>
    where
        M: Message<Result = Result<T>> + Send + 'static,
        T: Send + 'static,
        MetadataActor: Handler<Timely<M>>,
        <MetadataActor as Actor>::Context: ToEnvelope<MetadataActor, Timely<M>>,
    {
        let late = |_| Error::new(Kind::Unavailable, "the metadata store does not answer in time");
        let deadline = Instant::now() + wait_max;
        let answer = async {
            let answer = tokio::time::timeout_at(deadline.into(), self.inner.metadata.ask(message, deadline));
            answer.await.map_err(late)?
        };
        self.inner.counts.metadata.measure(answer).await
    }
}
