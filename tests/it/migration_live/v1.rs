//! Beside files of version 1: over HTTP, from their directory, or both.
//!
//! Uploads are taken by the real script of Filetracker 1.1.0.

use std::fs::{self, File};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use s3dedup_actors::testkit::filetracker::FirstFiletracker;
use s3dedup_actors::testkit::postgres::{DATABASE, PostgresServer};

use super::world::{Watcher, all_copied, all_told, beside, delete, our_file, put, told, version};
use crate::support::content::shown;
use crate::support::{Noise, Request, TestServer, eventually};

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
    let mut old = FirstFiletracker::start();
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
    // An object is there before its name is.
    eventually("both are stored", || (told(&server)["old_server"]["files_being_fetched"] == 0).then_some(()));
    assert_eq!(server.objects().len(), 2);
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

/// Names are noted while files are in flight: these must not keep the connections that the noting waits for.
#[test]
fn all_are_copied_over_a_database_with_few_connections() {
    let dir = tempfile::tempdir().unwrap();
    for number in 0..800 {
        store(dir.path(), &format!("d/{number}"), number % 50, format!("content {}", number % 5).as_bytes());
    }
    let postgres = PostgresServer::start();
    let builder = TestServer::builder().env("MIGRATION", "live").env("FILETRACKER_V1_DIR", dir.path().display());
    let builder = builder.env("MIGRATION_MAX_CONCURRENCY", 20).env("POSTGRES_MAX_CONNECTIONS", 2);
    let server = builder.postgres(&postgres, DATABASE).start();
    all_copied(&server);
    assert_eq!(server.list("d").len(), 800);
    let answer = server.request("GET", "/files/d/7").header("Accept-Encoding", "identity").send();
    assert_eq!(answer.assert_status(200).body, b"content 2");
}

