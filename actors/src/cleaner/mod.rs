//! Cleaning: what nothing refers to leaves the stores, and what should be there is looked for.
//!
//! Three steps, each of which may be repeated: *condemn* (a transaction that checks again that nobody needs the
//! object; from then on no upload shares it), *delete* from the content store, *forget*. A crash between any two leaves
//! a condemned object, which the next run begins with.
//!
//! What protects a reader is the grace alone: it was told the object's name while the content had a reference, and the
//! object stays for the grace after the last one was lost. A writer is protected by the transactions: whoever refers to
//! a content does so before it is condemned, or finds it unknown and uploads it under another name.

mod actor;
mod plan;
mod report;
mod run;
mod scan;
mod schedule;
mod stats;
mod turn;

use std::time::Duration;

pub use actor::CleanerSettings;
pub(crate) use actor::{CleanerActor, CleanerPlan};
pub use report::{CleanReport, Findings, ScanReport, Tally};
pub use run::{CleanOptions, Cleaner};
pub use schedule::{Schedule, WrongSchedule};
pub use stats::{CleanerStats, Progress};
pub use turn::TASK;

/// An upload that was begun this long ago, at least, is taken for abandoned: the largest ones have hours to get through.
const INTENT_AGE_MIN: Duration = Duration::from_secs(24 * 3600);

/// How much one run may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CleanerLimits {
    /// Objects that are condemned, deleted and forgotten together; no more than the content store deletes by one request.
    pub batch_size: usize,
    /// Objects that one run deletes, at most.
    pub deletes_max: u64,
    /// Batches that are dealt with at once.
    pub concurrency: usize,
    /// How long a content stays after it lost its last reference.
    pub grace: Duration,
    /// How old an upload must be to be taken for abandoned. One that goes on nevertheless is told so at its end, and done
    /// again.
    pub intent_age: Duration,
}

impl CleanerLimits {
    /// The age of abandoned uploads that goes with a grace.
    pub fn intent_age(grace: Duration) -> Duration {
        grace.max(INTENT_AGE_MIN)
    }
}

impl Default for CleanerLimits {
    fn default() -> Self {
        let grace = Duration::from_secs(3600);
        let intent_age = Self::intent_age(grace);
        Self { batch_size: 1000, deletes_max: 10_000, concurrency: 8, grace, intent_age }
    }
}
