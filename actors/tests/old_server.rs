//! Goal: the client of old servers tells what is there, what is not and what cannot be known apart, and takes nothing that
//! is not whole. On the real server from PyPI, and on a tree of version 1 behind a web server.

#![expect(clippy::unwrap_used, reason = "a test that panics fails, as it should")]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::{Duration, SystemTime};

use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::{StreamExt, TryStreamExt};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
use s3dedup_actors::BodyEncoding;
use s3dedup_actors::filetracker::{ListedName, OldDelete, OldServer, OldServerLimits, Protocol};
use s3dedup_actors::model::{EntryKey, Kind, Namespace, Stamp};
use s3dedup_actors::testkit::filetracker::{FirstFiletracker, OldFiletracker};

const DATE: &str = "Tue%2C%2014%20Nov%202023%2022%3A13%3A20%20-0000";
const STAMP: Stamp = Stamp::from_seconds(1_700_000_000);
const FAR: Stamp = Stamp::from_seconds(250_000_000_000);

fn key(name: &str) -> EntryKey {
    EntryKey::parse(Namespace::FILETRACKER, name.as_bytes()).unwrap()
}

fn client(url: &str) -> OldServer {
    OldServer::new(url, OldServerLimits::default()).unwrap()
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(6));
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    flate2::read::MultiGzDecoder::new(bytes).read_to_end(&mut plain).unwrap();
    plain
}

/// Stores without any client of ours; the path is encoded already.
async fn put_raw(server: &OldFiletracker, path: &str, plain: &[u8]) {
    let url = format!("{}/files/{path}?last_modified={DATE}", server.url());
    let request = reqwest::Client::builder().no_proxy().build().unwrap().put(url);
    let answer = request.header("Content-Encoding", "gzip").body(gzip(plain)).send().await.unwrap();
    assert!(answer.status().is_success(), "{answer:?}");
}

#[actix_rt::test]
async fn files_of_version_2_are_read_with_their_version_and_absence_is_told() {
    let old = OldFiletracker::start();
    let client = client(&old.url());
    assert_eq!(client.protocol().await.unwrap(), Protocol::V2);
    for (path, name) in [("a", "a"), ("d/%C5%BC%20%3F%23%25+", "d/ż ?#%+"), ("empty", "empty")] {
        let plain = if name == "empty" { Vec::new() } else { vec![b'x'; 300_000] };
        put_raw(&old, path, &plain).await;
        let file = client.head(&key(name)).await.unwrap().unwrap();
        assert_eq!((file.stamp, file.logical_size), (STAMP, Some(plain.len() as u64)));
        assert_eq!(file.encoding, BodyEncoding::Gzip);
        let download = client.get(&key(name)).await.unwrap().unwrap();
        assert_eq!(download.file, file);
        let pieces: Vec<_> = download.stream.try_collect().await.unwrap();
        assert_eq!(gunzip(&pieces.concat()), plain, "{name}");
    }
    assert!(client.head(&key("none")).await.unwrap().is_none());
    assert!(client.get(&key("d")).await.unwrap().is_none(), "a directory is no file");
    assert_eq!(client.delete(&key("none"), STAMP).await.unwrap(), OldDelete::Absent);
    assert_eq!(client.delete(&key("a"), Stamp::from_seconds(5)).await.unwrap(), OldDelete::Ignored);
    assert_eq!(client.delete(&key("a"), STAMP).await.unwrap(), OldDelete::Deleted);
    assert!(client.head(&key("a")).await.unwrap().is_none());
}

