//! When to try again: exponential back-off with full jitter, few tries, little time.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::Rng;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::fault::Fault;
use super::settings::S3Timeouts;

const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// An attempt with less time than this is not worth making.
const ATTEMPT_MIN: Duration = Duration::from_millis(100);

/// When an attempt last got on. Clones tell of the same attempt.
#[derive(Clone)]
pub(super) struct Progress(Arc<Mutex<Instant>>);

impl Default for Progress {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }
}

impl Progress {
    /// The attempt got on just now.
    pub fn made(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// When the attempt last got on; at first, when it began.
    pub fn last(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when there was no progress for `limit`.
    async fn stalled(&self, limit: Duration) {
        loop {
            let until = self.last() + limit;
            if Instant::now() >= until {
                return;
            }
            sleep_until(until).await;
        }
    }
}

/// The limits of one request with all its attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Patience {
    /// For one attempt.
    attempt: Duration,
    /// For all attempts and the pauses between them.
    total: Duration,
    /// For waiting in vain: the time without progress at the end of an attempt, and the pauses, of
    /// all attempts together. A server that is down or silent is told after this, whatever the size.
    quiet: Duration,
    tries: u32,
}

impl Patience {
    /// For requests whose bodies are small.
    pub fn small(timeouts: &S3Timeouts) -> Self {
        let limit = timeouts.request;
        Self { attempt: limit, total: limit, quiet: limit, tries: timeouts.tries }
    }

    /// For an upload of `size` bytes: a slow line gets time for one attempt and for a second one, as
    /// long as the bytes move.
    pub fn upload(timeouts: &S3Timeouts, size: u64) -> Self {
        let transfer = Duration::from_secs_f64(size as f64 / timeouts.upload_rate_min as f64);
        let (attempt, total) = (timeouts.request + transfer, timeouts.request + 2 * transfer);
        Self { attempt, total, quiet: timeouts.request, tries: timeouts.tries }
    }

    /// For somebody who has waited for something else before. A fourth of the time in vain is left in any case.
    pub fn after(self, waited: Duration) -> Self {
        Self { quiet: self.quiet.saturating_sub(waited).max(self.quiet / 4), ..self }
    }

    /// For a request that makes the server work.
    pub fn patient(timeouts: &S3Timeouts) -> Self {
        let limit = timeouts.idle;
        Self { attempt: limit, total: limit, quiet: limit, tries: timeouts.tries }
    }

    /// Calls `attempt` until it succeeds, fails for good, or time or tries are used up; then the
    /// last fault is told.
    pub async fn run<T, F, A>(self, mut attempt: A) -> Result<T, Fault>
    where
        A: FnMut() -> F,
        F: Future<Output = Result<T, Fault>>,
    {
        self.run_watched(|_| attempt()).await
    }

    /// Like [`run`](Self::run), for attempts that tell their [`Progress`].
    pub async fn run_watched<T, F, A>(self, mut attempt: A) -> Result<T, Fault>
    where
        A: FnMut(Progress) -> F,
        F: Future<Output = Result<T, Fault>>,
    {
        let started = Instant::now();
        let mut quiet_left = self.quiet;
        let mut tried = 0;
        loop {
            let left = self.total.saturating_sub(started.elapsed());
            let progress = Progress::default();
            let watched = async {
                tokio::select! {
                    biased;
                    outcome = attempt(progress.clone()) => outcome,
                    () = progress.stalled(quiet_left) => Err(Fault::Silent),
                }
            };
            let outcome = timeout(left.min(self.attempt), watched).await.unwrap_or(Err(Fault::Silent));
            let fault = match outcome {
                Ok(value) => return Ok(value),
                Err(fault) => fault,
            };
            tried += 1;
            let pause = jittered(tried);
            quiet_left = quiet_left.saturating_sub(progress.last().elapsed() + pause);
            let time_is_up = quiet_left < ATTEMPT_MIN || started.elapsed() + pause + ATTEMPT_MIN > self.total;
            if tried >= self.tries || !fault.is_transient() || time_is_up {
                return Err(fault);
            }
            log::debug!("s3 request is tried again tried={tried} pause_ms={} cause={fault}", pause.as_millis());
            sleep(pause).await;
        }
    }
}

/// The pause after `tried` attempts: anything up to a ceiling that doubles each time.
fn jittered(tried: u32) -> Duration {
    let ceiling = PAUSE_FIRST.saturating_mul(1 << (tried - 1).min(16)).min(PAUSE_MAX);
    rand::rng().random_range(Duration::ZERO..=ceiling)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::store::blob::s3::fault::Refusal;

    fn refused(status: u16) -> Fault {
        Fault::Refused(Refusal { status, code: String::new(), message: String::new() })
    }

    fn small() -> Patience {
        Patience::small(&S3Timeouts::default())
    }

    #[tokio::test(start_paused = true)]
    async fn trouble_that_passes_is_not_seen() {
        let tried = Cell::new(0);
        let outcome = small().run(|| async {
            tried.set(tried.get() + 1);
            if tried.get() < 4 { Err(refused(503)) } else { Ok(tried.get()) }
        });
        assert_eq!(outcome.await.unwrap(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn trouble_that_stays_ends_within_the_limits() {
        for hang in [Duration::ZERO, Duration::from_millis(900), Duration::from_secs(3600)] {
            let started = Instant::now();
            let tried = Cell::new(0);
            let outcome: Result<(), Fault> = small()
                .run(|| async {
                    tried.set(tried.get() + 1);
                    sleep(hang).await;
                    Err(refused(500))
                })
                .await;
            assert!(outcome.is_err());
            assert!(tried.get() <= S3Timeouts::default().tries);
            assert!(started.elapsed() <= S3Timeouts::default().request + Duration::from_millis(10));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_final() {
        let tried = Cell::new(0);
        let outcome: Result<(), Fault> = small()
            .run(|| async {
                tried.set(tried.get() + 1);
                Err(refused(403))
            })
            .await;
        assert!(outcome.is_err());
        assert_eq!(tried.get(), 1);
    }

    #[test]
    fn pauses_grow_and_stay_below_their_ceiling() {
        for tried in 1..100 {
            assert!(jittered(tried) <= PAUSE_MAX);
        }
        assert!((0..100).all(|_| jittered(1) <= PAUSE_FIRST));
    }
}
