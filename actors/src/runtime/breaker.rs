//! A circuit breaker: a backend that keeps failing is left alone for a moment, and callers are
//! told at once instead of after a timeout.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rand::Rng;

use crate::model::{Error, Kind, Result};

/// Failures in a row that open the circuit.
const FAILURES_MAX: u32 = 5;
/// The first time it stays open; it doubles with each failed probe up to [`OPEN_MAX`].
const OPEN_MIN: Duration = Duration::from_millis(500);
/// The longest time it stays open.
const OPEN_MAX: Duration = Duration::from_secs(4);

/// Guards the calls to one backend.
#[derive(Debug)]
pub struct Breaker {
    backend: &'static str,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    Closed {
        failures: u32,
    },
    Open {
        until: Instant,
        lasts: Duration,
    },
    /// One call is let through to see whether the backend is back; a probe that never ends (its
    /// caller went away) gives its place to another one after a while.
    Probing {
        since: Instant,
        lasts: Duration,
    },
}

impl Breaker {
    /// A closed breaker for the backend called `backend`.
    pub fn new(backend: &'static str) -> Self {
        Self { backend, state: Mutex::new(State::Closed { failures: 0 }) }
    }

    /// What it guards.
    pub fn backend(&self) -> &'static str {
        self.backend
    }

    /// `closed`, `open`, or `probing` while one call finds out.
    pub fn state(&self) -> &'static str {
        match *self.state.lock().unwrap_or_else(PoisonError::into_inner) {
            State::Closed { .. } => "closed",
            State::Open { .. } => "open",
            State::Probing { .. } => "probing",
        }
    }

    /// Makes a call unless the circuit is open. Only [`Kind::Unavailable`] counts as a failure of
    /// the backend.
    pub async fn call<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        self.enter(Instant::now())?;
        let outcome = call.await;
        let is_down = matches!(&outcome, Err(error) if error.kind() == Kind::Unavailable);
        self.learn(is_down, Instant::now());
        outcome
    }

    /// Fails while the circuit is open and it is not yet time for a probe; lets nothing through
    /// itself.
    pub fn expect_closed(&self) -> Result<()> {
        match *self.state.lock().unwrap_or_else(PoisonError::into_inner) {
            State::Open { until, .. } if Instant::now() < until => Err(self.refusal()),
            _ => Ok(()),
        }
    }

    fn refusal(&self) -> Error {
        Error::new(Kind::Unavailable, format!("{} does not answer now", self.backend))
    }

    fn enter(&self, now: Instant) -> Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match *state {
            State::Closed { .. } => Ok(()),
            State::Open { until, lasts } if now >= until => {
                *state = State::Probing { since: now, lasts };
                Ok(())
            }
            State::Probing { since, lasts } if now.duration_since(since) > OPEN_MAX => {
                *state = State::Probing { since: now, lasts };
                Ok(())
            }
            State::Open { .. } | State::Probing { .. } => Err(self.refusal()),
        }
    }

    fn learn(&self, is_down: bool, now: Instant) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_down {
            if !matches!(*state, State::Closed { .. }) {
                log::info!("a backend answers again backend={}", self.backend);
            }
            *state = State::Closed { failures: 0 };
            return;
        }
        let lasts = match &mut *state {
            State::Closed { failures } => {
                *failures += 1;
                if *failures < FAILURES_MAX {
                    return;
                }
                log::warn!("a backend does not answer backend={}", self.backend);
                OPEN_MIN
            }
            // A call from before the circuit opened.
            State::Open { .. } => return,
            State::Probing { lasts, .. } => (*lasts * 2).min(OPEN_MAX),
        };
        let until = now + lasts.mul_f64(rand::rng().random_range(0.5..=1.0));
        *state = State::Open { until, lasts };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_after_failures_in_a_row_and_closes_after_a_good_probe() {
        let breaker = Breaker::new("test");
        let start = Instant::now();
        for _ in 0..FAILURES_MAX {
            breaker.enter(start).unwrap();
            breaker.learn(true, start);
        }
        assert_eq!(breaker.enter(start).unwrap_err().kind(), Kind::Unavailable);
        let later = start + OPEN_MIN;
        breaker.enter(later).unwrap();
        assert!(breaker.enter(later).is_err(), "only one probe at a time");
        breaker.learn(false, later);
        breaker.enter(later).unwrap();
        breaker.enter(later).unwrap();
    }

    #[test]
    fn failures_that_are_not_in_a_row_do_not_open_it() {
        let breaker = Breaker::new("test");
        let now = Instant::now();
        for _ in 0..10 * FAILURES_MAX {
            breaker.enter(now).unwrap();
            breaker.learn(true, now);
            breaker.enter(now).unwrap();
            breaker.learn(false, now);
        }
        breaker.enter(now).unwrap();
    }

    #[test]
    fn a_lost_probe_does_not_keep_it_open_for_ever() {
        let breaker = Breaker::new("test");
        let start = Instant::now();
        for _ in 0..FAILURES_MAX {
            breaker.learn(true, start);
        }
        breaker.enter(start + OPEN_MIN).unwrap();
        assert!(breaker.enter(start + OPEN_MIN).is_err());
        breaker.enter(start + OPEN_MIN + 2 * OPEN_MAX).unwrap();
    }
}
