//! How far a run is, for whoever shows it.

use std::sync::atomic::{AtomicU64, Ordering};

/// What is being done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub enum Phase {
    /// The metadata are looked over.
    Metadata,
    /// Contents are looked for, or read.
    Contents,
    /// Objects that nothing knows of are looked for.
    Orphans,
    /// Names that damages affect are looked up.
    Names,
    /// What lost contents can be had from is looked for.
    Losses,
    /// What was decided is done.
    Repair,
}

/// Counters that another task may read.
#[derive(Debug, Default)]
pub struct Progress {
    phase: AtomicU64,
    contents: AtomicU64,
    contents_all: AtomicU64,
    stored_bytes: AtomicU64,
    stored_bytes_all: AtomicU64,
    steps: AtomicU64,
    steps_all: AtomicU64,
}

/// The counters at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot {
    /// What is being done.
    pub phase: Phase,
    /// Contents that were looked at.
    pub contents: u64,
    /// Contents that there were at the beginning.
    pub contents_all: u64,
    /// Bytes of their objects.
    pub stored_bytes: u64,
    /// Bytes of all objects at the beginning.
    pub stored_bytes_all: u64,
    /// Steps of a phase that counts no contents.
    pub steps: u64,
    /// How many there are; 0 when nobody knows.
    pub steps_all: u64,
}

impl Progress {
    /// The counters now.
    pub fn snapshot(&self) -> Snapshot {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let phases = [Phase::Metadata, Phase::Contents, Phase::Orphans, Phase::Names, Phase::Losses, Phase::Repair];
        let phase = phases.into_iter().find(|phase| *phase as u64 == read(&self.phase));
        Snapshot {
            phase: phase.unwrap_or(Phase::Metadata),
            contents: read(&self.contents),
            contents_all: read(&self.contents_all),
            stored_bytes: read(&self.stored_bytes),
            stored_bytes_all: read(&self.stored_bytes_all),
            steps: read(&self.steps),
            steps_all: read(&self.steps_all),
        }
    }

    pub(crate) fn enter(&self, phase: Phase) {
        self.step(0, 0);
        self.phase.store(phase as u64, Ordering::Relaxed);
    }

    pub(crate) fn step(&self, done: u64, all: u64) {
        self.steps.store(done, Ordering::Relaxed);
        self.steps_all.store(all, Ordering::Relaxed);
    }

    pub(crate) fn expect(&self, contents: u64, stored_bytes: u64) {
        self.contents_all.store(contents, Ordering::Relaxed);
        self.stored_bytes_all.store(stored_bytes, Ordering::Relaxed);
    }

    pub(crate) fn advance(&self, contents: u64, stored_bytes: u64) {
        self.contents.store(contents, Ordering::Relaxed);
        self.stored_bytes.store(stored_bytes, Ordering::Relaxed);
    }
}
