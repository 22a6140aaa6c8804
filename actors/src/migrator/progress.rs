//! How far a migration is, for whoever shows it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::store::meta::{Fate, Migration, MigrationCounts, MigrationId};

/// What a migration is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MigrationPhase {
    /// It has not begun; another instance may be at it.
    Waiting,
    /// It finds out names.
    Listing,
    /// It copies.
    Copying,
    /// All is done.
    Done,
    /// It was told to stop; it goes on when it is started again.
    Stopped,
    /// It cannot go on.
    Failed,
}

impl MigrationPhase {
    /// Its name in reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Listing => "listing",
            Self::Copying => "copying",
            Self::Done => "done",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        }
    }
}

/// Numbers that another task may read. Clones are the same numbers.
#[derive(Clone)]
pub struct MigrationProgress(Arc<Shared>);

struct Shared {
    kind: &'static str,
    source: String,
    received_bytes: AtomicU64,
    retries: AtomicU64,
    state: Mutex<State>,
}

struct State {
    id: Option<MigrationId>,
    phase: MigrationPhase,
    counts: MigrationCounts,
    /// When this process began to copy, and what was settled by then.
    begun: Option<(Instant, u64)>,
    /// When it stopped doing so.
    ended: Option<Instant>,
    /// When the last name was settled.
    settled_at: Option<Instant>,
    is_resumed: bool,
    waits_for: Option<String>,
}

/// The numbers at one moment.
#[derive(Clone, Debug)]
pub struct MigrationSnapshot {
    /// The number that it is noted under, once it has begun.
    pub id: Option<MigrationId>,
    /// The kind of source.
    pub kind: &'static str,
    /// The source.
    pub source: String,
    /// What it is doing.
    pub phase: MigrationPhase,
    /// Whether it goes on with what an earlier process began.
    pub is_resumed: bool,
    /// What came of names so far, those of earlier processes included. The total is final when all are listed.
    pub counts: MigrationCounts,
    /// Bytes that this process received.
    pub received_bytes: u64,
    /// Attempts that this process made again.
    pub retries: u64,
    /// For how long this process has been copying.
    pub copying_for: Duration,
    /// Names that it settled in that time.
    pub settled_here: u64,
    /// For how long it has settled none.
    pub still_for: Duration,
    /// What it waits for, when nothing goes on.
    pub waits_for: Option<String>,
}

impl MigrationSnapshot {
    /// Whether it is not at its end.
    pub fn is_active(&self) -> bool {
        matches!(self.phase, MigrationPhase::Waiting | MigrationPhase::Listing | MigrationPhase::Copying)
    }

    /// Settled names a second.
    pub fn rate(&self) -> f64 {
        self.settled_here as f64 / self.copying_for.as_secs_f64().max(0.001)
    }

    /// The time left at this rate; how large files are is not known. What has taken long, takes as long again: the last ones
    /// may be large.
    pub fn time_left(&self) -> Option<Duration> {
        let names = self.counts.total.saturating_sub(self.counts.settled());
        let left = names as f64 / self.rate();
        let is_known = self.phase == MigrationPhase::Copying && left.is_finite() && left < 1e9;
        is_known.then(|| Duration::from_secs_f64(left).max(if names > 0 { self.still_for } else { Duration::ZERO }))
    }

    /// The share of the copied bytes that needed no room, as far as one can say.
    pub fn savings(&self) -> Option<f64> {
        let MigrationCounts { copied_bytes, stored_bytes, .. } = self.counts;
        (copied_bytes > 0).then(|| 1.0 - stored_bytes as f64 / copied_bytes as f64)
    }
}

impl MigrationProgress {
    pub(super) fn new(kind: &'static str, source: String) -> Self {
        let state = State {
            id: None,
            phase: MigrationPhase::Waiting,
            counts: MigrationCounts::default(),
            begun: None,
            ended: None,
            settled_at: None,
            is_resumed: false,
            waits_for: None,
        };
        let (received_bytes, retries) = Default::default();
        Self(Arc::new(Shared { kind, source, received_bytes, retries, state: Mutex::new(state) }))
    }

    /// The numbers now.
    pub fn snapshot(&self) -> MigrationSnapshot {
        let state = self.state();
        let (copying_for, settled_before) = state.begun.map_or_else(Default::default, |(begun, settled)| {
            (state.ended.unwrap_or_else(Instant::now).saturating_duration_since(begun), settled)
        });
        MigrationSnapshot {
            id: state.id,
            kind: self.0.kind,
            source: self.0.source.clone(),
            phase: state.phase,
            is_resumed: state.is_resumed,
            counts: state.counts,
            received_bytes: self.0.received_bytes.load(Relaxed),
            retries: self.0.retries.load(Relaxed),
            copying_for,
            settled_here: state.counts.settled().saturating_sub(settled_before),
            still_for: state.settled_at.map_or(Duration::ZERO, |at| at.elapsed()),
            waits_for: state.waits_for.clone(),
        }
    }

    /// It has begun, or goes on.
    pub(super) fn noted_as(&self, id: MigrationId) {
        self.state().id = Some(id);
    }

    pub(super) fn enter(&self, phase: MigrationPhase) {
        let mut state = self.state();
        state.phase = phase;
        state.waits_for = None;
        if phase == MigrationPhase::Copying {
            state.begun = Some((Instant::now(), state.counts.settled()));
            state.settled_at = Some(Instant::now());
            state.ended = None;
        } else if state.ended.is_none() {
            state.ended = Some(Instant::now());
        }
    }

    /// Goes on from what is noted.
    pub(super) fn resume(&self, noted: &Migration, is_resumed: bool) {
        let mut state = self.state();
        state.counts = noted.counts;
        state.is_resumed = is_resumed;
    }

    /// Names were listed; which of them are new is known at the end.
    pub(super) fn listed(&self, names: usize) {
        self.state().counts.total += names as u64;
    }

    pub(super) fn settled(&self, fate: &Fate) {
        let mut state = self.state();
        state.counts.add(fate);
        state.settled_at = Some(Instant::now());
    }

    pub(super) fn received(&self, bytes: usize) {
        self.0.received_bytes.fetch_add(bytes as u64, Relaxed);
    }

    pub(super) fn retried(&self) {
        self.0.retries.fetch_add(1, Relaxed);
    }

    /// Notes what is waited for; returns whether that is news.
    pub(super) fn waits_for(&self, what: Option<String>) -> bool {
        let mut state = self.state();
        let is_news = state.waits_for.is_some() != what.is_some();
        state.waits_for = what;
        is_news
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_of_what_is_done_does_not_change_any_more() {
        let progress = MigrationProgress::new("v2", "http://old".into());
        progress.enter(MigrationPhase::Listing);
        progress.enter(MigrationPhase::Copying);
        progress.settled(&Fate::Skipped);
        progress.enter(MigrationPhase::Done);
        let lasted = progress.snapshot().copying_for;
        std::thread::sleep(Duration::from_millis(5));
        assert_eq!(progress.snapshot().copying_for, lasted);
    }
}
