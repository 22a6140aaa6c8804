//! Removing a name.

use super::Engine;
use crate::metadata::CommitDelete;
use crate::model::{EntryKey, Result, Stamp};
use crate::store::meta::DeleteOutcome;

impl Engine {
    /// Removes a name unless its version is newer than `stamp`. One transaction: the content, if it
    /// has no other name, is left to the cleaner.
    pub async fn delete(&self, key: EntryKey, stamp: Stamp) -> Result<DeleteOutcome> {
        self.metadata(CommitDelete { key, stamp }).await
    }
}
