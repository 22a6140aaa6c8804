//! Contents on their way out: proven right before the last piece leaves.

mod cache;
pub(crate) mod decode;
mod source;
mod verify;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, StreamExt, TryStreamExt};

pub use self::cache::CacheReading;
pub(crate) use self::cache::ContentCache;
use crate::model::{BlobKey, Entry, Error, Kind, Recipe, Result, StoredBlob};
use crate::store::blocking::BlockingPool;

pub(crate) use self::source::ContentSource;
pub(crate) use self::verify::{Expected, verified};

/// Bytes decoded at once.
const BATCH_BYTES: usize = 256 * 1024;
/// What is decoded on the caller's thread, in bytes: a thread switch would cost more.
const INLINE_BYTES_MAX: usize = 64 * 1024;

/// A content on its way out.
pub struct Download {
    /// What the name points at.
    pub entry: Entry,
    body: Body,
    pool: BlockingPool,
    damage: Damage,
}

/// What is done about reads that found a stored object missing or damaged; clones share the count.
#[derive(Clone)]
pub(crate) struct Damage {
    count: Arc<AtomicU64>,
    note: Note,
}

/// Notes one find where uploads see it.
type Note = Arc<dyn Fn(BlobKey) -> BoxFuture<'static, Result<()>> + Send + Sync>;

impl Damage {
    /// `note` tells uploads of an object, so that the next one of its content takes its place.
    pub(crate) fn new<F>(note: impl Fn(BlobKey) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        Self { count: Arc::default(), note: Arc::new(move |key| note(key).boxed()) }
    }

    /// Counts, logs and notes one find. The note is made before the client is told of the damage: when it uploads the
    /// content again, that is not taken for known. Without the note it would be, so that is logged.
    pub(crate) async fn found(&self, key: BlobKey, what: &(dyn std::fmt::Display + Sync)) {
        self.count.fetch_add(1, Ordering::Relaxed);
        log::error!("a stored object is damaged object={key} error=\"{what}\"");
        if let Err(error) = (self.note)(key).await {
            log::warn!("the damage could not be noted, an upload will not heal it yet object={key} error=\"{error}\"");
        }
    }

    /// How many were found since the start.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

/// Verified bytes, or bytes that are verified as they pass.
pub(crate) enum Body {
    Whole(Bytes),
    Stream(BoxStream<'static, Result<Bytes>>),
}

impl Body {
    fn stream(self) -> BoxStream<'static, Result<Bytes>> {
        match self {
            Self::Whole(bytes) => stream::iter([Ok(bytes)]).boxed(),
            Self::Stream(stream) => stream,
        }
    }
}

impl Download {
    /// `body` yields the stored bytes, verified.
    pub(crate) fn new(entry: Entry, body: Body, pool: BlockingPool, damage: Damage) -> Self {
        Self { entry, body, pool, damage }
    }

    /// Number of bytes of [`Download::stored`].
    pub fn stored_size(&self) -> u64 {
        match &self.entry.recipe {
            Recipe::Whole(blob) => blob.stored_size,
        }
    }

    /// The bytes as stored (gzip). The last piece comes only when all are proven right; otherwise
    /// the stream ends with an error before it.
    pub fn stored(self) -> BoxStream<'static, Result<Bytes>> {
        watched(self.body.stream(), &self.entry, self.damage)
    }

    /// All the bytes as stored, when they are in memory and proven right already.
    pub fn stored_whole(&self) -> Option<Bytes> {
        match &self.body {
            Body::Whole(bytes) => Some(bytes.clone()),
            Body::Stream(_) => None,
        }
    }

    /// The logical bytes (`entry.logical_size` of them), with the same promise.
    pub fn decoded(self) -> BoxStream<'static, Result<Bytes>> {
        let decoded = decode::decoded(self.body.stream(), self.entry.logical_size, self.pool);
        watched(decoded, &self.entry, self.damage)
    }
}

/// Sees damage where it leaves the engine: once, whichever step found it.
fn watched(
    body: BoxStream<'static, Result<Bytes>>,
    entry: &Entry,
    damage: Damage,
) -> BoxStream<'static, Result<Bytes>> {
    let Recipe::Whole(StoredBlob { key, .. }) = entry.recipe;
    let watch = move |error: Error| {
        let damage = damage.clone();
        async move {
            if error.kind() == Kind::Corrupt {
                damage.found(key, &error).await;
            }
            Err(error)
        }
    };
    body.or_else(watch).boxed()
}
