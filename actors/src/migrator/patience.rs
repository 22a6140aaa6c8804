//! Waiting for what does not answer: longer each time, never all at once, and not past the end.

use std::time::Duration;

use rand::Rng;
use tokio::sync::{Mutex, watch};

use super::progress::MigrationProgress;
use crate::model::{Result, Retry};

/// The first pause; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(200);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(15);

/// Told to stop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Stopped;

/// Pauses of one thing that is tried again and again.
#[derive(Debug)]
pub(super) struct Pauses(Duration);

impl Pauses {
    pub(super) fn new() -> Self {
        Self(PAUSE_MIN)
    }

    fn next(&mut self) -> Duration {
        let pause = self.0.mul_f64(rand::rng().random_range(0.5..=1.0));
        self.0 = (self.0 * 2).min(PAUSE_MAX);
        pause
    }
}

/// Shared by all that a migration does at once.
pub(super) struct Patience {
    progress: MigrationProgress,
    stop: watch::Sender<bool>,
    /// Who asks whether an outage is over.
    turn: Mutex<()>,
}

impl Patience {
    pub(super) fn new(progress: MigrationProgress) -> Self {
        Self { progress, stop: watch::Sender::new(false), turn: Mutex::default() }
    }

    pub(super) fn stop(&self) {
        self.stop.send_replace(true);
    }

    pub(super) fn is_stopped(&self) -> bool {
        *self.stop.borrow()
    }

    /// Ready when told to stop.
    pub(super) async fn stopped(&self) {
        // The sender is in `self`.
        let _ = self.stop.subscribe().wait_for(|stop| *stop).await;
    }

    pub(super) async fn pause(&self, pauses: &mut Pauses) -> Result<(), Stopped> {
        tokio::select! {
            () = tokio::time::sleep(pauses.next()) => Ok(()),
            () = self.stopped() => Err(Stopped),
        }
    }

    /// Waits until `probe` succeeds. One of those who wait asks, the others wait for it.
    pub(super) async fn outlive(&self, what: &str, probe: impl AsyncFn() -> Result<()>) -> Result<(), Stopped> {
        let _turn = tokio::select! {
            turn = self.turn.lock() => turn,
            () = self.stopped() => return Err(Stopped),
        };
        let mut pauses = Pauses::new();
        loop {
            let error = match probe().await {
                Ok(()) => {
                    if self.progress.waits_for(None) {
                        log::info!("the migration goes on: {what} answers");
                    }
                    return Ok(());
                }
                Err(error) => error,
            };
            if self.progress.waits_for(Some(format!("{what}: {}", error.context()))) {
                log::warn!("the migration waits for {what} error=\"{error}\"");
            }
            self.pause(&mut pauses).await?;
        }
    }

    /// Does something until it succeeds, or until waiting does not help.
    pub(super) async fn insist<T>(&self, what: &str, work: impl AsyncFn() -> Result<T>) -> Result<Result<T>, Stopped> {
        let mut pauses = Pauses::new();
        loop {
            let error = match work().await {
                Ok(done) => {
                    if self.progress.waits_for(None) {
                        log::info!("the migration goes on: {what} answers");
                    }
                    return Ok(Ok(done));
                }
                Err(error) if error.retry() == Retry::Never => return Ok(Err(error)),
                Err(error) => error,
            };
            if self.progress.waits_for(Some(format!("{what}: {}", error.context()))) {
                log::warn!("the migration waits for {what} error=\"{error}\"");
            }
            self.progress.retried();
            self.pause(&mut pauses).await?;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::model::{Error, Kind};

    fn patience() -> Patience {
        Patience::new(MigrationProgress::new("v2", "http://old".into()))
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_is_outlived_and_shown_meanwhile() {
        let patience = patience();
        let asked = AtomicU32::new(0);
        let outlived = patience.outlive("the old server", async || {
            if asked.fetch_add(1, Ordering::Relaxed) < 200 {
                return Err(Error::new(Kind::Unavailable, "no answer"));
            }
            Ok(())
        });
        let mut outlived = std::pin::pin!(outlived);
        let early = tokio::time::timeout(Duration::from_secs(60), &mut outlived).await;
        assert!(early.is_err());
        assert_eq!(patience.progress.snapshot().waits_for.as_deref(), Some("the old server: no answer"));
        assert_eq!(outlived.await, Ok(()));
        assert_eq!(patience.progress.snapshot().waits_for, None);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_is_told_to_stop() {
        let patience = patience();
        let down = async || Err::<(), _>(Error::new(Kind::Unavailable, "no answer"));
        let waits = async { (patience.outlive("it", down).await, patience.insist("it", down).await.map(|_| ())) };
        let stops = async {
            tokio::time::sleep(Duration::from_secs(3600)).await;
            patience.stop();
        };
        let (ended, ()) = tokio::join!(waits, stops);
        assert_eq!(ended, (Err(Stopped), Err(Stopped)));
        let wrong = patience.insist("it", async || Err::<(), _>(Error::new(Kind::Invalid, "no"))).await;
        assert!(matches!(wrong, Ok(Err(_))), "waiting would not help");
    }
}
