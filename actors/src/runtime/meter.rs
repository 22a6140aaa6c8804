//! How long the calls to a backend take, and how many of them fail: numbers for whoever shows them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::model::{Kind, Result};

/// Upper bounds of the classes that times are counted in, in seconds.
pub const BOUNDS: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Counts calls. Those whose caller went away before the answer are not counted.
#[derive(Debug, Default)]
pub struct Meter {
    /// One for each bound, and one for what took longer.
    classes: [AtomicU64; BOUNDS.len() + 1],
    sum_micros: AtomicU64,
    errors: AtomicU64,
}

/// The counts at one moment.
#[derive(Clone, PartialEq, Debug)]
pub struct MeterReading {
    /// For each of [`BOUNDS`] the calls that took so long at most.
    pub cumulative: Vec<u64>,
    /// All calls.
    pub count: u64,
    /// The time that all took together.
    pub seconds: f64,
    /// Those that failed for a reason of the backend.
    pub errors: u64,
}

impl Meter {
    /// Makes a call and counts it.
    pub async fn measure<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        let begun = Instant::now();
        let outcome = call.await;
        self.note(begun.elapsed(), matches!(&outcome, Err(error) if is_of_the_backend(error.kind())));
        outcome
    }

    /// Counts a call.
    pub fn note(&self, took: Duration, has_failed: bool) {
        let seconds = took.as_secs_f64();
        let class = BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len());
        self.classes[class].fetch_add(1, Relaxed);
        self.sum_micros.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Relaxed);
        self.errors.fetch_add(u64::from(has_failed), Relaxed);
    }

    /// The counts now.
    pub fn reading(&self) -> MeterReading {
        let mut count = 0;
        let mut cumulative: Vec<u64> = Vec::with_capacity(self.classes.len());
        for class in &self.classes {
            count += class.load(Relaxed);
            cumulative.push(count);
        }
        cumulative.pop();
        MeterReading {
            cumulative,
            count,
            seconds: Duration::from_micros(self.sum_micros.load(Relaxed)).as_secs_f64(),
            errors: self.errors.load(Relaxed),
        }
    }
}

/// Whether it is the backend that fails, not the request or the server's own limits.
fn is_of_the_backend(kind: Kind) -> bool {
    match kind {
        Kind::Unavailable | Kind::NoSpace | Kind::Corrupt | Kind::Internal | Kind::Panicked => true,
        Kind::Invalid | Kind::TooLarge | Kind::Overloaded => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Error;

    #[tokio::test]
    async fn only_failures_of_the_backend_are_errors() {
        let meter = Meter::default();
        for kind in [Kind::Unavailable, Kind::Overloaded, Kind::Invalid, Kind::Internal] {
            assert!(meter.measure(async { Err::<(), _>(Error::new(kind, "no")) }).await.is_err());
        }
        assert_eq!(meter.measure(async { Ok(7) }).await.ok(), Some(7));
        let reading = meter.reading();
        assert_eq!((reading.count, reading.errors), (5, 2));
    }

    #[test]
    fn times_are_counted_up_to_their_bounds() {
        let meter = Meter::default();
        for millis in [0, 1, 2, 10_000, 60_000] {
            meter.note(Duration::from_millis(millis), false);
        }
        let reading = meter.reading();
        assert_eq!(reading.cumulative[..3], [1, 2, 3]);
        assert_eq!((reading.cumulative[13], reading.count, reading.errors), (4, 5, 0));
        assert!((reading.seconds - 70.003).abs() < 1e-9);
    }
}
