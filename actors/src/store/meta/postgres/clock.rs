//! What the database's clock shows, as far as it is known here.
//!
//! A write carries the moment, by the clock of the database, from which on it must not be carried out: a
//! request can be held up on its way (by the network, or because this process was stopped) for longer
//! than its sender waits for it, and must not take effect when nobody expects it any more.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// Two clocks drift apart: what was read longer ago is read again.
const AGE_MAX: Duration = Duration::from_secs(60);

/// The last reading. It is never ahead of the database's clock, but behind it by up to the time that the
/// answer was on its way.
#[derive(Default)]
pub(super) struct Clock(Mutex<Option<Reading>>);

#[derive(Clone, Copy)]
struct Reading {
    /// When the answer arrived.
    at: Instant,
    /// What the database's clock had shown.
    shown: SystemTime,
}

impl Clock {
    /// The time of the database at `moment`; `None` when the clock has to be read first.
    pub(super) fn time_at(&self, moment: Instant) -> Option<SystemTime> {
        let reading = (*self.0.lock().unwrap_or_else(PoisonError::into_inner))?;
        if reading.at.elapsed() > AGE_MAX {
            return None;
        }
        Some(reading.shown + moment.saturating_duration_since(reading.at))
    }

    /// Notes what an answer that has just arrived says, unless more is known: answers may have been on their way for
    /// different times.
    pub(super) fn read(&self, shown: SystemTime) {
        let at = Instant::now();
        let mut reading = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = reading.is_none_or(|old| old.at.elapsed() > AGE_MAX || shown >= old.shown + (at - old.at));
        if is_news {
            *reading = Some(Reading { at, shown });
        }
    }

    /// The reading may be wrong: the clock was set, or it is another server's.
    pub(super) fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_moment_is_a_later_time_and_an_unread_clock_shows_none() {
        let clock = Clock::default();
        let later = Instant::now() + Duration::from_secs(5);
        assert_eq!(clock.time_at(later), None);
        clock.read(SystemTime::UNIX_EPOCH);
        let shown = clock.time_at(later).unwrap().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        assert!(shown <= Duration::from_secs(5) && shown > Duration::from_secs(4));
        clock.read(SystemTime::UNIX_EPOCH + Duration::from_secs(60));
        let newer = clock.time_at(later);
        clock.read(SystemTime::UNIX_EPOCH + Duration::from_secs(30));
        assert_eq!(clock.time_at(later), newer, "an answer that was held up");
        clock.forget();
        assert_eq!(clock.time_at(later), None);
    }
}
