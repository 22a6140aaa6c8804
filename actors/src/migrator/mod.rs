//! Copying an old server's files into this store.
//!
//! Names are written into a journal first, all of them; then each is dealt with once: copied through the same path as an
//! upload, or left for a reason. What was done is noted in batches, so a migration that was killed goes on where it was, and
//! looks at most at the last few names again. It never replaces what is as new here, and never brings back what was
//! deleted here meanwhile: that is decided in the transaction that writes.
//!
//! [`Copier`] does it and knows no actor; `MigratorActor` runs it in a server.

mod actor;
mod attempt;
mod compare;
mod copier;
mod listing;
mod patience;
mod progress;
pub mod source;

use std::sync::Arc;

pub(crate) use actor::MigratorActor;
pub use compare::{CompareOptions, CompareProgress, CompareReport, CompareTools, Difference, DifferenceKind, compare};
pub use copier::{Copier, Ended, TERM};
pub use progress::{MigrationPhase, MigrationProgress, MigrationSnapshot};
pub use source::Source;

/// A migration that is wanted.
#[derive(Clone)]
pub struct MigrationPlan {
    /// Where files come from.
    pub source: Arc<dyn Source>,
    /// Files that are fetched at once; small ones that are being stored do not count.
    pub concurrency: usize,
    /// Who copies, among those that share the database.
    pub holder: String,
}
