//! Checking stored bytes as they pass.

use std::collections::VecDeque;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};

use crate::model::{BlobHash, Error, Kind, Result, StoredBlob};

/// Bytes hashed without a break: what arrives is hashed where it passes, since BLAKE3 takes less
/// time for a piece than handing the piece to another thread and back.
const HASH_BYTES: usize = 64 * 1024;

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
    hasher: Box<blake3::Hasher>,
    seen: u64,
    /// What may leave, and behind it the one piece that waits for the next one or for the proof.
    held: VecDeque<Bytes>,
    is_proven: bool,
}

/// Passes `input` on, one piece late: the last piece leaves only when size and hash are as expected.
/// Otherwise the stream ends with [`Kind::Corrupt`] before it.
pub(crate) fn verified(
    input: BoxStream<'static, Result<Bytes>>,
    expected: Expected,
) -> BoxStream<'static, Result<Bytes>> {
    let check = Check { input, expected, hasher: Box::default(), seen: 0, held: VecDeque::new(), is_proven: false };
    stream::try_unfold(check, |mut check| async move {
        while !check.is_proven && check.held.len() < 2 {
            check.advance().await?;
        }
        Ok(check.held.pop_front().map(|piece| (piece, check)))
    })
    .boxed()
}

impl Check {
    /// Takes the next piece, or proves the end.
    async fn advance(&mut self) -> Result<()> {
        let Some(piece) = self.input.next().await else {
            let hash = BlobHash::from_bytes(*self.hasher.finalize().as_bytes());
            if self.seen != self.expected.size || hash != self.expected.hash {
                return Err(wrong());
            }
            self.is_proven = true;
            return Ok(());
        };
        let piece = piece?;
        self.seen += piece.len() as u64;
        if self.seen > self.expected.size {
            return Err(wrong());
        }
        for (number, part) in piece.chunks(HASH_BYTES).enumerate() {
            if number > 0 {
                // Other connections of this thread get their turn.
                tokio::task::yield_now().await;
            }
            self.hasher.update(part);
        }
        if !piece.is_empty() {
            self.held.push_back(piece);
        }
        Ok(())
    }
}

fn wrong() -> Error {
    Error::new(Kind::Corrupt, "the stored bytes are not what was stored")
}

#[cfg(test)]
mod tests {
    use super::*;

    const BATCH_BYTES: usize = 256 * 1024;

    async fn pass(pieces: Vec<Vec<u8>>, expected: Expected) -> (Vec<u8>, Option<Kind>) {
        // Unlike most streams this one panics when it is asked again after its end.
        let input = stream::unfold(pieces.into_iter(), |mut pieces| async move {
            pieces.next().map(|piece| (Ok(Bytes::from(piece)), pieces))
        });
        let input = input.boxed();
        let mut output = verified(input, expected);
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
