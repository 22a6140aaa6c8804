//! The bytes of one request: a range of the spooled bytes, hashed and then streamed in small pieces,
//! so that an upload's memory depends neither on the object nor on the part size.

use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
#[cfg(feature = "failpoints")]
use futures_util::stream::Stream;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use reqwest::Body;
use sha2::{Digest as _, Sha256};

use super::retry::Progress;
use super::wire::EMPTY_SHA256;
use crate::model::{Error, Result};
use crate::store::blob::SpooledBytes;
use crate::store::blocking::BlockingPool;

/// How much is handed to the connection, and read from a file, at once; two reads are under way per
/// request.
const PIECE_BYTES: u64 = 256 << 10;
/// How much is hashed by one job.
const HASH_BYTES: u64 = 1 << 20;
/// How much of a file is hashed at once: it stays in the processor's cache.
const READ_BYTES: usize = 32 << 10;
/// Hashing this much is cheaper than a trip to another thread.
const INLINE_BYTES_MAX: u64 = 64 << 10;

/// A range of spooled bytes to be sent.
#[derive(Clone)]
pub(super) struct Slice {
    bytes: SpooledBytes,
    range: Range<u64>,
}

/// Keeps what went wrong while a body was read: the HTTP client only tells that it broke.
#[derive(Clone, Default)]
pub(super) struct Mishap(Arc<Mutex<Option<Error>>>);

impl Mishap {
    fn keep(&self, error: Error) -> std::io::Error {
        let told = std::io::Error::other(error.to_string());
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        told
    }