#[test]
fn what_is_not_copied_is_named_with_its_reason() {
    let dir = tempfile::tempdir().unwrap();
    for number in 0..3 {
        store(dir.path(), &format!("d/{number}"), number, b"content");
        std::os::unix::fs::symlink("/nowhere", dir.path().join(format!("files/d/link{number}"))).unwrap();
    }
    let server = TestServer::builder().env("MIGRATION", "live").env("FILETRACKER_V1_DIR", dir.path().display()).start();
    all_copied(&server);
    assert_eq!(told(&server)["files"]["failed"], 3);
    let page = |query: &str| -> serde_json::Value {
        let answer = server.raw_request("GET", &format!("/api/migration/troubles{query}")).send();
        serde_json::from_slice(&answer.assert_status(200).body).unwrap()
    };
    let names = |page: &serde_json::Value| -> Vec<String> {
        page["not_copied"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
    };
    let all = page("");
    assert_eq!(names(&all), ["d/link0", "d/link1", "d/link2"], "{all}");
    assert_eq!(all["not_copied"][0]["reason"], "a symbolic link, which is not followed");
    assert_eq!(names(&page("?after=d%2Flink1")), ["d/link2"]);
    assert_eq!(server.raw_request("GET", "/api/migration/troubles?before=x").send().status, 200);
    assert_eq!(server.raw_request("GET", "/api/migration/troubles?after=a&after=b").send().status, 400);
}

#[test]
fn what_is_no_file_on_the_disk_is_not_found_and_names_that_no_disk_takes_live_here() {
    let dir = tempfile::tempdir().unwrap();
    store(dir.path(), "d/file", 1, b"content");
    std::os::unix::fs::symlink("file", dir.path().join("files/d/link")).unwrap();
    let server =
        TestServer::builder().env("MIGRATION", "proxy").env("FILETRACKER_V1_DIR", dir.path().display()).start();
    let long = "x".repeat(400);
    for path in ["d/link", "d", "d/file/below", &long] {
        for method in ["GET", "HEAD"] {
            assert_eq!(server.request(method, &format!("/files/{path}")).send().status, 404, "{path}");
        }
        assert_eq!(delete(&server, path, 9).status, 404, "{path}");
    }
    put(&server, &long, 1, b"ours").assert_status(200);
    assert_eq!(our_file(&server, &long).unwrap().1, b"ours");
    // A disk that is away is another thing.
    fs::rename(dir.path().join("files"), dir.path().join("away")).unwrap();
    server.request("GET", "/files/d/unknown").send().assert_refused(503);
    assert_eq!(our_file(&server, &long).unwrap().1, b"ours");
    fs::rename(dir.path().join("away"), dir.path().join("files")).unwrap();
    let answer = server.request("GET", "/files/d/file").header("Accept-Encoding", "identity").send();
    assert_eq!(answer.assert_status(200).body, b"content");
}

/// What the old server has on its disk: the version as an offset, and the content.
fn on_disk(dir: &Path, name: &str) -> Option<(i64, Vec<u8>)> {
    let path = dir.join("files").join(name);
    let modified = fs::metadata(&path).ok()?.mtime();
    Some((modified - 1_700_000_000, fs::read(path).unwrap()))
}

#[test]
fn writes_reach_a_server_of_version_1_and_deletions_hold_here() {
    let mut old = FirstFiletracker::start();
    for name in ["stays", "both"] {
        store(old.dir(), name, 5, b"theirs");
    }
    let server = beside(&old.url(), "proxy").start();
    let large = Noise::bytes(5, 3 << 20);
    for (path, name, content) in [
        ("a", "a", &b"one"[..]),
        ("d/%C5%BC%20x", "d/ż x", b"two"),
        ("empty", "empty", b""),
        ("large", "large", &large),
    ] {
        put(&server, path, 1, content).assert_status(200);
        assert!(on_disk(old.dir(), name).unwrap() == (1, content.to_vec()), "{name}");
    }
    put(&server, "both", 6, b"ours").assert_status(200);
    assert_eq!(on_disk(old.dir(), "both").unwrap(), (6, b"ours".to_vec()));
    // An older one changes nothing on either side.
    put(&server, "both", 3, b"late").assert_status(200);
    assert_eq!(on_disk(old.dir(), "both").unwrap(), (6, b"ours".to_vec()));
    // Version 1 cannot delete.
    assert_eq!(delete(&server, "stays", 9).status, 200);
    assert!(our_file(&server, "stays").is_none() && on_disk(old.dir(), "stays").is_some());
    assert_eq!(delete(&server, "stays", 9).status, 404);
    // Whoever writes there in a newer version is seen.
    store(old.dir(), "stays", 20, b"anew");
    let answer = server.request("GET", "/files/stays").send();
    assert_eq!(answer.assert_status(200).body, b"anew");
    // What is written while it is down reaches it later.
    old.kill();
    put(&server, "later", 7, b"later").assert_status(200);
    assert_eq!(delete(&server, "both", 8).status, 200);
    assert!(our_file(&server, "both").is_none(), "known to be deleted, although the old server does not answer");
    eventually("what waits is shown", || {
        (told(&server)["old_server"]["second_writes"]["waiting"].as_u64() >= Some(2)).then_some(())
    });
    old.start_again();
    all_told(&server, 60);
    assert_eq!(on_disk(old.dir(), "later").unwrap(), (7, b"later".to_vec()));
    assert!(our_file(&server, "both").is_none());
}

#[test]
fn the_directory_and_the_server_go_together() {
    let old = FirstFiletracker::start();
    for number in 0..20 {
        store(old.dir(), &format!("d/{number}"), number, format!("content {}", number % 5).as_bytes());
    }
    let server = beside(&old.url(), "live").env("FILETRACKER_V1_DIR", old.dir().display()).start();
    put(&server, "d/3", 50, b"newer").assert_status(200);
    put(&server, "new", 50, b"new").assert_status(200);
    assert_eq!(delete(&server, "d/4", 50).status, 200);
    all_copied(&server);
    all_told(&server, 60);
    assert_eq!(on_disk(old.dir(), "d/3").unwrap(), (50, b"newer".to_vec()));
    assert_eq!(on_disk(old.dir(), "new").unwrap(), (50, b"new".to_vec()));
    assert_eq!(server.list("").len(), 20, "one was deleted, one is new");
    let compared = server.run(&["compare", "--v1-directory", old.dir().to_str().unwrap(), "--deep", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&compared.stdout).unwrap();
    assert_eq!((&report["different"], &report["differences"][0]["name"]), (&1.into(), &"d/4".into()), "{report}");
}

#[test]
fn the_way_back_to_version_1_has_every_write_but_no_deletion() {
    let old = FirstFiletracker::start();
    for number in 0..5 {
        store(old.dir(), &format!("old/{number}"), 1, b"before");
    }
    let mut server = beside(&old.url(), "proxy").start();
    for number in 0..10 {
        put(&server, &format!("new/{number}"), 2, format!("written {}", number % 4).as_bytes()).assert_status(200);
    }
    put(&server, "old/0", 2, b"replaced").assert_status(200);
    for path in ["old/1", "new/1"] {
        assert_eq!(delete(&server, path, 3).status, 200, "{path}");
    }
    all_told(&server, 60);
    server.stop();
    // What clients find who are given the old server's address again.
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, old.port()));
    let there = |path: &str| {
        let answer = Request::new(address, "GET", &format!("/files/{path}")).send();
        let version = answer.assert_status(200).header("last-modified").unwrap().replace("GMT", "-0000");
        (version, answer.body)
    };
    for number in (0..10).filter(|number| *number != 1) {
        let content = format!("written {}", number % 4).into_bytes();
        assert_eq!(there(&format!("new/{number}")), (shown(2), content));
    }
    assert_eq!(there("old/0"), (shown(2), b"replaced".to_vec()));
    assert_eq!(there("old/2"), (shown(1), b"before".to_vec()));
    // So far it goes: what was deleted is there as it was.
    assert_eq!(there("old/1"), (shown(1), b"before".to_vec()));
    assert_eq!(there("new/1"), (shown(2), b"written 1".to_vec()));
    // They go on there, and come forth again.
    for path in ["old/3", "new/1"] {
        let request = Request::new(address, "PUT", &format!("/files/{path}")).header("Last-Modified", &shown(9));
        request.body(b"written there").send().assert_status(200);
    }
    server.start_again();
    let here = |path: &str| {
        let answer = server.request("GET", &format!("/files/{path}")).header("Accept-Encoding", "identity").send();
        (answer.status == 200).then(|| (version(&answer), answer.body))
    };
    for path in ["old/3", "new/1"] {
        assert_eq!(here(path), Some((shown(9), b"written there".to_vec())), "{path}");
    }
    assert_eq!(here("old/1"), None, "it was deleted here, and nobody stored it since");
    assert_eq!(here("old/0"), Some((shown(2), b"replaced".to_vec())));
}

