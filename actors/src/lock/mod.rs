//! Per-content locks: of many concurrent uploads of one new content, one is done.
//!
//! Locks only save work; no loss may follow from a lost one (the metadata transactions see to
//! that). A `LockActor` lives exactly as long as somebody holds, awaits or is about to ask for
//! its lock.
//!
//! Where several instances share a database, whoever has its turn here asks for the lock among the
//! instances next ([`distributed`]): the database sees at most one request per content and instance.

mod actor;
mod directory;
pub mod distributed;

use std::time::Instant;

pub use actor::{Lease, Turn};
pub use directory::{AcquireLock, LockDirectory, LockStats};

use self::distributed::{DistributedLocks, Times};
use crate::model::{Digest, Error, Kind, Result};
use crate::runtime::behalf::Behalf;
use crate::runtime::way::Way;

/// The way to the locks.
#[derive(Clone)]
pub struct Locks {
    directory: Way<LockDirectory>,
    distributed: Option<DistributedLocks>,
}

impl Locks {
    /// Locks of this instance, and of all instances if there are several.
    pub fn new(directory: Way<LockDirectory>, distributed: Option<DistributedLocks>) -> Self {
        Self { directory, distributed }
    }

    /// Waits for the lock of a content, or for news of what its holder achieved. Nothing stays behind when
    /// the returned future is dropped.
    pub async fn acquire(&self, digest: Digest, times: Times) -> Result<Turn> {
        let deadline = times.deadline;
        let late = |_| Error::new(Kind::Unavailable, "the same content is being uploaded too slowly");
        let turn = self.directory.ask(AcquireLock { digest, behalf: Behalf::current() });
        let turn = tokio::time::timeout_at(deadline.into(), turn).await.map_err(late)??;
        match (turn, &self.distributed) {
            (Turn::Granted(lease), Some(distributed)) => {
                let key = distributed.acquire(digest, times);
                match tokio::time::timeout_at(deadline.into(), key).await.map_err(late).flatten() {
                    Ok(key) => Ok(Turn::Granted(lease.with_key(key))),
                    Err(error) => {
                        // That time is up, or too many wait, is true of this request only.
                        if Instant::now() < deadline && error.kind() != Kind::Overloaded {
                            lease.failed(&error);
                        }
                        Err(error)
                    }
                }
            }
            (turn, _) => Ok(turn),
        }
    }
}
