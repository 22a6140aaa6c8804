//! What can be seen of the cleaner from outside.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};

use super::report::CleanReport;
use crate::model::Stamp;

/// What the cleaner of this process has done since its start. Clones are the same numbers.
#[derive(Clone, Debug, Default)]
pub struct CleanerStats(Arc<Numbers>);

#[derive(Debug, Default)]
struct Numbers {
    last_run: AtomicI64,
    runs: AtomicU64,
    deleted: AtomicU64,
    freed_bytes: AtomicU64,
    errors: AtomicU64,
    is_leader: AtomicBool,
    is_running: AtomicBool,
}

impl CleanerStats {
    /// When the last run ended; `None` before the first.
    pub fn last_run(&self) -> Option<Stamp> {
        let seconds = self.0.last_run.load(Relaxed);
        (seconds != 0).then(|| Stamp::from_seconds(seconds))
    }

    /// Runs that ended, well or not.
    pub fn runs(&self) -> u64 {
        self.0.runs.load(Relaxed)
    }

    /// Objects that were deleted.
    pub fn deleted(&self) -> u64 {
        self.0.deleted.load(Relaxed)
    }

    /// The sizes of those whose size was known.
    pub fn freed_bytes(&self) -> u64 {
        self.0.freed_bytes.load(Relaxed)
    }

    /// Runs and batches that failed.
    pub fn errors(&self) -> u64 {
        self.0.errors.load(Relaxed)
    }

    /// Whether it is this instance's turn among those that share the database.
    pub fn is_leader(&self) -> bool {
        self.0.is_leader.load(Relaxed)
    }

    /// Whether a run is under way.
    pub fn is_running(&self) -> bool {
        self.0.is_running.load(Relaxed)
    }

    pub(super) fn set_leader(&self, is_leader: bool) {
        self.0.is_leader.store(is_leader, Relaxed);
    }

    pub(super) fn set_running(&self, is_running: bool) {
        self.0.is_running.store(is_running, Relaxed);
    }

    pub(super) fn add_error(&self) {
        self.0.errors.fetch_add(1, Relaxed);
    }

    pub(super) fn add(&self, report: &CleanReport) {
        let numbers = &self.0;
        numbers.runs.fetch_add(1, Relaxed);
        numbers.deleted.fetch_add(report.deleted(), Relaxed);
        numbers.freed_bytes.fetch_add(report.freed_bytes(), Relaxed);
        numbers.errors.fetch_add(report.errors, Relaxed);
        numbers.last_run.store(Stamp::now().seconds(), Relaxed);
    }
}

/// How far a run is. Clones tell of the same one.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<Steps>);

#[derive(Debug, Default)]
struct Steps {
    cleaned: AtomicU64,
    scanned: AtomicU64,
}

impl Progress {
    /// Objects that were planned and are dealt with.
    pub fn cleaned(&self) -> u64 {
        self.0.cleaned.load(Relaxed)
    }

    /// Objects that the full scan has looked at.
    pub fn scanned(&self) -> u64 {
        self.0.scanned.load(Relaxed)
    }

    pub(super) fn add_cleaned(&self, count: u64) {
        self.0.cleaned.fetch_add(count, Relaxed);
    }

    pub(super) fn add_scanned(&self, count: u64) {
        self.0.scanned.fetch_add(count, Relaxed);
    }
}