#[actix_rt::test]
async fn listings_tell_names_as_clients_know_them_and_what_has_none() {
    let old = OldFiletracker::start();
    let client = client(&old.url());
    let root: Vec<_> = client.list("", FAR).await.unwrap().unwrap().try_collect::<Vec<_>>().await.unwrap().concat();
    assert!(root.is_empty());
    // The last but one is no UTF-8, the last is two lines.
    for path in ["d/a", "d/%C5%BC%C3%B3%C5%82%C4%87", "d/e/%C3%A9", "d/%FF", "d/x%0Ay"] {
        put_raw(&old, path, b"content").await;
    }
    let listed = client.list("d", FAR).await.unwrap().unwrap().try_collect::<Vec<_>>().await.unwrap().concat();
    let mut names: Vec<&str> = Vec::new();
    let mut odd = Vec::new();
    for line in &listed {
        match line {
            ListedName::Name(key) => names.push(key.name()),
            ListedName::Odd { line, why } => odd.push((line.as_str(), why.as_str())),
        }
    }
    names.sort_unstable();
    assert_eq!(names, ["d/a", "d/e/é", "d/x", "d/y", "d/żółć"]);
    assert_eq!(odd, [("\u{ff}", "path is not valid UTF-8")]);
    let early = client.list("d", Stamp::from_seconds(5)).await.unwrap().unwrap();
    assert!(early.try_collect::<Vec<_>>().await.unwrap().concat().is_empty());
    assert!(client.list("none", FAR).await.unwrap().is_none());
}

#[actix_rt::test]
async fn a_server_that_is_down_or_is_none_is_never_absence() {
    let mut old = OldFiletracker::start();
    let known = client(&old.url());
    known.protocol().await.unwrap();
    old.stop();
    assert_eq!(known.head(&key("a")).await.unwrap_err().kind(), Kind::Unavailable);
    assert_eq!(known.get(&key("a")).await.err().unwrap().kind(), Kind::Unavailable);
    assert_eq!(known.delete(&key("a"), STAMP).await.unwrap_err().kind(), Kind::Unavailable);
    assert_eq!(known.list("", FAR).await.err().unwrap().kind(), Kind::Unavailable);
    // Something else takes its place, which has none of the files either.
    for (status, body) in
        [("404 Not Found", "no"), ("200 OK", "<html>hello</html>"), ("502 Bad Gateway", ""), ("400 Bad", "")]
    {
        let stranger = stranger(status, body);
        let met = client(&stranger);
        assert_eq!(met.head(&key("a")).await.unwrap_err().kind(), Kind::Unavailable, "{status}");
        assert_eq!(met.list("d", FAR).await.err().unwrap().kind(), Kind::Unavailable, "{status}");
    }
    let secret = client("http://user:hunter2@127.0.0.1:1/");
    let error = secret.head(&key("a")).await.unwrap_err();
    assert!(!format!("{error:?} {secret:?}").contains("hunter2"), "{error:?}");
}

#[actix_rt::test]
async fn a_breaker_tells_at_once_that_a_server_is_down() {
    let limits = OldServerLimits { breaks: true, ..OldServerLimits::default() };
    let server = OldServer::new("http://127.0.0.1:1", limits).unwrap();
    for _ in 0..8 {
        assert_eq!(server.head(&key("a")).await.unwrap_err().kind(), Kind::Unavailable);
    }
    assert_eq!(server.breaker_state(), "open");
    assert!(server.expect_up().is_err());
}

#[actix_rt::test]
async fn a_tree_of_version_1_is_read_plain() {
    let old = FirstFiletracker::start();
    let dir = old.dir().join("files/d");
    std::fs::create_dir(&dir).unwrap();
    let file = std::fs::File::create(dir.join("ż x")).unwrap();
    (&file).write_all(&[7; 100_000]).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_900)).unwrap();
    let client = client(&old.url());
    assert_eq!(client.protocol().await.unwrap(), Protocol::V1);
    let download = client.get(&key("d/ż x")).await.unwrap().unwrap();
    assert_eq!((download.file.stamp, download.file.logical_size), (STAMP, Some(100_000)));
    assert_eq!(download.file.encoding, BodyEncoding::Plain);
    let pieces: Vec<_> = download.stream.try_collect().await.unwrap();
    assert_eq!(pieces.concat(), [7; 100_000]);
    assert!(client.get(&key("d")).await.unwrap().is_none(), "a directory is no file");
    assert!(client.head(&key("none")).await.unwrap().is_none());
    assert_eq!(client.delete(&key("d/ż x"), FAR).await.unwrap(), OldDelete::Ignored);
    assert_eq!(client.list("", FAR).await.err().unwrap().kind(), Kind::Invalid);
}

/// More than there is room for between the two while the client does not read.
const LONG: usize = 64 << 20;

