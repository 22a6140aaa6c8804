//! Contents on their way out: proven right before the last piece leaves.

mod cache;
mod decode;
mod source;
mod verify;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};

pub(crate) use self::cache::ContentCache;
use crate::model::{Entry, Recipe, Result};
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
    pub(crate) fn new(entry: Entry, body: Body, pool: BlockingPool) -> Self {
        Self { entry, body, pool }
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
        self.body.stream()
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
        decode::decoded(self.body.stream(), self.entry.logical_size, self.pool)
    }
}
