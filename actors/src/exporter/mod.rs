//! Exporting all names from time to time, by one instance: what brings names back when the database is lost.
//!
//! The names are read page by page, as clients read them, and written by a thread of its own: neither a slow disk nor a
//! large store keeps anybody waiting.

mod actor;
mod file;
mod stats;

use std::path::PathBuf;
use std::time::Duration;

pub(crate) use actor::{ExporterActor, ExporterPlan};
pub use stats::ExporterStats;

/// The periodic export.
#[derive(Clone, Debug)]
pub struct ExporterSettings {
    /// The pause between exports.
    pub interval: Duration,
    /// The file, replaced as a whole. With `{time}` in its name each export has a file of its own.
    pub path: PathBuf,
    /// Files that stay then.
    pub keep: usize,
}
