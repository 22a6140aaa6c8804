//! What can be seen of the exporter from outside.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use crate::model::Stamp;

/// What the exporter of this process has done since its start. Clones are the same numbers.
#[derive(Clone, Debug, Default)]
pub struct ExporterStats(Arc<Numbers>);

#[derive(Debug, Default)]
struct Numbers {
    last_success: AtomicI64,
    last_error: Mutex<Option<String>>,
    exports: AtomicU64,
    failures: AtomicU64,
    names: AtomicU64,
    is_leader: AtomicBool,
    is_running: AtomicBool,
}

impl ExporterStats {
    /// When the last export was complete; `None` before the first.
    pub fn last_success(&self) -> Option<Stamp> {
        let seconds = self.0.last_success.load(Relaxed);
        (seconds != 0).then(|| Stamp::from_seconds(seconds))
    }

    /// Why the last one failed; `None` when it did not.
    pub fn last_error(&self) -> Option<String> {
        self.0.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Exports that were complete.
    pub fn exports(&self) -> u64 {
        self.0.exports.load(Relaxed)
    }

    /// Exports that failed.
    pub fn failures(&self) -> u64 {
        self.0.failures.load(Relaxed)
    }

    /// Names of the last complete one.
    pub fn names(&self) -> u64 {
        self.0.names.load(Relaxed)
    }

    /// Whether it is this instance's turn among those that share the database.
    pub fn is_leader(&self) -> bool {
        self.0.is_leader.load(Relaxed)
    }

    /// Whether an export is under way.
    pub fn is_running(&self) -> bool {
        self.0.is_running.load(Relaxed)
    }

    pub(super) fn set_leader(&self, is_leader: bool) {
        self.0.is_leader.store(is_leader, Relaxed);
    }

    pub(super) fn set_running(&self, is_running: bool) {
        self.0.is_running.store(is_running, Relaxed);
    }

    pub(super) fn succeeded(&self, names: u64) {
        self.0.exports.fetch_add(1, Relaxed);
        self.0.names.store(names, Relaxed);
        self.0.last_success.store(Stamp::now().seconds(), Relaxed);
        *self.0.last_error.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(super) fn failed(&self, why: String) {
        self.0.failures.fetch_add(1, Relaxed);
        *self.0.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
    }
}
