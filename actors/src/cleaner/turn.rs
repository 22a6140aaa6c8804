//! Being the only one that cleans.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use crate::model::{Error, Kind, Result};
use crate::store::meta::MetaStore;

/// What only one instance does at a time.
pub const TASK: &str = "clean";
/// How long the others wait for one that was killed or cut off.
const TERM: Duration = Duration::from_secs(15);
/// When the term is asked for anew: twice in vain before the others may take the turn.
const RENEW_EVERY: Duration = Duration::from_secs(5);

/// A run's turn. It only saves work: two runs at once do no harm.
#[derive(Default)]
pub(super) struct Turn {
    is_lost: AtomicBool,
    end: Notify,
}

impl Turn {
    /// Takes the turn; `None` when somebody else has it.
    pub async fn take(metadata: &dyn MetaStore, holder: &str) -> Result<Option<Self>> {
        Ok(metadata.lead(TASK, holder, TERM).await?.then(Self::default))
    }

    /// Keeps the turn while the work goes on, however long its steps take, and gives it up at the end.
    pub async fn during<T>(&self, metadata: &dyn MetaStore, holder: &str, work: impl Future<Output = T>) -> T {
        let work = async {
            let outcome = work.await;
            self.end.notify_one();
            outcome
        };
        let ((), outcome) = tokio::join!(self.keep(metadata, holder), work);
        if !self.is_lost.load(Ordering::Relaxed) {
            // Otherwise the others wait for the end of the term.
            let _ = metadata.lead(TASK, holder, Duration::ZERO).await;
        }
        outcome
    }

    async fn keep(&self, metadata: &dyn MetaStore, holder: &str) {
        loop {
            tokio::select! {
                () = self.end.notified() => return,
                () = tokio::time::sleep(RENEW_EVERY) => {}
            }
            match metadata.lead(TASK, holder, TERM).await {
                // Whoever cannot reach the database cannot clean either.
                Ok(true) | Err(_) => {}
                Ok(false) => {
                    self.is_lost.store(true, Ordering::Relaxed);
                    return;
                }
            }
        }
    }

    /// Fails when somebody else has it now; to be asked between batches.
    pub fn expect_ours(&self) -> Result<()> {
        match self.is_lost.load(Ordering::Relaxed) {
            false => Ok(()),
            true => Err(Error::new(Kind::Unavailable, "another instance cleans now")),
        }
    }
}
