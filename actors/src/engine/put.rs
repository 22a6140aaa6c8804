//! Storing a content under a name.

use std::time::Duration;

use super::{Engine, gone};
use crate::lock::{AcquireLock, Lease, Turn};
use crate::model::{BlobKey, EntryKey, Error, Kind, Result, Stamp, StoredBlob};
use crate::store::blob::Spooled;
use crate::store::meta::{CommitPut, IntentId, PlanPut, PutCommit, PutPlan};
use crate::upload::UploadBlob;

/// How long a request waits for another one that uploads the same content.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(300);

/// How often a put starts anew because the content changed hands under it.
const ROUNDS_MAX: usize = 4;

/// The answer to [`Engine::put`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PutOutcome {
    /// The name holds the content in the wanted version, durably.
    Stored,
    /// A newer version was there and stays.
    Stale {
        /// The version that stays.
        current: Stamp,
    },
}

impl Engine {
    /// Lets a name hold a content; newest wins. Durable when it returns.
    ///
    /// A known content takes one transaction and no lock; an unknown one is uploaded by whoever
    /// gets its lock, and all who wait for the lock share the result.
    pub async fn put(&self, key: EntryKey, stamp: Stamp, body: Spooled) -> Result<PutOutcome> {
        let put = Put { key, stamp, body };
        for _ in 0..ROUNDS_MAX {
            let outcome = match self.metadata(put.plan(None)).await? {
                PutPlan::Missing => self.put_unknown(&put).await?,
                plan => Some(settled(plan)?),
            };
            if let Some(outcome) = outcome {
                return Ok(outcome);
            }
        }
        Err(Error::new(Kind::Unavailable, "the content changed hands too often"))
    }

    /// Uploads an unknown content under its lock; `None` when the caller is to plan anew.
    async fn put_unknown(&self, put: &Put) -> Result<Option<PutOutcome>> {
        let lease = match self.acquire(put).await? {
            Turn::Granted(lease) => lease,
            Turn::Stored => return Ok(None),
            Turn::Failed { context } => return Err(Error::new(Kind::Unavailable, context)),
        };
        match self.metadata(put.plan(Some(self.inner.intent.clone()))).await? {
            PutPlan::Upload { intent, key } => self.upload(put, intent, key, lease).await,
            plan => {
                lease.content_is_stored();
                settled(plan).map(Some)
            }
        }
    }

    async fn acquire(&self, put: &Put) -> Result<Turn> {
        let late = |_| Error::new(Kind::Unavailable, "the same content is being uploaded too slowly");
        let turn = self.inner.locks.send(AcquireLock { digest: put.body.digest });
        tokio::time::timeout(LOCK_WAIT_MAX, turn).await.map_err(late)?.map_err(gone)?
    }

    async fn upload(&self, put: &Put, intent: IntentId, key: BlobKey, lease: Lease) -> Result<Option<PutOutcome>> {
        let upload = UploadBlob { key, body: put.body.bytes.clone(), info: put.body.info() };
        if let Err(error) = self.inner.uploads.send(upload).await.map_err(gone)? {
            // The intent stays: the object may exist, and the cleaner finds it by the intent.
            if error.kind() == Kind::Unavailable {
                lease.store_is_down(error.context());
            }
            return Err(error);
        }
        let commit = match self.metadata(put.commit(intent, key)).await {
            Err(error) if error.kind() == Kind::Unavailable => {
                lease.store_is_down(error.context());
                return Err(error);
            }
            commit => commit?,
        };
        match commit {
            PutCommit::IntentLost => Ok(None),
            PutCommit::Committed => {
                lease.content_is_stored();
                self.remember(put, key);
                Ok(Some(PutOutcome::Stored))
            }
            PutCommit::Stale { current } => {
                lease.content_is_stored();
                Ok(Some(PutOutcome::Stale { current }))
            }
        }
    }

    /// A content is often read soon after it was stored: small ones are kept ready.
    fn remember(&self, put: &Put, key: BlobKey) {
        let bytes = &put.body.bytes;
        if self.inner.cache.wants(bytes.len())
            && bytes.memory().is_some()
            && let Ok(bytes) = bytes.read_range(0..bytes.len())
        {
            self.inner.cache.insert(key, bytes);
        }
    }
}

/// One request's wish.
struct Put {
    key: EntryKey,
    stamp: Stamp,
    body: Spooled,
}

impl Put {
    fn plan(&self, intent: Option<crate::store::meta::NewIntent>) -> PlanPut {
        let (key, stamp) = (self.key.clone(), self.stamp);
        PlanPut { key, stamp, digest: self.body.digest, logical_size: self.body.logical_size, intent }
    }

    fn commit(&self, intent: IntentId, key: BlobKey) -> CommitPut {
        let blob = StoredBlob {
            key,
            encoding: self.body.encoding,
            stored_size: self.body.bytes.len(),
            stored_hash: self.body.stored_hash,
        };
        let logical_size = self.body.logical_size;
        CommitPut { key: self.key.clone(), stamp: self.stamp, logical_size, intent, blob }
    }
}

/// The outcome of a plan that needs no upload.
fn settled(plan: PutPlan) -> Result<PutOutcome> {
    match plan {
        PutPlan::Committed => Ok(PutOutcome::Stored),
        PutPlan::Stale { current } => Ok(PutOutcome::Stale { current }),
        PutPlan::Missing | PutPlan::Upload { .. } => Err(Error::new(Kind::Internal, "internal error")),
    }
}
