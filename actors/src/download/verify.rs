//! Checking stored bytes as they pass.

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};

use super::{BATCH_BYTES, INLINE_BYTES_MAX};
use crate::model::{BlobHash, Error, Kind, Result, StoredBlob};
use crate::store::blocking::{BlockingPool, Running};

/// What the bytes have to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected {
    pub(crate) size: u64,
    pub(crate) hash: BlobHash,
}

impl From<&StoredBlob> for Expected {
    fn from(blob: &StoredBlob) -> Self {
        Self { size: blob.stored_size, hash: blob.stored_hash }
    }
}

struct Check {
    input: BoxStream<'static, Result<Bytes>>,
    expected: Expected,
    pool: BlockingPool,
    hasher: Hashing,
    seen: u64,
    /// Bytes that are being hashed; they leave when the next batch has arrived.
    held: Vec<Bytes>,
    /// Bytes that may leave.
    ready: std::vec::IntoIter<Bytes>,
    is_done: bool,
}

/// The hasher, here or on its way through a thread.
enum Hashing {
    Here(Box<blake3::Hasher>),
    Away(Running<Box<blake3::Hasher>>),
    Gone,
}

/// Passes `input` on, one batch late: the last batch leaves only when size and hash are as
/// expected. Otherwise the stream ends with [`Kind::Corrupt`] before it.
pub(crate) fn verified(
    input: BoxStream<'static, Result<Bytes>>,
    expected: Expected,
    pool: BlockingPool,
) -> BoxStream<'static, Result<Bytes>> {
    let check = Check {
        input,
        expected,
        pool,
        hasher: Hashing::Here(Box::default()),
        seen: 0,
        held: Vec::new(),
        ready: Vec::new().into_iter(),
        is_done: false,
    };
    stream::try_unfold(check, |mut check| async move {
        loop {
            if let Some(piece) = check.ready.next() {
                return Ok(Some((piece, check)));
            }
            if check.is_done {
                return Ok(None);
            }
            check.advance().await?;
        }
    })
    .boxed()
}

impl Check {
    /// Takes the next batch and lets the one before it go, or proves the end.
    async fn advance(&mut self) -> Result<()> {
        let batch = self.next_batch().await?;
        if batch.is_empty() {
            let hash = BlobHash::from_bytes(*self.hasher().await?.finalize().as_bytes());
            if self.seen != self.expected.size || hash != self.expected.hash {
                return Err(wrong());
            }
            self.is_done = true;
        } else {
            let mut hasher = self.hasher().await?;
            let bytes: usize = batch.iter().map(Bytes::len).sum();
            self.hasher = if bytes <= INLINE_BYTES_MAX {
                update(&mut hasher, &batch);
                Hashing::Here(hasher)
            } else {
                let batch = batch.clone();
                let work = move |_: &mut ()| {
                    update(&mut hasher, &batch);
                    hasher
                };
                Hashing::Away(self.pool.begin(work).await?)
            };
        }
        self.ready = std::mem::replace(&mut self.held, batch).into_iter();
        Ok(())
    }

    /// Pieces of together about [`BATCH_BYTES`]; empty at the end.
    async fn next_batch(&mut self) -> Result<Vec<Bytes>> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while bytes < BATCH_BYTES
            && let Some(piece) = self.input.next().await
        {
            let piece = piece?;
            self.seen += piece.len() as u64;
            if self.seen > self.expected.size {
                return Err(wrong());
            }
            bytes += piece.len();
            if !piece.is_empty() {
                batch.push(piece);
            }
        }
        Ok(batch)
    }

    async fn hasher(&mut self) -> Result<Box<blake3::Hasher>> {
        match std::mem::replace(&mut self.hasher, Hashing::Gone) {
            Hashing::Here(hasher) => Ok(hasher),
            Hashing::Away(running) => running.await,
            Hashing::Gone => Err(Error::new(Kind::Internal, "internal error")),
        }
    }
}

fn update(hasher: &mut blake3::Hasher, batch: &[Bytes]) {
    for piece in batch {
        hasher.update(piece);
    }
}

fn wrong() -> Error {
    Error::new(Kind::Corrupt, "the stored bytes are not what was stored")
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn pass(pieces: Vec<Vec<u8>>, expected: Expected) -> (Vec<u8>, Option<Kind>) {
        let pool = BlockingPool::start("test", 1, 4).unwrap();
        let input = stream::iter(pieces.into_iter().map(|piece| Ok(Bytes::from(piece)))).boxed();
        let mut output = verified(input, expected, pool);
        let mut passed = Vec::new();
        while let Some(piece) = output.next().await {
            match piece {
                Ok(piece) => passed.extend_from_slice(&piece),
                Err(error) => return (passed, Some(error.kind())),
            }
        }
        (passed, None)
    }

    #[actix_rt::test]
    async fn right_bytes_pass_and_wrong_ones_never_pass_whole() {
        for len in [0, 1, 1000, BATCH_BYTES - 1, BATCH_BYTES, BATCH_BYTES + 1, 3 * BATCH_BYTES] {
            for piece in [1000, 70_000, BATCH_BYTES] {
                let bytes: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
                let pieces = |bytes: &[u8]| bytes.chunks(piece).map(<[u8]>::to_vec).collect::<Vec<_>>();
                let hash = BlobHash::from_bytes(*blake3::hash(&bytes).as_bytes());
                let expected = Expected { size: len as u64, hash };
                assert_eq!(pass(pieces(&bytes), expected).await, (bytes.clone(), None));
                if len == 0 {
                    continue;
                }
                let mut flipped = bytes.clone();
                flipped[len / 2] ^= 1;
                let longer = [&bytes[..], b"x"].concat();
                for wrong in [&flipped[..], &bytes[..len - 1], &longer] {
                    let (passed, error) = pass(pieces(wrong), expected).await;
                    assert_eq!(error, Some(Kind::Corrupt));
                    assert!(passed.len() < len, "{} of {len} bytes passed", passed.len());
                }
            }
        }
    }
}
