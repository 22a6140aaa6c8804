//! Contents on their way out: proven right before the last piece leaves.

mod cache;
pub(crate) mod decode;
mod doubt;
mod source;
mod verify;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};

pub use self::cache::CacheReading;
pub(crate) use self::cache::ContentCache;
pub(crate) use self::doubt::Damage;
use crate::model::{Entry, Error, Kind, Recipe, Result};
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
        watched(self.body.stream(), self.entry, self.damage)
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
        watched(decoded, self.entry, self.damage)
    }
}

/// Sees damage where it leaves the engine: once, whichever step found it.
fn watched(body: BoxStream<'static, Result<Bytes>>, entry: Entry, damage: Damage) -> BoxStream<'static, Result<Bytes>> {
    let watch = move |error: Error| {
        let (damage, entry) = (damage.clone(), entry.clone());
        async move {
            if error.kind() == Kind::Corrupt {
                damage.found(&entry, &error).await;
            }
            Err(error)
        }
    };
    body.or_else(watch).boxed()
}