#[actix_rt::test]
async fn a_body_that_ends_early_or_changes_under_way_ends_with_an_error() {
    let old = FirstFiletracker::start();
    let path = old.dir().join("files/a");
    let client = client(&old.url());
    for len in [LONG, LONG / 2] {
        std::fs::write(&path, vec![7; LONG]).unwrap();
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)).unwrap();
        let mut download = client.get(&key("a")).await.unwrap().unwrap();
        assert!(download.stream.next().await.unwrap().is_ok());
        std::fs::write(&path, vec![8; len]).unwrap();
        let rest: Result<Vec<_>, _> = download.stream.try_collect().await;
        assert_eq!(rest.unwrap_err().kind(), Kind::Unavailable);
    }
}

#[actix_rt::test]
async fn a_file_of_version_1_that_is_being_written_is_read_when_it_is_at_rest() {
    let old = FirstFiletracker::start();
    let path = old.dir().join("files/a");
    std::fs::write(&path, b"half").unwrap();
    let client = client(&old.url());
    let writes = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        // Of the same length, most of the time in the same second.
        std::fs::write(&path, b"full").unwrap();
    };
    let name = key("a");
    let (download, ()) = tokio::join!(client.get(&name), writes);
    let pieces: Vec<_> = download.unwrap().unwrap().stream.try_collect().await.unwrap();
    assert_eq!(pieces.concat(), b"full");
    // A version in the future is no reason to wait for ever.
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.set_modified(SystemTime::now() + Duration::from_secs(100_000)).unwrap();
    assert!(client.get(&name).await.unwrap().is_some());
}

/// A server that gives every question the same answer, for as long as the test runs.
fn stranger(status: &str, body: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if !matches!(stream.read(&mut byte), Ok(1)) {
                    break;
                }
                head.push(byte[0]);
            }
            let is_head = head.starts_with(b"HEAD");
            let end =
                if is_head { answer.len() - answer.rsplit("\r\n\r\n").next().unwrap().len() } else { answer.len() };
            let _ = stream.write_all(&answer.as_bytes()[..end]);
        }
    });
    url
}

/// Gives a file of a server of version 2 a version, as it does itself after it has made the link.
fn note_version(old: &OldFiletracker, name: &str, seconds: i64) {
    note_time(old, name, Timespec { tv_sec: seconds, tv_nsec: 0 });
}

fn note_time(old: &OldFiletracker, name: &str, time: Timespec) {
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, old.data().join("links").join(name), &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

#[actix_rt::test]
async fn a_file_whose_version_was_never_noted_is_deleted_up_to_the_second_it_shows() {
    let old = OldFiletracker::start();
    let client = client(&old.url());
    put_raw(&old, "a", b"content").await;
    note_time(&old, "a", Timespec { tv_sec: STAMP.seconds(), tv_nsec: 500_000_000 });
    let before = Stamp::from_seconds(STAMP.seconds() - 1);
    assert_eq!(client.delete(&key("a"), before).await.unwrap(), OldDelete::Ignored);
    assert_eq!(client.delete(&key("a"), STAMP).await.unwrap(), OldDelete::Deleted);
    assert!(client.head(&key("a")).await.unwrap().is_none());
}

#[actix_rt::test]
async fn a_version_that_is_about_now_is_looked_at_again_before_it_is_believed() {
    let old = OldFiletracker::start();
    let client = client(&old.url());
    put_raw(&old, "flux", b"content").await;
    put_raw(&old, "now", b"content").await;
    let now = Stamp::now().seconds();
    // Made, and its version not noted yet.
    note_version(&old, "flux", now);
    note_version(&old, "now", now);
    assert!(client.head(&key("flux")).await.unwrap().unwrap().is_young);
    let noted = async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        note_version(&old, "flux", STAMP.seconds());
    };
    let (flux, now_file, real_now) = (key("flux"), key("now"), Stamp::from_seconds(now));
    let (flux, now_file, ()) = tokio::join!(client.get(&flux), client.get(&now_file), noted);
    assert_eq!(flux.unwrap().unwrap().file.stamp, STAMP);
    assert_eq!(now_file.unwrap().unwrap().file.stamp, real_now, "one that stays is the real one");
    assert!(!client.head(&key("flux")).await.unwrap().unwrap().is_young);
}
