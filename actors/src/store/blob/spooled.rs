//! Bytes that wait to be stored: in memory up to a limit, else in an unnamed temporary file.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::model::{BlobHash, BlobInfo, Digest, Encoding};
use crate::runtime::budget::Reservation;

/// A complete, hashed body; clones share it. Dropping the last one frees its memory or its file in every outcome.
#[derive(Clone, Debug)]
pub struct Spooled {
    /// The encoded bytes.
    pub bytes: SpooledBytes,
    /// SHA-256 of the logical bytes.
    pub digest: Digest,
    /// Number of logical bytes.
    pub logical_size: u64,
    /// How the bytes are encoded.
    pub encoding: Encoding,
    /// BLAKE3 of the encoded bytes.
    pub stored_hash: BlobHash,
}

impl Spooled {
    /// What the object made of these bytes says of itself.
    pub fn info(&self) -> BlobInfo {
        BlobInfo {
            digest: self.digest,
            logical_size: self.logical_size,
            encoding: self.encoding,
            stored_size: self.bytes.len(),
            stored_hash: self.stored_hash,
        }
    }
}

/// The encoded bytes of a spooled body. Cheap to clone: clones share the bytes.
#[derive(Clone, Debug)]
pub struct SpooledBytes(Arc<Place>);

#[derive(Debug)]
enum Place {
    Memory { pieces: Vec<Bytes>, len: u64, _reservation: Reservation },
    File { file: File, len: u64 },
}

impl SpooledBytes {
    /// Bytes held in memory; `reservation` is given back when the last clone is dropped.
    pub fn in_memory(pieces: Vec<Bytes>, reservation: Reservation) -> Self {
        let len = pieces.iter().map(|piece| piece.len() as u64).sum();
        Self(Arc::new(Place::Memory { pieces, len, _reservation: reservation }))
    }

    /// The first `len` bytes of an unnamed file.
    pub fn in_file(file: File, len: u64) -> Self {
        Self(Arc::new(Place::File { file, len }))
    }

    /// Number of bytes.
    pub fn len(&self) -> u64 {
        match &*self.0 {
            Place::Memory { len, .. } | Place::File { len, .. } => *len,
        }
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The pieces in memory, in order; `None` when the bytes are in a file.
    pub fn memory(&self) -> Option<&[Bytes]> {
        match &*self.0 {
            Place::Memory { pieces, .. } => Some(pieces),
            Place::File { .. } => None,
        }
    }

    /// The file; `None` when the bytes are in memory. Its offset means nothing.
    pub fn file(&self) -> Option<&File> {
        match &*self.0 {
            Place::Memory { .. } => None,
            Place::File { file, .. } => Some(file),
        }
    }

    /// Copies the bytes of `range` out. Blocks when the bytes are in a file.
    pub fn read_range(&self, range: Range<u64>) -> io::Result<Bytes> {
        if range.start > range.end || range.end > self.len() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "range is outside of the spooled bytes"));
        }
        let wanted = usize::try_from(range.end - range.start).map_err(io::Error::other)?;
        match &*self.0 {
            Place::Memory { pieces, .. } => {
                if let [only] = pieces.as_slice() {
                    let start = usize::try_from(range.start).map_err(io::Error::other)?;
                    return Ok(only.slice(start..start + wanted));
                }
                let mut out = BytesMut::with_capacity(wanted);
                let mut skip = range.start;
                for piece in pieces {
                    let len = piece.len() as u64;
                    if skip >= len {
                        skip -= len;
                        continue;
                    }
                    let start = usize::try_from(skip).map_err(io::Error::other)?;
                    skip = 0;
                    let end = piece.len().min(start + wanted - out.len());
                    out.extend_from_slice(&piece[start..end]);
                    if out.len() == wanted {
                        break;
                    }
                }
                Ok(out.freeze())
            }
            Place::File { file, .. } => {
                let mut out = vec![0; wanted];
                file.read_exact_at(&mut out, range.start)?;
                Ok(out.into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::budget::MemoryBudget;
    use std::io::Write;

    fn places() -> Vec<SpooledBytes> {
        let budget = MemoryBudget::new(1 << 20);
        let pieces =
            vec![Bytes::from_static(b"abc"), Bytes::new(), Bytes::from_static(b"defgh"), Bytes::from_static(b"i")];
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"abcdefghi-and-more").unwrap();
        vec![
            SpooledBytes::in_memory(pieces, budget.try_reserve(9).unwrap()),
            SpooledBytes::in_memory(vec![Bytes::from_static(b"abcdefghi")], budget.try_reserve(9).unwrap()),
            SpooledBytes::in_file(file, 9),
        ]
    }

    #[test]
    fn every_range_reads_the_same_from_every_place() {
        for place in places() {
            assert_eq!(place.len(), 9);
            for start in 0..=9u64 {
                for end in start..=9 {
                    let want = &b"abcdefghi"[start as usize..end as usize];
                    assert_eq!(place.read_range(start..end).unwrap(), want);
                }
            }
            assert!(place.read_range(3..10).is_err());
        }
    }
}
