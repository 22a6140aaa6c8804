//! Turning stored bytes back into logical ones, for clients that take no gzip.

use std::io::Write;

use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};

use super::{BATCH_BYTES, INLINE_BYTES_MAX};
use crate::model::{Error, Kind, Result};
use crate::store::blocking::BlockingPool;

struct Decode {
    input: BoxStream<'static, Result<Bytes>>,
    pool: BlockingPool,
    logical_size: u64,
    decoder: Option<Box<Decoder>>,
    seen: u64,
    /// What was decoded last; it leaves when there is more, or when the end is proven.
    held: Bytes,
}

/// The decoder and what it has not looked at yet.
struct Decoder {
    gzip: MultiGzDecoder<Vec<u8>>,
    pending: Bytes,
}

/// Decodes verified gzip. The last piece leaves only when the input has ended well and exactly
/// `logical_size` bytes came out of it.
pub(crate) fn decoded(
    input: BoxStream<'static, Result<Bytes>>,
    logical_size: u64,
    pool: BlockingPool,
) -> BoxStream<'static, Result<Bytes>> {
    let decoder = Box::new(Decoder { gzip: MultiGzDecoder::new(Vec::new()), pending: Bytes::new() });
    let decode = Decode { input, pool, logical_size, decoder: Some(decoder), seen: 0, held: Bytes::new() };
    stream::try_unfold(decode, |mut decode| async move {
        while decode.decoder.is_some() {
            let piece = decode.advance().await?;
            if !piece.is_empty() {
                return Ok(Some((piece, decode)));
            }
        }
        Ok(None)
    })
    .boxed()
}

impl Decode {
    /// Decodes some more and returns what may leave, which can be nothing.
    async fn advance(&mut self) -> Result<Bytes> {
        let mut decoder = self.decoder.take().ok_or_else(|| Error::new(Kind::Internal, "internal error"))?;
        if decoder.pending.is_empty() {
            match self.input.next().await {
                Some(piece) => decoder.pending = piece?,
                None => {
                    let rest = decoder.finish()?;
                    self.count(&rest)?;
                    if self.seen != self.logical_size {
                        return Err(wrong());
                    }
                    return Ok([std::mem::take(&mut self.held), rest].concat().into());
                }
            }
        }
        let is_small = decoder.pending.len() <= INLINE_BYTES_MAX && self.logical_size <= INLINE_BYTES_MAX as u64;
        let step = move || decoder.step().map(|output| (decoder, output));
        let (decoder, output) = if is_small { step()? } else { self.pool.run(move |_| step()).await?? };
        self.decoder = Some(decoder);
        self.count(&output)?;
        if output.is_empty() {
            return Ok(output);
        }
        Ok(std::mem::replace(&mut self.held, output))
    }

    fn count(&mut self, output: &Bytes) -> Result<()> {
        self.seen += output.len() as u64;
        if self.seen > self.logical_size { Err(wrong()) } else { Ok(()) }
    }
}

impl Decoder {
    /// Decodes until the pending input is used up or there is a batch of output. One write makes at
    /// most some tens of KiB of output, so that a bomb does not blow up memory.
    fn step(&mut self) -> Result<Bytes> {
        while !self.pending.is_empty() && self.gzip.get_ref().len() < BATCH_BYTES {
            let used = self.gzip.write(&self.pending).map_err(broken)?;
            let _ = self.pending.split_to(used);
        }
        Ok(std::mem::take(self.gzip.get_mut()).into())
    }

    fn finish(mut self) -> Result<Bytes> {
        self.gzip.try_finish().map_err(broken)?;
        Ok(std::mem::take(self.gzip.get_mut()).into())
    }
}

fn broken(error: std::io::Error) -> Error {
    wrong().with_source(error)
}

fn wrong() -> Error {
    Error::new(Kind::Corrupt, "the stored bytes do not decode to what was stored")
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    async fn decode(stored: &[u8], piece: usize, logical_size: u64, ends_well: bool) -> (Vec<u8>, Option<Kind>) {
        let pool = BlockingPool::start("test", 1, 4).unwrap();
        let mut pieces: Vec<_> = stored.chunks(piece).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        if !ends_well {
            pieces.push(Err(Error::new(Kind::Corrupt, "test")));
        }
        let mut output = decoded(stream::iter(pieces).boxed(), logical_size, pool);
        let mut passed = Vec::new();
        while let Some(piece) = output.next().await {
            match piece {
                Ok(piece) => {
                    assert!(piece.len() <= BATCH_BYTES + 128 * 1024, "a piece of {} bytes", piece.len());
                    passed.extend_from_slice(&piece);
                }
                Err(error) => return (passed, Some(error.kind())),
            }
        }
        (passed, None)
    }

    fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::new(6));
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    #[actix_rt::test]
    async fn what_was_encoded_comes_back_and_the_end_waits_for_proof() {
        for len in [0usize, 1, 100, 70_000, 5_000_000] {
            let plain = vec![7; len];
            let stored = gzip(&plain);
            for piece in [1, 1000, 1 << 20] {
                if piece == 1 && len > 100_000 {
                    continue;
                }
                assert_eq!(decode(&stored, piece, len as u64, true).await, (plain.clone(), None));
                let (passed, error) = decode(&stored, piece, len as u64, false).await;
                assert_eq!(error, Some(Kind::Corrupt));
                assert!(len == 0 || passed.len() < len);
            }
        }
    }

    #[actix_rt::test]
    async fn several_members_decode_to_one_content() {
        let stored = [gzip(b"hello "), gzip(b""), gzip(b"world")].concat();
        assert_eq!(decode(&stored, 5, 11, true).await, (b"hello world".to_vec(), None));
    }

    #[actix_rt::test]
    async fn another_size_than_recorded_is_corrupt() {
        let stored = gzip(b"hello");
        for size in [0, 4, 6] {
            let (passed, error) = decode(&stored, 1000, size, true).await;
            assert_eq!(error, Some(Kind::Corrupt));
            assert!(passed.is_empty());
        }
    }
}
