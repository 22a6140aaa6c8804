//! Objects in memory, for tests.

use std::collections::BTreeMap;
use std::ops::{Bound, Range};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};

use super::{BlobPage, BlobReader, BlobStore, OWNERS_PREFIX, SpooledBytes, owner_note, owner_of};
use crate::model::{BlobInfo, BlobKey, Error, Kind, Result};

/// How much one piece of a stream holds: small, so that even small objects come in several.
const PIECE_BYTES: usize = 4096;

/// Objects by name; one that was not stored through the trait has no description.
type Objects = BTreeMap<String, (Bytes, Option<BlobInfo>)>;

/// A [`BlobStore`] that forgets everything when it is dropped.
#[derive(Debug, Default)]
pub struct MemoryStore(Mutex<Objects>);

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Stores `bytes` under a name of any kind, without a description.
    pub fn insert_raw(&self, name: &str, bytes: &[u8]) {
        self.objects().insert(name.to_owned(), (Bytes::copy_from_slice(bytes), None));
    }

    /// The names of all objects, ascending.
    pub fn names(&self) -> Vec<String> {
        self.objects().keys().cloned().collect()
    }

    fn objects(&self) -> MutexGuard<'_, Objects> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl BlobStore for MemoryStore {
    fn kind(&self) -> &'static str {
        "memory"
    }

    async fn put(&self, key: &BlobKey, body: &SpooledBytes, info: &BlobInfo) -> Result<()> {
        let unreadable = |error| Error::io("a spooled upload cannot be read", error);
        let bytes = body.read_range(0..body.len()).map_err(unreadable)?;
        self.objects().insert(key.to_string(), (bytes, Some(*info)));
        Ok(())
    }

    async fn open(&self, key: &BlobKey, range: Option<Range<u64>>) -> Result<Option<BlobReader>> {
        let Some((bytes, _)) = self.objects().get(&key.to_string()).cloned() else {
            return Ok(None);
        };
        let range = range.unwrap_or(0..bytes.len() as u64);
        if range.start > range.end || range.end > bytes.len() as u64 {
            return Err(Error::new(Kind::Corrupt, "a stored object is shorter than it should be"));
        }
        let mut rest = bytes.slice(range.start as usize..range.end as usize);
        let mut pieces = Vec::new();
        while !rest.is_empty() {
            pieces.push(Ok(rest.split_to(rest.len().min(PIECE_BYTES))));
        }
        Ok(Some(BlobReader { size: range.end - range.start, stream: stream::iter(pieces).boxed() }))
    }

    async fn stat(&self, key: &BlobKey) -> Result<Option<BlobInfo>> {
        match self.objects().get(&key.to_string()) {
            None => Ok(None),
            Some((_, Some(info))) => Ok(Some(*info)),
            Some((_, None)) => Err(Error::new(Kind::Corrupt, "a stored object does not describe itself")),
        }
    }

    async fn delete(&self, keys: &[BlobKey]) -> Result<()> {
        let mut objects = self.objects();
        keys.iter().for_each(|key| drop(objects.remove(&key.to_string())));
        Ok(())
    }

    async fn list(&self, after: Option<&str>, limit: usize) -> Result<BlobPage> {
        let objects = self.objects();
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut page = BlobPage { blobs: Vec::new(), strangers: Vec::new(), next: None };
        let names = objects.range::<str, _>((start, Bound::Unbounded));
        let mut names = names.filter(|(name, _)| owner_of(name).is_none()).peekable();
        for (name, (bytes, _)) in names.by_ref().take(limit.max(1)) {
            match name.parse() {
                Ok(key) => page.blobs.push((key, bytes.len() as u64)),
                Err(_) => page.strangers.push(name.clone()),
            }
            page.next = Some(name.clone());
        }
        if names.peek().is_none() {
            page.next = None;
        }
        Ok(page)
    }

    async fn owners(&self) -> Result<Vec<String>> {
        Ok(self.objects().keys().filter_map(|name| owner_of(name)).map(str::to_owned).collect())
    }

    async fn add_owner(&self, owner: &str) -> Result<()> {
        self.insert_raw(&format!("{OWNERS_PREFIX}{owner}"), owner_note(owner).as_bytes());
        Ok(())
    }

    async fn remove_owner(&self, owner: &str) -> Result<()> {
        self.objects().remove(&format!("{OWNERS_PREFIX}{owner}"));
        Ok(())
    }

    async fn probe(&self) -> Result<()> {
        Ok(())
    }
}
