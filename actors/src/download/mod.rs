//! Contents on their way out: proven right before the last piece leaves.

mod cache;
pub(crate) mod decode;
mod source;
mod verify;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};

pub use self::cache::CacheReading;
pub(crate) use self::cache::ContentCache;
use crate::model::{Entry, Error, Kind, Recipe, Result, StoredBlob};
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

/// Counts reads that found a stored object missing or damaged; clones share the count.
#[derive(Clone, Default)]
pub(crate) struct Damage(Arc<AtomicU64>);

impl Damage {
    /// Counts and logs one find; `object` says where.
    pub(crate) fn found(&self, object: &dyn std::fmt::Display, what: &dyn std::fmt::Display) {
        self.0.fetch_add(1, Ordering::Relaxed);
        log::error!("a stored object is damaged object={object} error=\"{what}\"");
    }

    /// How many were found since the start.
    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
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

/// Counts damage where it leaves the engine: once, whichever step found it.
fn watched(
    body: BoxStream<'static, Result<Bytes>>,
    entry: &Entry,
    damage: Damage,
) -> BoxStream<'static, Result<Bytes>> {
    let Recipe::Whole(StoredBlob { key, .. }) = entry.recipe;
    let watch = move |error: &Error| {
        if error.kind() == Kind::Corrupt {
            damage.found(&key, error);
        }
    };
    body.inspect_err(watch).boxed()
}