#[test]
fn what_a_killed_server_of_version_1_has_but_a_part_of_is_not_taken_for_newer() {
    let old = FirstFiletracker::start();
    let watcher = Watcher::start(old.port(), Duration::ZERO);
    let content = Noise::bytes(6, 300_000);
    let server = beside(&watcher.url(), "live").env("FILETRACKER_V1_DIR", old.dir().display()).start();
    watcher.cut_uploads(true);
    for path in ["part", "nothing", "whole", "deleted", "overwritten", "begun", "theirs"] {
        put(&server, path, 1, &content).assert_status(200);
    }
    eventually("it was told in vain", || {
        let waits = &told(&server)["old_server"]["second_writes"];
        (waits["waiting"] == 7 && waits["failures"].as_u64() >= Some(7)).then_some(())
    });
    // What its script leaves when it is killed: files with the time for their version. The last is another client's.
    for (name, bytes) in [
        ("part", &content[..100_000]),
        ("nothing", &[]),
        ("whole", &content),
        ("deleted", &content),
        ("overwritten", &content),
        ("begun", &[]),
        ("theirs", b"by another"),
    ] {
        fs::write(old.dir().join("files").join(name), bytes).unwrap();
    }
    let bytes = |path: &str| {
        let answer = server.request("GET", &format!("/files/{path}")).header("Accept-Encoding", "identity").send();
        (answer.status == 200).then_some(answer.body)
    };
    for path in ["overwritten", "begun"] {
        put(&server, path, 5, b"anew").assert_status(200);
    }
    assert_eq!(delete(&server, "deleted", 5).status, 200);
    let as_it_is_here = || {
        for path in ["part", "nothing", "whole"] {
            assert!(bytes(path).as_deref() == Some(&content[..]), "{path}");
        }
        for path in ["overwritten", "begun"] {
            assert_eq!(bytes(path).as_deref(), Some(&b"anew"[..]), "{path}");
        }
        assert_eq!(bytes("deleted"), None);
    };
    as_it_is_here();
    watcher.cut_uploads(false);
    all_told(&server, 120);
    as_it_is_here();
    for (path, content) in [
        ("part", &content[..]),
        ("nothing", &content),
        ("whole", &content),
        ("overwritten", b"anew"),
        ("begun", b"anew"),
    ] {
        assert!(on_disk(old.dir(), path).unwrap().1 == content, "{path}");
    }
    assert_eq!(bytes("theirs").as_deref(), Some(&b"by another"[..]));
}
