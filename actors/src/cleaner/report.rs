//! What a run found and did.

use crate::model::Error;

/// The first names of each kind that are kept.
const FIRST_MAX: usize = 10;

/// Objects of one kind.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Tally {
    /// Those that were to be deleted.
    pub planned: u64,
    /// Their sizes, where they are known.
    pub planned_bytes: u64,
    /// Those that were deleted and forgotten. Fewer when something needed them again in between.
    pub done: u64,
    /// Their sizes, where they are known.
    pub done_bytes: u64,
}

/// What a run found and did. A dry run finds the same and does nothing.
#[derive(Default, Debug)]
pub struct CleanReport {
    /// Objects that an earlier run condemned.
    pub condemned: Tally,
    /// Objects of abandoned uploads, whether or not the upload came to make one.
    pub intents: Tally,
    /// Contents without a reference.
    pub unused: Tally,
    /// Uploads in parts that were abandoned before they became an object: found, and ended. They are no objects and
    /// count against no limit.
    pub parts: Tally,
    /// What the full scan found, if there was one.
    pub scan: Option<ScanReport>,
    /// There is more to do: the limit was reached, or the run was stopped.
    pub is_partial: bool,
    /// Condemned objects that the content store would not delete. They are tried again by every run.
    pub kept: u64,
    /// Batches that failed, and the failure that ended the run.
    pub errors: u64,
    /// The first of these, or why the first object was kept.
    pub first_error: Option<Error>,
}

/// Names and sizes of what should not be.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Findings {
    /// How many.
    pub count: u64,
    /// Their sizes together, in bytes.
    pub bytes: u64,
    /// The first few.
    pub first: Vec<String>,
}

/// What the full scan found.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct ScanReport {
    /// Objects with our kind of name.
    pub objects: u64,
    /// Their sizes together, in bytes.
    pub object_bytes: u64,
    /// Contents that the metadata store knows.
    pub contents: u64,
    /// Objects that nothing is known of.
    pub orphans: Findings,
    /// Of these, those that were to be deleted, and those that were.
    pub orphans_deleted: Tally,
    /// Of the orphans, those that were to be deleted and stay: their content has no other object that looks whole.
    pub orphans_kept: Findings,
    /// Contents whose object is missing.
    pub missing: Findings,
    /// Contents whose object has another size than the one that is recorded.
    pub wrong_size: Findings,
    /// Rows of contents that cannot be read: where they are, and why. Their objects are not compared.
    pub unreadable: Findings,
    /// Names that are not ours. They are never touched.
    pub strangers: Findings,
}

impl Tally {
    pub(super) fn plan(&mut self, count: u64, bytes: u64) {
        self.planned += count;
        self.planned_bytes += bytes;
    }

    pub(super) fn done(&mut self, count: u64, bytes: u64) {
        self.done += count;
        self.done_bytes += bytes;
    }
}

impl Findings {
    pub(super) fn add(&mut self, name: impl ToString, bytes: u64) {
        self.count += 1;
        self.bytes += bytes;
        if self.first.len() < FIRST_MAX {
            self.first.push(name.to_string());
        }
    }
}

impl ScanReport {
    /// Whether the stores agree.
    pub fn is_whole(&self) -> bool {
        [&self.missing, &self.wrong_size, &self.unreadable].iter().all(|found| found.count == 0)
    }
}

impl CleanReport {
    /// What was to be deleted, by kind.
    pub fn plan(&self) -> [(u64, u64); 4] {
        let orphans = self.scan.as_ref().map(|scan| scan.orphans_deleted).unwrap_or_default();
        [self.condemned, self.intents, self.unused, orphans].map(|tally| (tally.planned, tally.planned_bytes))
    }

    /// Objects that were to be deleted.
    pub fn planned(&self) -> u64 {
        self.plan().iter().map(|(count, _)| count).sum()
    }

    /// Objects that were deleted.
    pub fn deleted(&self) -> u64 {
        self.tallies().map(|tally| tally.done).iter().sum()
    }

    /// Their sizes, where they are known.
    pub fn freed_bytes(&self) -> u64 {
        self.tallies().map(|tally| tally.done_bytes).iter().sum()
    }

    fn tallies(&self) -> [Tally; 4] {
        let orphans = self.scan.as_ref().map(|scan| scan.orphans_deleted).unwrap_or_default();
        [self.condemned, self.intents, self.unused, orphans]
    }

    pub(super) fn keep(&mut self, kept: u64, reason: Option<Error>) {
        self.kept += kept;
        self.is_partial |= kept > 0;
        if let Some(reason) = reason {
            self.first_error.get_or_insert(reason);
        }
    }

    pub(super) fn fail(&mut self, error: Error) {
        self.errors += 1;
        self.is_partial = true;
        self.first_error.get_or_insert(error);
    }
}
