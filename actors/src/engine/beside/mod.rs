//! An old Filetracker server beside this store, while clients move from one to the other.
//!
//! Reads: what the old server has and this store has not, or only in an older version, is fetched from there, once however
//! many clients wait, and stored on the way ([`fetch`]; it goes on through outages, [`receive`]). Writes: first here, durably, with a mark in the same transaction;
//! then the old server is told ([`tell`]), at once when it answers, else by [`worker`] until it does. A name that was deleted
//! here is remembered, so that nothing brings it back. While the old server does not answer, what is here is served, and what
//! is not known is 503, never "not found".

mod fetch;
mod listing;
mod read;
mod receive;
mod tape;
mod tell;
mod worker;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use actix::ArbiterHandle;
use tokio::sync::{Notify, Semaphore, watch};

use self::fetch::Fetches;
use crate::filetracker::{OldFile, OldServer};
use crate::migrator::Source;
use crate::model::{EntryKey, Error, Kind, Result};
use crate::runtime::behalf::Behalf;
use crate::store::meta::{KnownHere, MarkSummary, MirrorJournal};

pub use self::fetch::Fetched;
pub use self::read::{Description, Reading};
pub(crate) use self::worker::MirrorActor;

/// Writes of clients that the old server is told of at once; it may be slow to take them.
const TELLERS_MAX: usize = 64;
/// How long the journal may take to answer.
const JOURNAL_WAIT_MAX: Duration = Duration::from_millis(4500);
/// How long a file may be looked for, in all sources together.
const LOOK_MAX: Duration = Duration::from_secs(3);

/// An old server, or its directory, beside this store.
#[derive(Clone)]
pub struct BesideSettings {
    /// Where files are looked for, in this order. They must not take long to say that they are down.
    pub sources: Vec<Arc<dyn Source>>,
    /// The server that is told of every write, and lists; none when there is but a directory.
    pub server: Option<OldServer>,
    /// The metadata store.
    pub journal: Arc<dyn MirrorJournal>,
    /// Names that the old server is told of at once.
    pub concurrency: usize,
}

/// What goes on between this store and the old server.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct BesideReport {
    /// Names whose state the old server may not have, as of a second ago, or of some when there are very many.
    pub waiting: MarkSummary,
    /// Names that the old server was told of since the start.
    pub told: u64,
    /// How often that failed.
    pub failed: u64,
    /// Files that were fetched because clients asked for them, or wrote them here in an older version.
    pub fetched: u64,
    /// Files of the old server that are not what they should be.
    pub broken: u64,
    /// Clients' reads that the old server answered.
    pub fallbacks: u64,
    /// Files that are being fetched.
    pub fetching: usize,
    /// Names that the old server is being told of.
    pub telling: usize,
    /// Whether the old server is asked: `closed`, `open` or `probing`; `None` when there is but a directory.
    pub breaker: Option<&'static str>,
}

/// The old side. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Beside(Arc<Inner>);

struct Inner {
    settings: BesideSettings,
    fetches: Fetches,
    /// For clients that wait; the worker has room of its own.
    tellers: Arc<Semaphore>,
    counts: Counts,
    waiting: Mutex<MarkSummary>,
    /// Moves on when another number of names may be waiting.
    moves: AtomicU64,
    /// The thread that talks to the old server for longer than a request may.
    arbiter: OnceLock<ArbiterHandle>,
    /// Wakes the worker.
    wake: Notify,
    stopping: watch::Sender<bool>,
    busy: watch::Sender<usize>,
}

#[derive(Default)]
struct Counts {
    told: AtomicU64,
    failed: AtomicU64,
    fetched: AtomicU64,
    broken: AtomicU64,
    fallbacks: AtomicU64,
    fetching: AtomicUsize,
    telling: AtomicUsize,
}

impl Beside {
    pub(crate) fn new(settings: BesideSettings) -> Self {
        Self(Arc::new(Inner {
            settings,
            fetches: Fetches::default(),
            tellers: Arc::new(Semaphore::new(TELLERS_MAX)),
            counts: Counts::default(),
            waiting: Mutex::default(),
            moves: AtomicU64::default(),
            arbiter: OnceLock::new(),
            wake: Notify::new(),
            stopping: watch::Sender::new(false),
            busy: watch::Sender::new(0),
        }))
    }

    /// Where long work is done from now on.
    pub(crate) fn work_on(&self, arbiter: ArbiterHandle) {
        // It is set once.
        let _ = self.0.arbiter.set(arbiter);
    }

