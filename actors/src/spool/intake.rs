//! The work on a body's bytes: both hashes, both sizes, gzip checked or made.

use std::io::{self, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::{GzEncoder, MultiGzDecoder};
use sha2::{Digest as _, Sha256};

use super::place::Place;
use super::{BodyEncoding, SpoolLimits};
use crate::model::{BlobHash, Digest, Encoding, Error, Kind, Result};
use crate::runtime::budget::MemoryBudget;
use crate::store::blob::Spooled;

/// How much larger than its content a gzip body may be. Quick encoders write bytes that do not compress in the fixed
/// code, which takes nine bits for some of them; members without content could otherwise make any content cost any
/// amount of storage and traffic.
const fn stored_bytes_max(logical_bytes: u64) -> u64 {
    logical_bytes.saturating_add(logical_bytes / 8).saturating_add(128 * 1024)
}

/// A body in the middle of being received, without the waiting. Blocks and computes.
pub(super) struct Intake {
    front: Front,
    kept: Kept,
    stored_bytes_max: u64,
}

/// What turns arriving bytes into stored and logical ones.
enum Front {
    /// The arriving bytes are kept; decoding only checks and measures them.
    Gzip(MultiGzDecoder<Measure>),
    /// The arriving bytes are measured; what the encoder makes of them is kept.
    Plain { measure: Measure, encoder: GzEncoder<Vec<u8>> },
}

/// Logical bytes: hashed, counted, forgotten.
struct Measure {
    sha256: Sha256,
    bytes: u64,
    bytes_max: u64,
}

/// Stored bytes: hashed and kept.
struct Kept {
    blake3: blake3::Hasher,
    place: Place,
}

/// Travels through the decoder's [`io::Error`] to tell a bomb from broken gzip.
#[derive(Debug)]
struct PastLimit(u64);

impl std::fmt::Display for PastLimit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "content is larger than {} bytes", self.0)
    }
}

impl std::error::Error for PastLimit {}

impl Intake {
    pub(super) fn new(encoding: BodyEncoding, limits: SpoolLimits, budget: &MemoryBudget) -> Self {
        let measure = Measure { sha256: Sha256::new(), bytes: 0, bytes_max: limits.logical_bytes_max };
        let front = match encoding {
            BodyEncoding::Gzip => Front::Gzip(MultiGzDecoder::new(measure)),
            BodyEncoding::Plain => {
                let level = Compression::new(limits.compression_level);
                Front::Plain { measure, encoder: GzEncoder::new(Vec::new(), level) }
            }
        };
        let stored_bytes_max = stored_bytes_max(limits.logical_bytes_max);
        let place = Place::new(&limits, budget);
        Self { front, kept: Kept { blake3: blake3::Hasher::new(), place }, stored_bytes_max }
    }

    /// Whether nothing was taken yet.
    pub(super) fn is_untouched(&self) -> bool {
        self.kept.place.len() == 0
    }

    /// Takes the next bytes.
    pub(super) fn take(&mut self, bytes: Bytes) -> Result<()> {
        match &mut self.front {
            Front::Gzip(decoder) => {
                decoder.write_all(&bytes).map_err(broken_gzip)?;
                self.kept.keep(bytes)?;
                if self.kept.place.len() > self.stored_bytes_max {
                    let text = format!("body is larger than {} bytes", self.stored_bytes_max);
                    return Err(Error::new(Kind::TooLarge, text));
                }
                Ok(())
            }
            Front::Plain { measure, encoder } => {
                measure.write_all(&bytes).map_err(broken_gzip)?;
                encoder.write_all(&bytes).map_err(not_compressed)?;
                self.kept.keep(std::mem::take(encoder.get_mut()).into())
            }
        }
    }

    /// The end of the body.
    pub(super) fn finish(self) -> Result<Spooled> {
        let Self { front, mut kept, .. } = self;
        let measure = match front {
            Front::Gzip(mut decoder) => {
                decoder.try_finish().map_err(broken_gzip)?;
                let measure = decoder.finish().map_err(broken_gzip)?;
                if kept.place.len() > stored_bytes_max(measure.bytes) {
                    return Err(Error::new(Kind::Invalid, "gzip body is much larger than its content"));
                }
                measure
            }
            Front::Plain { measure, encoder } => {
                kept.keep(encoder.finish().map_err(not_compressed)?.into())?;
                measure
            }
        };
        Ok(Spooled {
            bytes: kept.place.finish(),
            digest: Digest::from_bytes(measure.sha256.finalize().into()),
            logical_size: measure.bytes,
            encoding: Encoding::Gzip,
            stored_hash: BlobHash::from_bytes(*kept.blake3.finalize().as_bytes()),
        })
    }
}

impl Kept {
    fn keep(&mut self, bytes: Bytes) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.blake3.update(&bytes);
        self.place.push(bytes).map_err(|error| Error::io("can't keep the body while it arrives", error))
    }
}

impl Write for Measure {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes += bytes.len() as u64;
        if self.bytes > self.bytes_max {
            return Err(io::Error::other(PastLimit(self.bytes_max)));
        }
        self.sha256.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn broken_gzip(error: io::Error) -> Error {
    let past_limit = error.get_ref().and_then(|inner| inner.downcast_ref::<PastLimit>());
    if let Some(past_limit) = past_limit {
        return Error::new(Kind::TooLarge, past_limit.to_string());
    }
    Error::new(Kind::Invalid, "body is not one complete gzip stream").with_source(error)
}

fn not_compressed(error: io::Error) -> Error {
    Error::new(Kind::Internal, "the body could not be compressed").with_source(error)
}
