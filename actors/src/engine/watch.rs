//! Numbers of the engine for whoever watches it. None of them is asked of an actor or a store.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use super::Engine;
use crate::download::CacheReading;
use crate::model::{Error, Kind, Result};
use crate::runtime::meter::{Meter, MeterReading};

/// How long the content store may take to prove that it is there.
const PROBE_MAX: Duration = Duration::from_secs(4);

/// What the engine counts of its own work.
#[derive(Default)]
pub(super) struct Counts {
    /// Names that were given a content that was known.
    pub(super) known: AtomicU64,
    /// Names that were given one that had to be uploaded.
    pub(super) uploaded: AtomicU64,
    /// Requests that wait for the lock of a content.
    pub(super) lock_waiters: AtomicUsize,
    pub(super) metadata: Meter,
    pub(super) opens: Arc<Meter>,
    pub(super) uploads: Arc<Meter>,
}

/// Counts somebody who waits for as long as it lives.
pub(super) struct Waits<'a>(&'a AtomicUsize);

impl<'a> Waits<'a> {
    pub(super) fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Relaxed);
        Self(count)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// What was counted since the start.
#[derive(Clone, PartialEq, Debug)]
pub struct EngineReading {
    /// Writes of names whose content was known: nothing was uploaded.
    pub dedup_hits: u64,
    /// Writes of names whose content was new.
    pub dedup_misses: u64,
    /// Requests that wait for the lock of a content now, here or among instances.
    pub lock_waiters: usize,
    /// The cache of small contents.
    pub cache: CacheReading,
    /// Connections to the metadata store that work now, and those that do not.
    pub connections: (usize, usize),
    /// Calls to the backends.
    pub backends: Vec<BackendReading>,
}

/// Calls of one kind to one backend.
#[derive(Clone, PartialEq, Debug)]
pub struct BackendReading {
    /// `metadata` or `contents`.
    pub backend: &'static str,
    /// `transaction`, `open` or `upload`.
    pub operation: &'static str,
    /// How many, how long.
    pub calls: MeterReading,
}

impl Engine {
    /// What was counted since the start.
    pub fn reading(&self) -> EngineReading {
        let counts = &self.inner.counts;
        let backend = |backend, operation, meter: &Meter| BackendReading { backend, operation, calls: meter.reading() };
        EngineReading {
            dedup_hits: counts.known.load(Relaxed),
            dedup_misses: counts.uploaded.load(Relaxed),
            lock_waiters: counts.lock_waiters.load(Relaxed),
            cache: self.inner.cache.reading(),
            connections: self.inner.metadata_store.connection_use(),
            backends: vec![
                backend("metadata", "transaction", &counts.metadata),
                backend("contents", "open", &counts.opens),
                backend("contents", "upload", &counts.uploads),
            ],
        }
    }

    /// Asks the content store whether it is there, and remembers the answer for [`Engine::readiness`]. To be called from
    /// time to time: a store that nobody asks for anything would seem to be well.
    pub async fn probe_contents(&self) -> Result<()> {
        let outcome = self.probe_contents_within(PROBE_MAX).await;
        let trouble = outcome.as_ref().err().map(|error| error.context().to_owned());
        *self.inner.contents_trouble.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = trouble;
        outcome
    }

    /// Asks the content store whether it is there, for so long at most.
    pub(super) async fn probe_contents_within(&self, longest: Duration) -> Result<()> {
        let late = |_| Error::new(Kind::Unavailable, "the content store does not answer in time");
        tokio::time::timeout(longest, self.inner.source.probe()).await.map_err(late).flatten()
    }

    /// What the last probe found wrong with the content store.
    pub(super) fn contents_trouble(&self) -> Option<String> {
        self.inner.contents_trouble.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}
