//! Objects in a bucket of an S3-compatible server.
//!
//! Invariants: an HTTP error is never a success, and absence is told only when S3 itself names it;
//! every wait has a limit; an object appears whole under its key or not at all. The keys are never
//! printed.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use s3::command::Command;

use super::{BlobPage, BlobReader, BlobStore, Deletion, SpooledBytes, StaleUploads};
use crate::model::{BlobInfo, BlobKey, Error, Kind, Result};
use crate::store::blocking::BlockingPool;

mod abandoned;
mod body;
mod describe;
mod download;
mod fault;
mod listing;
mod owners;
mod retry;
mod settings;
mod upload;
mod wire;

use retry::Patience;
pub use settings::{S3Settings, S3Timeouts};
use wire::Wire;

/// A [`BlobStore`] on S3. Cheap to clone: clones share connections.
#[derive(Clone)]
pub struct S3Store {
    wire: Arc<Wire>,
    pool: BlockingPool,
}

impl S3Store {
    /// A store on the bucket of `settings`; spooled files are read and hashed on `pool`. Sends
    /// nothing: [`BlobStore::probe`] tells whether the bucket can be used.
    pub fn new(settings: S3Settings, pool: BlockingPool) -> Result<Self> {
        Ok(Self { wire: Arc::new(Wire::new(settings)?), pool })
    }

    fn wire(&self) -> &Arc<Wire> {
        &self.wire
    }

    fn pool(&self) -> &BlockingPool {
        &self.pool
    }

    /// The object's description; `None` when S3 says that there is no such key.
    async fn head(&self, path: &str) -> Result<Option<BlobInfo>> {
        let attempt = || self.wire.send(path, Command::HeadObject);
        match Patience::small(&self.wire.settings().timeouts).run(attempt).await {
            Ok(response) => describe::from_headers(response.headers()).map(Some),
            Err(fault) if fault.refusal().is_some_and(|refusal| refusal.status == 404) => {
                // Without a body this may as well be a missing bucket, or no S3 server at all.
                self.list_names(None, 1).await?;
                Ok(None)
            }
            Err(fault) => Err(fault.into_error(&format!("head {path}"))),
        }
    }
}

impl fmt::Debug for S3Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("S3Store").field(self.wire.settings()).finish()
    }
}

#[async_trait]
impl BlobStore for S3Store {
    fn kind(&self) -> &'static str {
        "s3"
    }

    async fn put(&self, key: &BlobKey, body: &SpooledBytes, info: &BlobInfo) -> Result<()> {
        self.put_late(Duration::ZERO, key, body, info).await
    }

    async fn put_late(&self, waited: Duration, key: &BlobKey, body: &SpooledBytes, info: &BlobInfo) -> Result<()> {
        if info.stored_size != body.len() || info.digest != key.digest {
            return Err(Error::new(Kind::Internal, "an object and its description do not match"));
        }
        if body.len() <= self.wire.settings().part_size {
            self.put_whole(waited, &key.to_string(), body, info).await
        } else {
            self.put_parts(key, body, info).await
        }
    }

    async fn open(&self, key: &BlobKey, range: Option<Range<u64>>) -> Result<Option<BlobReader>> {
        self.open_object(&key.to_string(), range).await
    }

    async fn stat(&self, key: &BlobKey) -> Result<Option<BlobInfo>> {
        self.head(&key.to_string()).await
    }

    async fn delete(&self, keys: &[BlobKey]) -> Result<()> {
        self.delete_each(keys).await?.complete()
    }

    async fn delete_each(&self, keys: &[BlobKey]) -> Result<Deletion> {
        let mut deletion = Deletion::default();
        for batch in keys.chunks(listing::BATCH_MAX) {
            self.delete_batch(batch, &mut deletion).await?;
        }
        Ok(deletion)
    }

    async fn list(&self, after: Option<&str>, limit: usize) -> Result<BlobPage> {
        self.list_names(after, limit).await
    }

    async fn abort_stale_uploads(&self, stale: StaleUploads<'_>) -> Result<u64> {
        self.abort_abandoned(stale).await
    }

    async fn owners(&self) -> Result<Vec<String>> {
        self.list_owners().await
    }

    async fn add_owner(&self, owner: &str) -> Result<()> {
        self.put_owner(owner).await
    }

    async fn remove_owner(&self, owner: &str) -> Result<()> {
        self.delete_owner(owner).await
    }

    async fn probe(&self) -> Result<()> {
        self.list_names(None, 1).await.map(drop)
    }
}
