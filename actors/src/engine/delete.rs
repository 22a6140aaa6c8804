//! Removing a name.

use super::Engine;
use crate::failpoint::{self, Point};
use crate::metadata::CommitDelete;
use crate::model::{EntryKey, Result, Stamp};
use crate::store::meta::DeleteOutcome;

impl Engine {
    /// Removes a name unless its version is newer than `stamp`. One transaction: the content, if it
    /// has no other name, is left to the cleaner.
    pub async fn delete(&self, key: EntryKey, stamp: Stamp) -> Result<DeleteOutcome> {
        failpoint::hit(Point::DeleteBeforeCommit).await?;
        let outcome = self.metadata(CommitDelete { key, stamp }).await?;
        failpoint::hit(Point::DeleteAfterCommit).await?;
        Ok(outcome)
    }
}
