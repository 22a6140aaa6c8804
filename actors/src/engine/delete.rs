//! Removing a name.

use super::Engine;
use crate::failpoint::{self, Point};
use crate::metadata::{CommitDelete, CommitDeleteBeside};
use crate::model::{EntryKey, Result, Stamp};
use crate::store::meta::DeleteOutcome;

impl Engine {
    /// Removes a name unless its version is newer than `stamp`. One transaction: the content, if it
    /// has no other name, is left to the cleaner.
    ///
    /// With an old server beside this store the name is removed there, too; see the module `beside`.
    pub async fn delete(&self, key: EntryKey, stamp: Stamp) -> Result<DeleteOutcome> {
        failpoint::hit(Point::DeleteBeforeCommit).await?;
        let Some(beside) = self.beside() else {
            let outcome = self.metadata(CommitDelete { key, stamp }).await?;
            failpoint::hit(Point::DeleteAfterCommit).await?;
            return Ok(outcome);
        };
        let there = beside.look(&key).await;
        let outcome = self.metadata(CommitDeleteBeside { key: key.clone(), stamp }).await?;
        failpoint::hit(Point::DeleteAfterCommit).await?;
        if !matches!(outcome, DeleteOutcome::Stale { .. }) {
            beside.tell_soon(self, &key, there.is_ok()).await;
        }
        Ok(match (outcome, there) {
            (DeleteOutcome::Absent, Ok(Some(there))) if there.stamp > stamp && !there.is_young => {
                DeleteOutcome::Stale { current: there.stamp }
            }
            // When it is not known whether the old server has it: the deletion is noted, and reaches it.
            (DeleteOutcome::Absent, Ok(Some(_)) | Err(_)) => DeleteOutcome::Deleted,
            (outcome, _) => outcome,
        })
    }
}
