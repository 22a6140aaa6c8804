//! Notices that this process stood still: stopped by a signal, or its machine was.
//!
//! Whoever waited for it has given up by then and may have done something else through another instance, such as
//! storing and deleting the same name. So what began before must not be completed afterwards.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::model::{Error, Kind, Result};

/// How often the clock is looked at.
const TICK: Duration = Duration::from_millis(200);
/// No tick for this long is a standstill: longer than anybody waits for metadata.
const STANDSTILL_MIN: Duration = Duration::from_secs(5);
/// Requests that arrived meanwhile are read all at once at the end: this is how long that may take.
const AFTERMATH: Duration = Duration::from_millis(500);

/// The watch; clones share it.
#[derive(Clone, Debug)]
pub struct Pulse(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    start: Instant,
    /// Milliseconds from `start` to the last tick.
    ticked: AtomicU64,
    /// The same to the end of the last standstill; 0 when there was none.
    woke: AtomicU64,
    standstills: AtomicU64,
}

/// A moment of the watch.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    standstills: u64,
}

impl Pulse {
    /// Starts the watch; its thread ends with the last clone.
    pub fn start() -> std::io::Result<Self> {
        let pulse = Self::at(Instant::now());
        let watched = Arc::downgrade(&pulse.0);
        std::thread::Builder::new().name("pulse".into()).spawn(move || {
            while let Some(shared) = watched.upgrade() {
                shared.tick(Instant::now());
                drop(shared);
                std::thread::sleep(TICK);
            }
        })?;
        Ok(pulse)
    }

    fn at(start: Instant) -> Self {
        let (ticked, woke, standstills) = Default::default();
        Self(Arc::new(Shared { start, ticked, woke, standstills }))
    }

    /// This moment.
    pub fn mark(&self) -> Mark {
        Mark { standstills: self.0.standstills.load(Ordering::Acquire) }
    }

    /// Fails when the process stood still since `mark`, or has only just gone on.
    pub fn expect_steady_since(&self, mark: Mark) -> Result<()> {
        self.0.check(mark, Instant::now())
    }
}

impl Shared {
    fn millis(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.start).as_millis()).unwrap_or(u64::MAX)
    }

    fn tick(&self, now: Instant) {
        let now = self.millis(now);
        let before = self.ticked.fetch_max(now, Ordering::AcqRel);
        if now.saturating_sub(before) >= as_millis(STANDSTILL_MIN) {
            self.standstills.fetch_add(1, Ordering::AcqRel);
            self.woke.store(now, Ordering::Release);
            log::warn!("the process stood still, requests inside are given up duration_ms={}", now - before);
        }
    }

    fn check(&self, mark: Mark, now: Instant) -> Result<()> {
        // The thread may not have had its turn yet.
        self.tick(now);
        let woke = self.woke.load(Ordering::Acquire);
        let is_aftermath = woke > 0 && self.millis(now).saturating_sub(woke) < as_millis(AFTERMATH);
        if is_aftermath || self.standstills.load(Ordering::Acquire) != mark.standstills {
            return Err(Error::new(Kind::Unavailable, "the server stood still for too long, try again"));
        }
        Ok(())
    }
}

fn as_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standstill_is_noticed_by_what_began_before_and_right_after_it() {
        let start = Instant::now();
        let pulse = Pulse::at(start);
        let at = |millis| start + Duration::from_millis(millis);
        let before = pulse.mark();
        for millis in (0..4000).step_by(200) {
            pulse.0.tick(at(millis));
        }
        pulse.0.check(before, at(4500)).unwrap();
        // Nothing ticks until 14 s; whoever asks first notices.
        assert_eq!(pulse.0.check(before, at(14_000)).unwrap_err().kind(), Kind::Unavailable);
        let after = pulse.mark();
        assert!(pulse.0.check(after, at(14_300)).is_err(), "it was read from a queue of the kernel, perhaps");
        pulse.0.tick(at(14_500));
        pulse.0.check(after, at(14_600)).unwrap();
        assert!(pulse.0.check(before, at(14_600)).is_err());
    }

    #[test]
    fn the_thread_keeps_a_watch_that_nobody_disturbs() {
        let pulse = Pulse::start().unwrap();
        let mark = pulse.mark();
        std::thread::sleep(Duration::from_millis(50));
        pulse.expect_steady_since(mark).unwrap();
    }
}
