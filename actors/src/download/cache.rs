//! Small contents in memory. A content never changes, so nothing here can be out of date.

use std::sync::Arc;

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
pub(crate) struct ContentCache(Option<Arc<Cache<BlobKey, Bytes, Weight>>>);

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
        Self((capacity_bytes > 0).then(|| Arc::new(Cache::with_weighter(entries, capacity_bytes, Weight))))
    }

    /// Whether an object of this size is worth keeping.
    pub(crate) fn wants(&self, stored_size: u64) -> bool {
        self.0.is_some() && stored_size <= OBJECT_BYTES_MAX
    }

    /// The verified bytes of an object.
    pub(crate) fn get(&self, key: &BlobKey) -> Option<Bytes> {
        self.0.as_ref()?.get(key)
    }

    /// Keeps the verified bytes of an object.
    pub(crate) fn insert(&self, key: BlobKey, bytes: Bytes) {
        if let Some(cache) = &self.0 {
            cache.insert(key, bytes);
        }
    }
}
