//! Reading no faster than is wanted.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Unused time is not saved up past this, so that a pause is not followed by a burst.
const BURST: Duration = Duration::from_millis(250);

/// A bound on bytes per second that several readers share.
#[derive(Debug, Default)]
pub struct Pace(Option<Bound>);

#[derive(Debug)]
struct Bound {
    bytes_per_second: f64,
    /// When the bytes taken so far are paid for.
    paid: Mutex<Option<Instant>>,
}

impl Pace {
    /// No bound.
    pub fn unbounded() -> Self {
        Self(None)
    }

    /// At most so many bytes per second.
    pub fn bytes_per_second(bytes: f64) -> Self {
        Self(Some(Bound { bytes_per_second: bytes.max(1.0), paid: Mutex::new(None) }))
    }

    /// Waits until `bytes` more may have been read.
    pub async fn take(&self, bytes: usize) {
        let Some(bound) = &self.0 else { return };
        let now = Instant::now();
        let due = {
            let mut paid = bound.paid.lock().unwrap_or_else(PoisonError::into_inner);
            let start = paid.map_or(now, |paid| paid.max(now.checked_sub(BURST).unwrap_or(now)));
            let due = start + Duration::from_secs_f64(bytes as f64 / bound.bytes_per_second);
            *paid = Some(due);
            due
        };
        if due > now {
            tokio::time::sleep_until(due).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn readers_share_the_pace() {
        let pace = Pace::bytes_per_second(1000.0);
        let begun = Instant::now();
        let take = async || {
            for _ in 0..10 {
                pace.take(500).await;
            }
        };
        futures_util::future::join(take(), take()).await;
        let seconds = begun.elapsed().as_secs_f64();
        assert!((9.5..=10.5).contains(&seconds), "{seconds}");
        let begun = Instant::now();
        Pace::unbounded().take(1 << 40).await;
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }
}
