//! What is to be cleaned, a batch at a time: a dry run and a run go through the same plan.

use super::CleanerLimits;
use super::report::CleanReport;
use crate::model::{BlobKey, Digest, Result, Stamp};
use crate::store::meta::{IntentId, MetaStore, OldIntent, UnusedContent, UnusedPage};

/// Objects that are dealt with together.
pub(super) enum Batch {
    /// What an earlier run condemned: to be deleted and forgotten.
    Condemned(Vec<BlobKey>),
    /// Abandoned uploads.
    Intents(Vec<OldIntent>),
    /// Contents without a reference.
    Unused(Vec<UnusedContent>),
}

impl Batch {
    fn len(&self) -> usize {
        match self {
            Self::Condemned(keys) => keys.len(),
            Self::Intents(intents) => intents.len(),
            Self::Unused(contents) => contents.len(),
        }
    }

    /// Notes what is planned.
    pub fn count(&self, report: &mut CleanReport) {
        let count = self.len() as u64;
        match self {
            Self::Condemned(_) => report.condemned.plan(count, 0),
            Self::Intents(_) => report.intents.plan(count, 0),
            Self::Unused(contents) => {
                report.unused.plan(count, contents.iter().map(|content| content.stored_size).sum());
            }
        }
    }
}

/// A kind of objects.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum What {
    Condemned,
    Intents,
    Unused,
}

/// Where the plan stands. Each stage goes on from a place in an order that deleting does not change.
#[derive(Clone, Copy)]
enum Stage {
    Condemned(Option<BlobKey>),
    Intents(Option<IntentId>),
    Unused(Option<(Stamp, Digest)>),
    End,
}

/// The plan of a run; it holds one batch at a time.
pub(super) struct Planner {
    stage: Stage,
    batch_size: usize,
    left: u64,
    is_cut: bool,
    settle: bool,
    /// What lost its last reference then or earlier.
    pub unused_since: Stamp,
    /// What was begun then or earlier.
    pub made_before: Stamp,
}

impl Planner {
    pub fn new(limits: &CleanerLimits, now: Stamp, dry_run: bool) -> Self {
        let before = |age: std::time::Duration| {
            let age = i64::try_from(age.as_secs()).unwrap_or(i64::MAX);
            Stamp::from_seconds(now.seconds().saturating_sub(age))
        };
        Self {
            stage: Stage::Condemned(None),
            batch_size: limits.batch_size.max(1),
            left: limits.deletes_max,
            is_cut: false,
            settle: !dry_run,
            unused_since: before(limits.grace),
            made_before: before(limits.intent_age),
        }
    }

    /// How many more objects the run may delete.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// Whether the limit left something undone.
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// Objects that were planned and are still there do not count against the limit.
    pub fn give_back(&mut self, kept: u64) {
        self.left = self.left.saturating_add(kept);
        self.is_cut &= self.left == 0;
    }

    /// Plans no more of this kind.
    pub fn leave(&mut self, what: What) {
        let is_there = matches!(
            (&self.stage, what),
            (Stage::Condemned(_), What::Condemned)
                | (Stage::Intents(_), What::Intents)
                | (Stage::Unused(_), What::Unused)
        );
        if is_there {
            self.next_stage();
        }
    }

    fn next_stage(&mut self) {
        self.stage = match self.stage {
            Stage::Condemned(_) => Stage::Intents(None),
            Stage::Intents(_) => Stage::Unused(None),
            Stage::Unused(_) | Stage::End => Stage::End,
        };
    }

    /// The next batch; `None` at the end.
    pub async fn next(&mut self, metadata: &dyn MetaStore) -> Result<Option<Batch>> {
        while !self.is_cut {
            // With nothing left, one row tells whether there would have been more.
            let rows = self.batch_size.min(usize::try_from(self.left).unwrap_or(usize::MAX)).max(1);
            let before = self.stage;
            let Some(batch) = self.page(metadata, rows).await? else { return Ok(None) };
            if batch.len() == 0 {
                self.next_stage();
            } else if self.left == 0 {
                // What was seen is still to be planned, should room be given back.
                self.stage = before;
                self.is_cut = true;
            } else {
                self.left = self.left.saturating_sub(batch.len() as u64);
                return Ok(Some(batch));
            }
        }
        Ok(None)
    }

    async fn page(&mut self, metadata: &dyn MetaStore, rows: usize) -> Result<Option<Batch>> {
        Ok(Some(match &mut self.stage {
            Stage::Condemned(after) => {
                let keys = metadata.list_condemned(*after, rows).await?;
                *after = keys.last().copied().or(*after);
                Batch::Condemned(keys)
            }
            Stage::Intents(after) => {
                let intents = metadata.list_intents(self.made_before, *after, rows).await?;
                *after = intents.last().map(|intent| intent.id).or(*after);
                Batch::Intents(intents)
            }
            Stage::Unused(after) => {
                let page = UnusedPage { unused_since: self.unused_since, after: *after, rows, settle: self.settle };
                let contents = metadata.list_unused(page).await?;
                *after = contents.last().map(|content| (content.unused_since, content.digest)).or(*after);
                Batch::Unused(contents)
            }
            Stage::End => return Ok(None),
        }))
    }
}
