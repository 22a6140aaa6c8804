//! Another content store: a copy of the bucket, or one that several databases were split over.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::StreamExt;

use super::{Fallback, Source};
use crate::model::{BlobInfo, BlobKey, Digest, EntryKey, Error, KeyLayout, Kind, Result};
use crate::runtime::budget::MemoryBudget;
use crate::spool::{BodyEncoding, SpoolLimits, Spooler};
use crate::store::blob::{BlobStore, Spooled};
use crate::store::blocking::BlockingPool;

/// Memory for bodies.
const MEMORY_BYTES: u64 = 64 << 20;
/// Objects of one content and layout that are looked at.
const OBJECTS_MAX: usize = 100;

/// Objects of a store that is only read.
pub struct OtherStore {
    store: Arc<dyn BlobStore>,
    pool: BlockingPool,
    limits: SpoolLimits,
    budget: MemoryBudget,
}

impl OtherStore {
    /// The store; bodies are hashed on `threads` threads.
    pub fn new(store: Arc<dyn BlobStore>, limits: SpoolLimits, threads: usize) -> Result<Self> {
        let pool = BlockingPool::start("fallback", threads.max(1), 16)
            .map_err(|error| Error::new(Kind::Internal, "can't start threads").with_source(error))?;
        Ok(Self { store, pool, limits, budget: MemoryBudget::new(MEMORY_BYTES) })
    }

    /// What the object says of itself, if it says anything.
    async fn described(&self, key: &BlobKey) -> Result<Option<BlobInfo>> {
        match self.store.stat(key).await {
            Ok(info) => Ok(info),
            Err(error) if error.kind() == Kind::Corrupt => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[async_trait(?Send)]
impl Fallback for OtherStore {
    /// All its objects, of any generation and layout.
    async fn sources(&self, digest: Digest, _: &[EntryKey]) -> Result<Vec<Source>> {
        let mut sources = Vec::new();
        for depth in 0..=KeyLayout::DEPTH_MAX {
            let first = BlobKey { digest, generation: 0, layout: KeyLayout::new(depth) };
            // A beginning of the name comes right before it.
            let mut after = first.to_string();
            after.pop();
            let page = self.store.list(Some(&after), OBJECTS_MAX).await?;
            let same = page.blobs.into_iter().filter(|(key, _)| key.digest == digest && key.layout == first.layout);
            sources.extend(same.map(|(key, _)| Source::Object(key)));
        }
        Ok(sources)
    }

    async fn fetch(&self, source: &Source) -> Result<Option<Spooled>> {
        let Source::Object(key) = source else { return Ok(None) };
        let Some(mut reader) = self.store.open(key, None).await? else { return Ok(None) };
        let mut spooler = Spooler::new(BodyEncoding::Gzip, self.limits.clone(), &self.budget, self.pool.clone());
        let received = async {
            while let Some(piece) = reader.stream.next().await {
                spooler.write(piece?).await?;
            }
            spooler.finish().await
        };
        let body = match received.await {
            Ok(body) => body,
            // What it has is broken, too.
            Err(error) if matches!(error.kind(), Kind::Invalid | Kind::TooLarge | Kind::Corrupt) => return Ok(None),
            Err(error) => return Err(error),
        };
        let is_as_described = self.described(key).await?.is_none_or(|info| info == body.info());
        Ok((body.digest == key.digest && is_as_described).then_some(body))
    }
}
