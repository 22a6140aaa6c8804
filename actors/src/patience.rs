//! Trying again, for work that takes hours: a restart of the database or a busy disk is not to end it.
//!
//! Requests of clients do without: they are to hear of trouble within seconds.

use std::time::Duration;

use rand::Rng;

use crate::model::{Kind, Result};

/// Pauses between attempts; half of each is chance. A failover of the database takes less than all of them.
const PAUSES: [Duration; 6] = [
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(8),
];

/// Asks until there is an answer, or until a store has not answered for half a minute. What is asked for must be fit to be
/// repeated, as all that stores offer is.
pub(crate) async fn patiently<T>(mut ask: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    for pause in PAUSES {
        match ask().await {
            Err(error) if matches!(error.kind(), Kind::Unavailable | Kind::Overloaded) => {
                log::debug!("trying again pause_ms={} error=\"{error}\"", pause.as_millis());
                tokio::time::sleep(pause.mul_f64(rand::rng().random_range(0.5..=1.0))).await;
            }
            answer => return answer,
        }
    }
    ask().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Error;

    #[tokio::test(start_paused = true)]
    async fn what_passes_is_waited_for_and_what_stays_is_told() {
        for (kind, fails, asked) in [
            (Kind::Unavailable, 3, 4),
            (Kind::Overloaded, 6, 7),
            (Kind::Unavailable, 100, 7),
            (Kind::Corrupt, 100, 1),
            (Kind::NoSpace, 100, 1),
        ] {
            let mut count = 0;
            let answer = patiently(async || {
                count += 1;
                if count > fails { Ok(()) } else { Err(Error::new(kind, "not now")) }
            });
            let answer = answer.await;
            assert_eq!(count, asked);
            assert_eq!(answer.is_ok(), fails < 7);
        }
    }
}