    /// What went wrong on our side, if anything.
    pub fn take(&self) -> Option<Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Slice {
    pub fn new(bytes: &SpooledBytes, range: Range<u64>) -> Self {
        Self { bytes: bytes.clone(), range }
    }

    pub fn len(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// SHA-256 of the bytes, for the signature: the server refuses what was damaged on its way.
    pub async fn sha256(&self, pool: &BlockingPool) -> Result<String> {
        if self.len() == 0 {
            return Ok(EMPTY_SHA256.to_owned());
        }
        if let Some(pieces) = self.in_memory() {
            let hash = move || Ok(hex::encode(pieces.iter().fold(Sha256::new(), Sha256::chain_update).finalize()));
            return if self.len() <= INLINE_BYTES_MAX { hash() } else { pool.run(move |_| hash()).await? };
        }
        // In steps, so that the reads of other uploads need not wait for a whole part.
        let mut hasher = Sha256::new();
        let mut at = self.range.start;
        while at < self.range.end {
            let (bytes, step) = (self.bytes.clone(), at..self.range.end.min(at + HASH_BYTES));
            at = step.end;
            hasher = pool.run(move |_| hash_step(hasher, &bytes, step)).await?.map_err(unreadable)?;
        }
        Ok(hex::encode(hasher.finalize()))
    }

    /// The ranges that are read one at a time.
    fn pieces(&self) -> impl Iterator<Item = Range<u64>> + Send + 'static {
        let Range { start, end } = self.range;
        let count = (end - start).div_ceil(PIECE_BYTES);
        (0..count).map(move |n| start + n * PIECE_BYTES..end.min(start + (n + 1) * PIECE_BYTES))
    }

    /// The bytes without a copy, when they are in memory.
    fn in_memory(&self) -> Option<Vec<Bytes>> {
        let mut at = 0;
        let mut wanted = Vec::new();
        for piece in self.bytes.memory()? {
            let len = piece.len() as u64;
            let start = self.range.start.clamp(at, at + len);
            let end = self.range.end.clamp(at, at + len);
            if start < end {
                wanted.push(piece.slice((start - at) as usize..(end - at) as usize));
            }
            at += len;
        }
        Some(wanted)
    }

    /// A request body. When sending fails, ask the [`Mishap`] first. Every piece that the connection
    /// takes is told to `progress`.
    pub fn body(&self, pool: &BlockingPool, progress: &Progress) -> (Body, Mishap) {
        let (mishap, progress) = (Mishap::default(), progress.clone());
        let body = match self.in_memory() {
            Some(mut pieces) if pieces.len() <= 1 && self.len() <= PIECE_BYTES => {
                Body::from(pieces.pop().unwrap_or_default())
            }
            // A large piece taken whole would look like no progress until its last byte is sent.
            Some(pieces) => {
                let pieces = pieces.into_iter().flat_map(cut).map(Ok::<_, std::io::Error>);
                let noted = mishap.clone();
                let pieces = stream::iter(pieces).inspect(move |_| progress.made());
                Body::wrap_stream(between(pieces, noted))
            }
            None => {
                let (bytes, pool, noted) = (self.bytes.clone(), pool.clone(), mishap.clone());
                let reads = stream::iter(self.pieces()).map(move |range| {
                    let (bytes, pool) = (bytes.clone(), pool.clone());
                    async move { pool.run(move |_| bytes.read_range(range)).await?.map_err(unreadable) }
                });
                let reads = reads.buffered(2).inspect_ok(move |_| progress.made());
                let pieces = reads.map_err({
                    let noted = noted.clone();
                    move |error| noted.keep(error)
                });
                Body::wrap_stream(between(pieces, noted))
            }
        };
        (body, mishap)
    }
}

/// The pieces, and before each but the first a crash point.
#[cfg(feature = "failpoints")]
fn between<S>(pieces: S, noted: Mishap) -> impl Stream<Item = std::io::Result<Bytes>> + Send + 'static
where
    S: Stream<Item = std::io::Result<Bytes>> + Send + 'static,
{
    use crate::failpoint::{self, Point};
    pieces.enumerate().then(move |(number, piece)| {
        let noted = noted.clone();
        async move {
            if number > 0 {
                failpoint::hit(Point::PutMidUpload).await.map_err(|error| noted.keep(error))?;
            }
            piece
        }
    })
}

#[cfg(not(feature = "failpoints"))]
fn between<S>(pieces: S, _: Mishap) -> S {
    pieces
}

/// Pieces of at most [`PIECE_BYTES`], without a copy.
fn cut(bytes: Bytes) -> impl Iterator<Item = Bytes> {
    let (len, step) = (bytes.len(), PIECE_BYTES as usize);
    (0..len).step_by(step).map(move |at| bytes.slice(at..len.min(at + step)))
}

fn hash_step(mut hasher: Sha256, bytes: &SpooledBytes, step: Range<u64>) -> std::io::Result<Sha256> {
    let (mut at, mut buffer) = (step.start, [0; READ_BYTES]);
    while at < step.end {
        let Some(file) = bytes.file() else {
            hasher.update(bytes.read_range(at..step.end)?);
            break;
        };
        let wanted = usize::try_from(step.end - at).map_or(READ_BYTES, |left| left.min(READ_BYTES));
        file.read_exact_at(&mut buffer[..wanted], at)?;
        hasher.update(&buffer[..wanted]);
        at += wanted as u64;
    }
    Ok(hasher)
}

fn unreadable(error: std::io::Error) -> Error {
    Error::io("a spooled upload cannot be read", error)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::runtime::budget::MemoryBudget;

    fn places(content: &[u8]) -> Vec<SpooledBytes> {
        let budget = MemoryBudget::new(1 << 30);
        let pieces = content.chunks(100_001).map(Bytes::copy_from_slice).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        vec![
            SpooledBytes::in_memory(pieces, budget.try_reserve(0).unwrap()),
            SpooledBytes::in_file(file, content.len() as u64),
        ]
    }

    #[tokio::test]
    async fn every_range_is_hashed_and_streamed_exactly() {
        let pool = BlockingPool::start("test", 2, 8).unwrap();
        let content: Vec<u8> = (0..3 * PIECE_BYTES + 5).map(|n| (n * 7 % 251) as u8).collect();
        let size = content.len() as u64;
        for place in places(&content) {
            for range in [0..0, 0..1, 0..size, 5..PIECE_BYTES, PIECE_BYTES..size, size - 1..size, 99_999..200_003] {
                let want = &content[range.start as usize..range.end as usize];
                let slice = Slice::new(&place, range.clone());
                assert_eq!(slice.sha256(&pool).await.unwrap(), hex::encode(Sha256::digest(want)), "{range:?}");
                let got = read(&slice, &pool).await;
                assert!(got == want, "{range:?}");
            }
        }
    }

    async fn read(slice: &Slice, pool: &BlockingPool) -> Vec<u8> {
        let (body, mishap) = slice.body(pool, &Progress::default());
        let response = reqwest::Response::from(http_response(body));
        let got = response.bytes().await.unwrap().to_vec();
        assert!(mishap.take().is_none());
        got
    }

    fn http_response(body: Body) -> http::Response<Body> {
        http::Response::new(body)
    }

    #[tokio::test]
    async fn a_file_that_ends_early_is_told_as_our_own_fault() {
        let pool = BlockingPool::start("test", 1, 8).unwrap();
        let place = SpooledBytes::in_file(tempfile::tempfile().unwrap(), 10);
        let slice = Slice::new(&place, 0..10);
        assert!(slice.sha256(&pool).await.is_err());
        let (body, mishap) = slice.body(&pool, &Progress::default());
        assert!(reqwest::Response::from(http_response(body)).bytes().await.is_err());
        assert!(mishap.take().is_some());
    }
}
