//! Small contents in memory. A content never changes, so nothing here can be out of date.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::model::BlobKey;

/// The largest object, in stored bytes, that is kept.
const OBJECT_BYTES_MAX: u64 = 64 * 1024;
/// What an entry costs besides its bytes, about, in bytes.
const ENTRY_BYTES: u64 = 200;

/// Stored bytes of the objects that were asked for most.
#[derive(Clone)]
pub(crate) struct ContentCache(Option<Arc<Kept>>);

struct Kept {
    contents: Cache<BlobKey, Bytes, Weight>,
    hits: AtomicU64,
    misses: AtomicU64,
}

/// How the cache does.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct CacheReading {
    /// Contents that were there when they were asked for.
    pub hits: u64,
    /// Contents that were not.
    pub misses: u64,
    /// What it holds, in bytes.
    pub bytes: u64,
    /// How many contents it holds.
    pub contents: u64,
}

#[derive(Clone)]
struct Weight;

impl Weighter<BlobKey, Bytes> for Weight {
    fn weight(&self, _: &BlobKey, bytes: &Bytes) -> u64 {
        bytes.len() as u64 + ENTRY_BYTES
    }
}

impl ContentCache {
    /// A cache of about `capacity_bytes`; 0 switches it off.
    pub(crate) fn new(capacity_bytes: u64) -> Self {
        let entries = usize::try_from(capacity_bytes / 4096).unwrap_or(usize::MAX).max(16);
        let contents = || Cache::with_weighter(entries, capacity_bytes, Weight);
        let kept = || Kept { contents: contents(), hits: AtomicU64::new(0), misses: AtomicU64::new(0) };
        Self((capacity_bytes > 0).then(|| Arc::new(kept())))
    }

    /// Whether an object of this size is worth keeping.
    pub(crate) fn wants(&self, stored_size: u64) -> bool {
        self.0.is_some() && stored_size <= OBJECT_BYTES_MAX
    }

    /// The verified bytes of an object.
    pub(crate) fn get(&self, key: &BlobKey) -> Option<Bytes> {
        let kept = self.0.as_ref()?;
        let found = kept.contents.get(key);
        let count = if found.is_some() { &kept.hits } else { &kept.misses };
        count.fetch_add(1, Relaxed);
        found
    }

    /// Keeps the verified bytes of an object.
    pub(crate) fn insert(&self, key: BlobKey, bytes: Bytes) {
        if let Some(cache) = &self.0 {
            cache.contents.insert(key, bytes);
        }
    }

    /// How it does; all zero when it is switched off.
    pub(crate) fn reading(&self) -> CacheReading {
        self.0.as_ref().map_or_else(CacheReading::default, |kept| CacheReading {
            hits: kept.hits.load(Relaxed),
            misses: kept.misses.load(Relaxed),
            bytes: kept.contents.weight(),
            contents: kept.contents.len() as u64,
        })
    }
}
