//! For tests of this crate and of others: what every store must do, and bodies to do it with.

pub mod blob_contract;
mod browse_contract;
mod care_contract;
pub mod faulty;
pub mod filetracker;
mod journal_contract;
pub mod locks;
pub mod meta_contract;
mod mirror_contract;
pub mod pgbouncer;
pub mod postgres;
pub mod proxy;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use bytes::Bytes;

use crate::model::{BlobHash, BlobInfo, BlobKey, Digest, Encoding, KeyLayout};
use crate::runtime::budget::MemoryBudget;
use crate::store::blob::{Spooled, SpooledBytes};

/// Bytes that do not repeat within a piece and differ by `seed`.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    // SplitMix64, eight bytes a step.
    let mut state = seed;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        out.extend_from_slice(&(mixed ^ (mixed >> 31)).to_le_bytes());
    }
    out.truncate(len);
    out
}

/// Where a made-up body is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// In memory, in one piece.
    Memory,
    /// In memory, in pieces of this many bytes.
    Pieces(usize),
    /// In an unnamed file.
    File,
}

/// A spooled body of these stored bytes. Stores do not look inside: the digest is that of the
/// stored bytes' name, not of anything they unpack to.
pub fn spooled(bytes: &[u8], place: Place) -> Spooled {
    use sha2::Digest as _;
    let stored = match place {
        Place::File => file(bytes),
        Place::Memory => memory(vec![Bytes::copy_from_slice(bytes)]),
        Place::Pieces(len) => memory(bytes.chunks(len.max(1)).map(Bytes::copy_from_slice).collect()),
    };
    Spooled {
        bytes: stored,
        digest: Digest::from_bytes(sha2::Sha256::digest(bytes).into()),
        logical_size: bytes.len() as u64 * 3 + 1,
        encoding: Encoding::Gzip,
        stored_hash: BlobHash::from_bytes(*blake3::hash(bytes).as_bytes()),
    }
}

fn memory(pieces: Vec<Bytes>) -> SpooledBytes {
    let len: usize = pieces.iter().map(Bytes::len).sum();
    match MemoryBudget::new(len as u64).try_reserve(len as u64) {
        Some(reservation) => SpooledBytes::in_memory(pieces, reservation),
        None => unreachable!("a budget of {len} bytes has no room for them"),
    }
}

fn file(bytes: &[u8]) -> SpooledBytes {
    let file = tempfile::tempfile().and_then(|mut file| file.write_all(bytes).map(|()| file));
    match file {
        Ok(file) => SpooledBytes::in_file(file, bytes.len() as u64),
        Err(error) => panic!("no temporary file: {error}"),
    }
}

/// The usual key of a body.
pub fn key_of(info: &BlobInfo) -> BlobKey {
    BlobKey { digest: info.digest, generation: 0, layout: KeyLayout::new(2) }
}

/// The whole answer to a GET on this machine; `None` when there is none.
fn http_get(port: u16, target: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(stream, "GET {target} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    (!answer.is_empty()).then(|| String::from_utf8_lossy(&answer).into_owned())
}
