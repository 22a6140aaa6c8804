//! Content stores: immutable objects under [`BlobKey`] names.

use std::ops::Range;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;

use crate::model::{BlobInfo, BlobKey, Error, Result, Stamp};

mod folder;
#[cfg(any(test, feature = "testkit"))]
mod memory;
mod s3;
mod spooled;

pub use folder::{FolderSettings, FolderStore};
#[cfg(any(test, feature = "testkit"))]
pub use memory::MemoryStore;
pub use s3::{S3Settings, S3Store, S3Timeouts};
pub use spooled::{Spooled, SpooledBytes};

/// Where the marks of the owners are: `s3dedup-database/<number>`. They are neither ours nor strangers in listings.
const OWNERS_PREFIX: &str = "s3dedup-database/";

/// What a mark says to people who find it.
fn owner_note(owner: &str) -> String {
    format!(
        "The contents here belong to the s3dedup database {owner}. Without this mark another one could take them.\n"
    )
}

/// The number of a mark.
fn owner_of(name: &str) -> Option<&str> {
    let owner = name.strip_prefix(OWNERS_PREFIX)?;
    (!owner.is_empty() && owner.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(owner)
}

/// An open object.
pub struct BlobReader {
    /// The number of bytes that [`BlobReader::stream`] will yield.
    pub size: u64,
    /// The bytes, in pieces of the store's choice. A stream that ends early or breaks is an `Err`.
    pub stream: BoxStream<'static, Result<Bytes>>,
}

/// One page of a listing.
#[derive(Debug)]
pub struct BlobPage {
    /// Objects with our kind of name, ascending by name, with their sizes in bytes.
    pub blobs: Vec<(BlobKey, u64)>,
    /// Names that are not ours.
    pub strangers: Vec<String>,
    /// Where the next page starts; `None` after the last one.
    pub next: Option<String>,
}

/// What became of a deletion.
#[derive(Default, Debug)]
pub struct Deletion {
    /// Objects that the store would not delete: they may be held, or be broken files. All others are gone.
    pub kept: Vec<BlobKey>,
    /// Why the first of them was kept.
    pub reason: Option<Error>,
}

impl Deletion {
    /// Notes an object that was kept.
    pub fn keep(&mut self, key: BlobKey, reason: impl FnOnce() -> Error) {
        self.kept.push(key);
        self.reason.get_or_insert_with(reason);
    }

    /// An error unless everything is gone.
    pub fn complete(self) -> Result<()> {
        self.reason.map_or(Ok(()), Err)
    }
}

/// Which unfinished uploads to end.
#[derive(Clone, Copy)]
pub struct StaleUploads<'a> {
    /// Those that were begun then or earlier.
    pub begun_before: Stamp,
    /// They are only counted.
    pub dry_run: bool,
    /// Requests at once.
    pub concurrency: usize,
    /// Asked before each; when it says so, the rest is left for another time.
    pub is_stopped: &'a (dyn Fn() -> bool + Sync),
}

/// A store of immutable objects.
///
/// Every implementation passes the contract suite in `testkit::blob_contract`. Absence is told by
/// `None`; every other trouble is an `Err`, so an outage never looks like absence.
#[async_trait]
pub trait BlobStore: Send + Sync + 'static {
    /// The kind of store, for logs: "folder", "s3".
    fn kind(&self) -> &'static str;

    /// Stores all of `body` under `key` together with `info`, durably when it returns.
    ///
    /// A repeated call with the same key and bytes succeeds. A failed or cancelled call leaves
    /// either no object or the whole object, never part of one under `key`.
    async fn put(&self, key: &BlobKey, body: &SpooledBytes, info: &BlobInfo) -> Result<()>;

    /// Like [`put`](Self::put) for a client that has waited for an uploader: a store that does not answer is given up so
    /// much sooner.
    async fn put_late(&self, _waited: Duration, key: &BlobKey, body: &SpooledBytes, info: &BlobInfo) -> Result<()> {
        self.put(key, body, info).await
    }

    /// Opens an object, or the bytes `range` of it (end exclusive, inside the object); `None` when
    /// there is no such object.
    async fn open(&self, key: &BlobKey, range: Option<Range<u64>>) -> Result<Option<BlobReader>>;

    /// What the object says of itself; `None` when there is no such object. An object whose own
    /// description is missing or unreadable is [`Kind::Corrupt`](crate::model::Kind::Corrupt).
    async fn stat(&self, key: &BlobKey) -> Result<Option<BlobInfo>>;

    /// Deletes objects; absent ones are fine. When any of them cannot be deleted, that is an error.
    async fn delete(&self, keys: &[BlobKey]) -> Result<()>;

    /// Deletes those of the objects that can be deleted, and tells which can not. An error is one of the store, and says
    /// nothing of any object.
    async fn delete_each(&self, keys: &[BlobKey]) -> Result<Deletion> {
        self.delete(keys).await.map(|()| Deletion::default())
    }

    /// Lists up to `limit` objects after the name `after`, ascending.
    async fn list(&self, after: Option<&str>, limit: usize) -> Result<BlobPage>;

    /// Ends uploads of objects of ours that were begun some time ago and never finished, where a store keeps what came of
    /// them until it is told to. Returns how many; never touches an object.
    async fn abort_stale_uploads(&self, _stale: StaleUploads<'_>) -> Result<u64> {
        Ok(0)
    }

    /// The databases that say the contents are theirs: one, unless something is wrong; none with a new store. See
    /// [`crate::store::tie`].
    async fn owners(&self) -> Result<Vec<String>>;

    /// Lets a database be an owner, durably. Its number is of hexadecimal digits.
    async fn add_owner(&self, owner: &str) -> Result<()>;

    /// The opposite; fine when it is none.
    async fn remove_owner(&self, owner: &str) -> Result<()>;

    /// Cheap proof that the store can be reached and used.
    async fn probe(&self) -> Result<()>;
}
