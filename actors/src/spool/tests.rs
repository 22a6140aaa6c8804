//! Goal: what a body is, is found out from its bytes alone, however they arrive.

use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest as _, Sha256};

use super::*;
use crate::model::Digest;

fn limits(dir: &Path, memory_bytes_max: u64) -> SpoolLimits {
    SpoolLimits {
        memory_bytes_max,
        temp_dir: dir.to_owned(),
        files_are_kept: true,
        logical_bytes_max: 8 << 20,
        compression_level: 6,
    }
}

async fn spool(encoding: BodyEncoding, body: &[u8], piece: usize, memory_bytes_max: u64) -> Result<Spooled> {
    let dir = tempfile::tempdir().unwrap();
    let pool = BlockingPool::start("test", 1, 4).unwrap();
    let budget = MemoryBudget::new(64 << 20);
    let mut spooler = Spooler::new(encoding, limits(dir.path(), memory_bytes_max), &budget, pool);
    for piece in body.chunks(piece) {
        spooler.write(Bytes::copy_from_slice(piece)).await?;
    }
    let spooled = spooler.finish().await?;
    assert_eq!(dir.path().read_dir().unwrap().count(), 0, "the temporary file has a name");
    Ok(spooled)
}

fn gzip(plain: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(level));
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

/// Bytes that compress badly, the same in every run.
fn noise(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

fn sha256(plain: &[u8]) -> Digest {
    Digest::from_bytes(Sha256::digest(plain).into())
}

fn stored(spooled: &Spooled) -> Bytes {
    spooled.bytes.read_range(0..spooled.bytes.len()).unwrap()
}

#[actix_rt::test]
async fn gzip_bodies_are_kept_as_they_are_and_measured() {
    // The last one is sent to the disk before its end.
    let cases = [(0, 1 << 20), (10, 1 << 20), (3_000_000, 16 << 20), (3_000_000, 1000), (8 << 20, 1000)];
    for (len, memory) in cases {
        let plain = noise(len);
        let body = gzip(&plain, 6);
        let spooled = spool(BodyEncoding::Gzip, &body, 10_000, memory).await.unwrap();
        assert_eq!(spooled.digest, sha256(&plain));
        assert_eq!(spooled.logical_size, len as u64);
        assert_eq!(spooled.stored_hash.as_bytes(), blake3::hash(&body).as_bytes());
        assert_eq!(stored(&spooled), body);
        assert_eq!(spooled.bytes.memory().is_none(), memory == 1000);
    }
}

#[actix_rt::test]
async fn plain_bodies_are_compressed() {
    for len in [0, 10, 3_000_000] {
        let plain = vec![b'x'; len];
        let spooled = spool(BodyEncoding::Plain, &plain, 65_536, 1 << 20).await.unwrap();
        assert_eq!(spooled.digest, sha256(&plain));
        assert_eq!(spooled.logical_size, len as u64);
        let again = spool(BodyEncoding::Gzip, &stored(&spooled), 65_536, 1 << 20).await.unwrap();
        assert_eq!(again.digest, spooled.digest);
        assert_eq!(again.stored_hash, spooled.stored_hash);
    }
}

#[actix_rt::test]
async fn a_quick_encoder_may_make_the_content_larger() {
    let plain = noise(6_000_000);
    let body = gzip(&plain, 1);
    assert!(body.len() > plain.len() + plain.len() / 50, "level 1 takes {} bytes", body.len());
    let spooled = spool(BodyEncoding::Gzip, &body, 100_000, 16 << 20).await.unwrap();
    assert_eq!(spooled.digest, sha256(&plain));
}

#[actix_rt::test]
async fn several_members_are_one_content() {
    let body = [gzip(b"hello ", 6), gzip(b"world", 1)].concat();
    let spooled = spool(BodyEncoding::Gzip, &body, 3, 1 << 20).await.unwrap();
    assert_eq!(spooled.digest, sha256(b"hello world"));
    assert_eq!(spooled.logical_size, 11);
}

#[actix_rt::test]
async fn gzip_that_is_mostly_wrapping_is_refused() {
    let empty_members = gzip(b"", 6).repeat(20_000);
    let body = [gzip(b"hello", 6), empty_members].concat();
    let error = spool(BodyEncoding::Gzip, &body, 65_536, 1 << 20).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid);
    let endless = gzip(b"", 6).repeat(500_000);
    let error = spool(BodyEncoding::Gzip, &endless, 65_536, 16 << 20).await.unwrap_err();
    assert_eq!(error.kind(), Kind::TooLarge);
}

#[actix_rt::test]
async fn broken_gzip_is_refused_at_every_cut() {
    let whole = gzip(b"hello world, hello world", 6);
    for cut in 0..whole.len() {
        let error = spool(BodyEncoding::Gzip, &whole[..cut], 7, 1 << 20).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid, "cut at {cut}");
    }
    for garbage in [&b"x"[..], b"\0", b"trailing garbage that is longer than a header"] {
        let body = [&whole[..], garbage].concat();
        let error = spool(BodyEncoding::Gzip, &body, 1000, 1 << 20).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid, "{garbage:?}");
    }
    let mut flipped = whole.clone();
    let last = flipped.len() - 6;
    flipped[last] ^= 1;
    assert_eq!(spool(BodyEncoding::Gzip, &flipped, 1000, 1 << 20).await.unwrap_err().kind(), Kind::Invalid);
    assert_eq!(spool(BodyEncoding::Gzip, b"plain text", 1000, 1 << 20).await.unwrap_err().kind(), Kind::Invalid);
}

#[actix_rt::test]
async fn a_bomb_is_too_large_however_small_it_arrives() {
    let bomb = gzip(&vec![0; (8 << 20) + 1], 9);
    assert!(bomb.len() < INLINE_GZIP_BYTES_MAX);
    assert_eq!(spool(BodyEncoding::Gzip, &bomb, 1000, 1 << 20).await.unwrap_err().kind(), Kind::TooLarge);
    let plain = vec![0; (8 << 20) + 1];
    assert_eq!(spool(BodyEncoding::Plain, &plain, 65_536, 1 << 20).await.unwrap_err().kind(), Kind::TooLarge);
}

#[actix_rt::test]
async fn a_full_memory_budget_moves_bodies_to_files() {
    let dir = tempfile::tempdir().unwrap();
    let pool = BlockingPool::start("test", 1, 4).unwrap();
    let budget = MemoryBudget::new(100);
    let body = gzip(&noise(1000), 6);
    let mut spooler = Spooler::new(BodyEncoding::Gzip, limits(dir.path(), 1 << 20), &budget, pool);
    spooler.write(body.clone().into()).await.unwrap();
    let spooled = spooler.finish().await.unwrap();
    assert!(spooled.bytes.file().is_some());
    assert_eq!(budget.used(), 0);
    assert_eq!(stored(&spooled), body);
}
