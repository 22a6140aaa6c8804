//! What the locks of several instances need, and numbers to look at.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crate::store::postgres::PostgresSettings;

/// Keys that one instance may hold by default.
const HELD_MAX: usize = 512;
/// How long the locks of an instance that is not heard of stay by default.
const TTL: Duration = Duration::from_secs(15);

/// How several instances on one database lock contents.
#[derive(Clone, Debug)]
pub struct DistributedLockSettings {
    /// The database. It must be reached directly or through a proxy that keeps a session on one
    /// connection: locks belong to the session.
    pub postgres: PostgresSettings,
    /// The bucket of the contents: instances of different buckets do not wait for each other.
    pub bucket: String,
    /// The most keys that are held at once; other requests wait. Keys live in shared memory of the
    /// server, and when that is full the whole database fails.
    pub held_max: usize,
    /// How long the server keeps the locks of an instance that it does not hear of.
    pub ttl: Duration,
}

impl DistributedLockSettings {
    /// The usual bounds.
    pub fn new(postgres: PostgresSettings, bucket: impl Into<String>) -> Self {
        Self { postgres, bucket: bucket.into(), held_max: HELD_MAX, ttl: TTL }
    }
}

/// Numbers that can be read from outside.
#[derive(Clone, Debug, Default)]
pub struct DistributedLockStats(Arc<Numbers>);

#[derive(Debug, Default)]
struct Numbers {
    held: AtomicUsize,
    waiting: AtomicUsize,
    sessions: AtomicU64,
    batches: AtomicU64,
    is_connected: AtomicBool,
}

impl DistributedLockStats {
    /// Keys of the database that are held or being asked for now.
    pub fn held(&self) -> usize {
        self.0.held.load(Ordering::Relaxed)
    }

    /// Requests that wait for a key.
    pub fn waiting(&self) -> usize {
        self.0.waiting.load(Ordering::Relaxed)
    }

    /// Sessions that were opened since the start.
    #[cfg(feature = "testkit")]
    pub fn sessions(&self) -> u64 {
        self.0.sessions.load(Ordering::Relaxed)
    }

    /// Statements that took or gave back keys since the start.
    #[cfg(feature = "testkit")]
    pub fn batches(&self) -> u64 {
        self.0.batches.load(Ordering::Relaxed)
    }

    /// Whether there is a session.
    #[cfg(feature = "testkit")]
    pub fn is_connected(&self) -> bool {
        self.0.is_connected.load(Ordering::Relaxed)
    }

    pub(super) fn counted(&self, held: usize, waiting: usize) {
        self.0.held.store(held, Ordering::Relaxed);
        self.0.waiting.store(waiting, Ordering::Relaxed);
    }

    pub(super) fn session_opened(&self) {
        self.0.sessions.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn connected(&self, is_connected: bool) {
        self.0.is_connected.store(is_connected, Ordering::Relaxed);
    }

    pub(super) fn batch_sent(&self) {
        self.0.batches.fetch_add(1, Ordering::Relaxed);
    }
}
