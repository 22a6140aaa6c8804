//! The old server and what is put there, and our commands beside it.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Output;
use std::sync::Mutex;
use std::time::Duration;

use s3dedup_actors::testkit::filetracker::OldFiletracker;
use serde_json::Value;

use crate::support::{Noise, Request, Response, TestServer, gzip, sha256};

/// Bytes of the largest file: a gigabyte by default, less where somebody is in a hurry.
pub fn large_bytes() -> u64 {
    megabytes().unwrap_or(1024) << 20
}

/// The same of a file that does not compress, which takes far longer: more than is kept in memory, and many parts.
pub fn noise_bytes() -> u64 {
    megabytes().unwrap_or(320) << 20
}

fn megabytes() -> Option<u64> {
    std::env::var("S3DEDUP_TEST_LARGE_MIB").ok()?.parse().ok()
}

/// The large file is compressed once for all tests; zeros are quick.
pub fn large_gzip() -> Vec<u8> {
    static MADE: Mutex<Option<Vec<u8>>> = Mutex::new(None);
    let mut made = MADE.lock().unwrap();
    let bytes = made.get_or_insert_with(|| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(1));
        let piece = vec![0; 1 << 20];
        for _ in 0..large_bytes() >> 20 {
            encoder.write_all(&piece).unwrap();
        }
        encoder.finish().unwrap()
    });
    bytes.clone()
}

pub fn large_sha256() -> String {
    use sha2::Digest;
    let mut hash = sha2::Sha256::new();
    let piece = vec![0; 1 << 20];
    for _ in 0..large_bytes() >> 20 {
        hash.update(&piece);
    }
    hex::encode(hash.finalize())
}

/// Gzip, in a file, of bytes that do not compress.
pub struct LargeNoise {
    file: tempfile::NamedTempFile,
    pub bytes: u64,
    sha256: String,
}

impl LargeNoise {
    pub fn new(bytes: u64) -> Self {
        use sha2::Digest;
        // Gzip looks back for 32 KiB only: a piece that comes again is new to it.
        let piece = Noise::bytes(1, 8 << 20);
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut encoder = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
        let mut hash = sha2::Sha256::new();
        let mut left = bytes;
        while left > 0 {
            let piece = &piece[..piece.len().min(usize::try_from(left).unwrap())];
            encoder.write_all(piece).unwrap();
            hash.update(piece);
            left -= piece.len() as u64;
        }
        Self { file: encoder.finish().unwrap(), bytes, sha256: hex::encode(hash.finalize()) }
    }

    /// Stores it on the old server.
    pub fn put(&self, old: &OldFiletracker, name: &str, at: i64) {
        let mut file = self.file.reopen().unwrap();
        let length = file.metadata().unwrap().len();
        assert!(length > self.bytes, "it does not compress");
        let request = request(old, "PUT", name.as_bytes(), at).header("Content-Encoding", "gzip");
        let request = request.header("SHA256-Checksum", &self.sha256).header("Logical-Size", &self.bytes.to_string());
        let head = request.header("Content-Length", &length.to_string()).head();
        let mut connection = TcpStream::connect((Ipv4Addr::LOCALHOST, old.port())).unwrap();
        connection.set_read_timeout(Some(Duration::from_secs(300))).unwrap();
        connection.write_all(&head).unwrap();
        std::io::copy(&mut file, &mut connection).unwrap();
        let mut answer = [0; 12];
        connection.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
    }
}

/// A version as clients write it.
pub fn version(seconds: i64) -> String {
    let printed = s3dedup_actors::filetracker::dates::print(s3dedup_actors::model::Stamp::from_seconds(seconds));
    printed.replace(',', "%2C").replace(' ', "+").replace(':', "%3A")
}

/// A name as clients write it.
pub fn quoted(name: &[u8]) -> String {
    let one = |byte: &u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => char::from(*byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    name.iter().map(one).collect()
}

/// An upload with these hints, whether true or not.
pub fn claim(old: &OldFiletracker, name: &[u8], at: i64, body: Vec<u8>, digest: &str, size: &str) -> Response {
    request(old, "PUT", name, at)
        .header("Content-Encoding", "gzip")
        .header("SHA256-Checksum", digest)
        .header("Logical-Size", size)
        .body(body)
        .send()
}

/// An upload as it should be.
pub fn put(old: &OldFiletracker, name: &str, at: i64, content: &[u8]) {
    let size = content.len().to_string();
    claim(old, name.as_bytes(), at, gzip(content, 6), &sha256(content), &size).assert_status(200);
}

pub fn delete(old: &OldFiletracker, name: &str, at: i64) {
    request(old, "DELETE", name.as_bytes(), at).send().assert_status(200);
}

fn request(old: &OldFiletracker, method: &str, name: &[u8], at: i64) -> Request {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, old.port()));
    Request::new(address, method, &format!("/files/{}?last_modified={}", quoted(name), version(at)))
}

/// Runs a command to its end; it must end with this exit code.
#[track_caller]
pub fn ends(server: &TestServer, code: i32, arguments: &[&str]) -> Output {
    let output = server.run(arguments);
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{said}\n{complained}");
    output
}

/// A migration, with its report: what came of it, and names that were not copied with what became of them.
#[track_caller]
pub fn migrates(server: &TestServer, code: i32, arguments: &[&str]) -> (Value, BTreeMap<String, (String, String)>) {
    let report = server.temp_dir().join("report.json");
    let arguments = [arguments, &["--report", report.to_str().unwrap()]].concat();
    ends(server, code, &arguments);
    let text = std::fs::read_to_string(&report).unwrap();
    std::fs::remove_file(report).unwrap();
    let report: Value = serde_json::from_str(&text).unwrap();
    let entry = |one: &Value| {
        let text = |key: &str| one[key].as_str().unwrap().to_owned();
        (text("name"), (text("fate"), text("reason")))
    };
    let not_copied = report["not_copied"].as_array().unwrap().iter().map(entry).collect();
    (report["migration"].clone(), not_copied)
}

/// Differences by name, of a deep comparison.
#[track_caller]
pub fn differences(server: &TestServer, arguments: &[&str]) -> BTreeMap<String, String> {
    let output = server.run(&[&["compare", "--deep", "--json"], arguments].concat());
    let code = output.status.code();
    assert!(matches!(code, Some(0 | 9)), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let found = report["differences"].as_array().unwrap();
    let found = found.iter().map(|one| {
        let text = |key: &str| one[key].as_str().unwrap().to_owned();
        (text("name"), text("kind"))
    });
    let found: BTreeMap<_, _> = found.collect();
    assert_eq!(code == Some(0), found.is_empty());
    assert_eq!(report["different"], found.len());
    found
}
