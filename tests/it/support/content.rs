//! Contents, their encodings and their names.

use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use rand::{RngCore, SeedableRng, rngs::StdRng};
use sha2::{Digest, Sha256};

use super::{Request, TestServer};

/// Bytes that do not compress, different for every seed.
pub struct Noise;

impl Noise {
    pub fn bytes(seed: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        StdRng::seed_from_u64(seed).fill_bytes(&mut bytes);
        bytes
    }
}

pub fn gzip(bytes: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(level));
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    MultiGzDecoder::new(bytes).read_to_end(&mut out).unwrap();
    out
}

pub fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// Version `1_700_000_000 + offset` as a client writes it in a query (offset within a minute).
pub fn date(offset: u32) -> String {
    let seconds = 13 * 60 + 20 + offset;
    format!("Tue%2C+14+Nov+2023+22%3A{:02}%3A{:02}+-0000", seconds / 60, seconds % 60)
}

/// The same version as an answer shows it.
pub fn shown(offset: u32) -> String {
    date(offset).replace("%2C", ",").replace("%3A", ":").replace('+', " ")
}

/// An upload as the real client makes it: gzip with both hints.
pub fn upload(server: &TestServer, path: &str, offset: u32, content: &[u8]) -> Request {
    server
        .request("PUT", &format!("/files/{path}?last_modified={}", date(offset)))
        .header("Content-Encoding", "gzip")
        .header("SHA256-Checksum", &sha256(content))
        .header("Logical-Size", &content.len().to_string())
        .body(gzip(content, 6))
}
