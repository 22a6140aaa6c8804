//! Beside files of version 1: over HTTP, from their directory, or both.
//!
//! The web server here is one of static files, as lighttpd was for reads; the script that took uploads is not run.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, SystemTime};

use s3dedup_actors::testkit::filetracker::StaticFiletracker;

use super::world::{all_copied, beside, our_file};
use crate::support::content::shown;
use crate::support::{TestServer, eventually};

fn store(dir: &Path, name: &str, offset: u64, content: &[u8]) {
    let path = dir.join("files").join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut file = File::create(path).unwrap();
    file.write_all(content).unwrap();
    // Fractions are no part of a version.
    let modified = SystemTime::UNIX_EPOCH + Duration::from_millis((1_700_000_000 + offset) * 1000 + 700);
    file.set_modified(modified).unwrap();
}

#[test]
fn files_come_over_http_plain_and_are_stored() {
    let mut old = StaticFiletracker::start();
    store(old.dir(), "d/ż x", 1, b"one");
    store(old.dir(), "large", 2, &[7; 3_000_000]);
    let server = beside(&old.url(), "proxy").start();
    let answer = server.request("GET", "/files/d/%C5%BC%20x").send();
    assert_eq!((answer.assert_status(200).body.as_slice(), answer.header("content-encoding")), (&b"one"[..], None));
    assert_eq!(answer.header("last-modified"), Some(shown(1).as_str()));
    let head = server.request("HEAD", "/files/large").send();
    assert_eq!((head.status, head.content_length()), (200, Some(3_000_000)));
    assert!(server.request("GET", "/files/large").send().assert_status(200).body == [7; 3_000_000]);
    assert_eq!(server.request("GET", "/files/none").send().status, 404);
    eventually("both are stored", || (server.objects().len() == 2).then_some(()));
    old.kill();
    assert_eq!(our_file(&server, "d/%C5%BC%20x").unwrap(), (shown(1), b"one".to_vec()));
    assert_eq!(server.request("GET", "/files/none").send().status, 503);
}

#[test]
fn files_come_from_the_directory_and_all_are_copied() {
    let dir = tempfile::tempdir().unwrap();
    for number in 0..20 {
        store(dir.path(), &format!("d/{number}"), number, format!("content {}", number % 5).as_bytes());
    }
    let server = TestServer::builder().env("MIGRATION", "live").env("FILETRACKER_V1_DIR", dir.path().display()).start();
    let answer = server.request("GET", "/files/d/7").header("Accept-Encoding", "identity").send();
    assert_eq!(answer.assert_status(200).body, b"content 2");
    all_copied(&server);
    assert_eq!(server.list("d").len(), 20);
    store(dir.path(), "d/7", 50, b"newer");
    let answer = server.request("GET", "/files/d/7").header("Accept-Encoding", "identity").send();
    assert_eq!(answer.assert_status(200).body, b"newer");
}