    /// Begins nothing new, and waits for what is under way.
    pub(crate) async fn stop(&self, wait_max: Duration) {
        self.0.stopping.send_replace(true);
        self.0.wake.notify_one();
        let mut busy = self.0.busy.subscribe();
        if tokio::time::timeout(wait_max, busy.wait_for(|busy| *busy == 0)).await.is_err() {
            log::info!("what the old server is being told is cut off; it goes on at the next start");
        }
    }

    pub(crate) fn report(&self) -> BesideReport {
        let counts = &self.0.counts;
        BesideReport {
            waiting: self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            told: counts.told.load(Relaxed),
            failed: counts.failed.load(Relaxed),
            fetched: counts.fetched.load(Relaxed),
            broken: counts.broken.load(Relaxed),
            fallbacks: counts.fallbacks.load(Relaxed),
            fetching: counts.fetching.load(Relaxed),
            telling: counts.telling.load(Relaxed) + (TELLERS_MAX - self.0.tellers.available_permits()),
            breaker: self.0.settings.server.as_ref().map(OldServer::breaker_state),
        }
    }

    pub(crate) fn fallbacks(&self) -> u64 {
        self.0.counts.fallbacks.load(Relaxed)
    }

    /// Counts a client's read that the old side answers.
    fn fell_back(&self) {
        self.0.counts.fallbacks.fetch_add(1, Relaxed);
    }

    /// Notes that another number of names may be waiting to be told of.
    fn moved(&self) {
        self.0.moves.fetch_add(1, Relaxed);
    }

    fn is_stopping(&self) -> bool {
        *self.0.stopping.borrow()
    }

    /// Runs something on the thread for long work, on the caller's behalf; `false` when that is over.
    fn begin(&self, work: impl Future<Output = ()> + Send + 'static) -> bool {
        let busy = Busy::enter(self.clone());
        let work = async move {
            let _busy = busy;
            work.await;
        };
        self.0.arbiter.get().is_some_and(|arbiter| arbiter.spawn(Behalf::current().scope(work)))
    }

    /// What the old side has of a name, unless that was deleted here; an outage is an error.
    pub(crate) async fn look(&self, key: &EntryKey) -> Result<Option<OldFile>> {
        let there = match tokio::time::timeout(LOOK_MAX, self.look_there(key)).await {
            Ok(there) => there?,
            Err(_) => return Err(Error::new(Kind::Unavailable, "the old server does not answer in time")),
        };
        let Some(there) = there else { return Ok(None) };
        let known = self.known_here(key).await?;
        let is_seen = known.deleted.is_none_or(|deleted| deleted < there.stamp) && known.telling.is_none();
        Ok(Some(there).filter(|_| is_seen))
    }

    /// Whether what the old server has of a name may be what it was told, in a version of its own: an old server that is killed
    /// between storing a file and noting its version gives it the time for that. What is here counts until that is settled.
    pub(crate) async fn doubts(&self, key: &EntryKey) -> Result<bool> {
        Ok(self.known_here(key).await?.telling.is_some())
    }

    async fn look_there(&self, key: &EntryKey) -> Result<Option<OldFile>> {
        let (mut newest, mut trouble): (Option<OldFile>, _) = (None, None);
        for source in &self.0.settings.sources {
            match source.head(key).await.or_else(none_if_no_file) {
                Ok(there) if there.as_ref().map(|there| there.stamp) > newest.as_ref().map(|newest| newest.stamp) => {
                    newest = there;
                }
                Ok(_) => {}
                Err(error) => trouble = Some(error),
            }
        }
        // What one source has does not need the others.
        match (newest, trouble) {
            (None, Some(error)) => Err(error),
            (newest, _) => Ok(newest),
        }
    }

    async fn known_here(&self, key: &EntryKey) -> Result<KnownHere> {
        let names = vec![key.name().to_owned()];
        let known = self.journal(self.0.settings.journal.are_here(key.namespace(), names)).await?;
        Ok(known.first().copied().unwrap_or_default())
    }

    async fn journal<T>(&self, answer: impl Future<Output = Result<T>>) -> Result<T> {
        let late = |_| Err(Error::new(Kind::Unavailable, "the metadata store does not answer in time"));
        tokio::time::timeout(JOURNAL_WAIT_MAX, answer).await.unwrap_or_else(late)
    }
}

/// What is there and is no file, such as a link, cannot be read by a client: to it there is no such file.
fn none_if_no_file<T>(error: Error) -> Result<Option<T>> {
    match error.kind() {
        Kind::Invalid => Ok(None),
        _ => Err(error),
    }
}

/// Something that the end of the engine waits for.
struct Busy(Beside);

impl Busy {
    fn enter(beside: Beside) -> Self {
        beside.0.busy.send_modify(|busy| *busy += 1);
        Self(beside)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.0.busy.send_modify(|busy| *busy -= 1);
    }
}
