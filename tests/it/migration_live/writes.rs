//! Writes reach both servers, whatever happens to the old one meanwhile.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
use s3dedup_actors::testkit::filetracker::OldFiletracker;
use s3dedup_actors::testkit::postgres::{DATABASE, PASSWORD, PostgresServer, USER};

use super::world::{all_told, beside, delete, old_file, old_put, our_file, put, told};
use crate::support::content::shown;
use crate::support::s3::S3InProcess;
use crate::support::{Noise, eventually};

#[test]
fn writes_reach_both_sides() {
    let old = OldFiletracker::start();
    let server = beside(&old.url(), "proxy").start();
    let large = Noise::bytes(1, 3 << 20);
    for (path, content) in [("a", &b"one"[..]), ("d/%C5%BC%20x", b"two"), ("empty", b""), ("large", &large)] {
        put(&server, path, 1, content).assert_status(200);
        assert!(old_file(&old, path).unwrap() == (shown(1), content.to_vec()), "{path}");
    }
    put(&server, "a", 2, b"newer").assert_status(200);
    assert_eq!(old_file(&old, "a").unwrap(), (shown(2), b"newer".to_vec()));
    // Of only one side, of both, of none, and too old.
    old_put(&old, "theirs", 1, b"theirs");
    assert_eq!(delete(&server, "a", 1).status, 200);
    assert!(old_file(&old, "a").is_some() && our_file(&server, "a").is_some());
    for path in ["a", "theirs", "d/%C5%BC%20x"] {
        assert_eq!(delete(&server, path, 3).status, 200, "{path}");
        assert!(old_file(&old, path).is_none() && our_file(&server, path).is_none(), "{path}");
        assert_eq!(delete(&server, path, 3).status, 404, "{path}");
    }
    assert_eq!(delete(&server, "never", 3).status, 404);
    all_told(&server, 30);
}

#[test]
fn writes_while_the_old_server_is_down_reach_it_later() {
    let mut old = OldFiletracker::start();
    for path in ["gone", "back", "replaced"] {
        old_put(&old, path, 5, b"theirs");
    }
    let mut server = beside(&old.url(), "proxy").start();
    old.stop();
    for number in 0..30 {
        put(&server, &format!("f/{number}"), 1, format!("content {}", number % 7).as_bytes()).assert_status(200);
    }
    assert_eq!(delete(&server, "f/3", 2).status, 200);
    for path in ["gone", "back"] {
        assert_eq!(delete(&server, path, 9).status, 200);
        assert!(our_file(&server, path).is_none(), "what was deleted is known to be gone");
    }
    // Older than what the old server has, but stored after the deletion.
    put(&server, "back", 3, b"again").assert_status(200);
    put(&server, "replaced", 7, b"newer").assert_status(200);
    eventually("what waits is shown", || {
        let waits = &told(&server)["old_server"]["second_writes"];
        (waits["waiting"] == 33 && waits["oldest_seconds"].is_number()).then_some(())
    });
    // It is remembered.
    server.signal(rustix::process::Signal::KILL);
    server.wait();
    server.start_again();
    old.start_again();
    all_told(&server, 120);
    for number in (0..30).filter(|number| *number != 3) {
        let path = format!("f/{number}");
        assert_eq!(old_file(&old, &path).unwrap(), (shown(1), format!("content {}", number % 7).into_bytes()));
    }
    assert!(old_file(&old, "f/3").is_none() && old_file(&old, "gone").is_none());
    assert_eq!(old_file(&old, "back").unwrap(), (shown(3), b"again".to_vec()));
    assert_eq!(old_file(&old, "replaced").unwrap(), (shown(7), b"newer".to_vec()));
    assert_eq!(our_file(&server, "back").unwrap().1, b"again");
}

#[test]
fn an_old_server_that_falls_silent_keeps_no_client_waiting_and_is_told_later() {
    let old = OldFiletracker::start();
    for path in ["replaced", "gone"] {
        old_put(&old, path, 1, b"theirs");
    }
    let server = beside(&old.url(), "proxy").start();
    old.falls_silent();
    let mut waited = Vec::new();
    let mut in_time = |what: &str, status: u16, begun: Instant| {
        assert_eq!(status, 200, "{what}");
        waited.push((what.to_owned(), begun.elapsed()));
        // Documented are 3 s for looking, and none for telling one that did not answer. The machine may be busy.
        assert!(begun.elapsed() < Duration::from_secs(20), "{waited:?}");
    };
    for (path, offset) in [("new", 2), ("replaced", 5)] {
        let begun = Instant::now();
        in_time(path, put(&server, path, offset, b"ours").status, begun);
    }
    let begun = Instant::now();
    in_time("gone", delete(&server, "gone", 5).status, begun);
    // Also when it is known to be silent.
    let begun = Instant::now();
    in_time("later", put(&server, "later", 6, b"ours").status, begun);
    eprintln!("{waited:?}");
    eventually("what waits is shown", || {
        let waits = &told(&server)["old_server"]["second_writes"];
        (waits["waiting"] == 4 && waits["oldest_seconds"].is_number()).then_some(())
    });
    assert_eq!(our_file(&server, "new").unwrap(), (shown(2), b"ours".to_vec()));
    assert!(our_file(&server, "gone").is_none());
    old.speaks_again();
    all_told(&server, 120);
    for (path, offset) in [("new", 2), ("replaced", 5), ("later", 6)] {
        let ours = (shown(offset), b"ours".to_vec());
        assert_eq!((our_file(&server, path).unwrap(), old_file(&old, path).unwrap()), (ours.clone(), ours), "{path}");
    }
    assert!(our_file(&server, "gone").is_none() && old_file(&old, "gone").is_none());
}

#[test]
fn two_instances_over_postgresql_tell_the_old_server_of_the_same_names() {
    let (postgres, s3) = (PostgresServer::start(), S3InProcess::start());
    let mut old = OldFiletracker::start();
    old_put(&old, "theirs", 1, b"theirs");
    let on = |id: &str| {
        let server = beside(&old.url(), "live").s3(&s3.access).env("KVSTORAGE_TYPE", "postgres");
        let server = server.env("LOCKS_TYPE", "postgres").env("POSTGRES_HOST", "127.0.0.1");
        let server = server.env("POSTGRES_PORT", postgres.port()).env("POSTGRES_USER", USER).env("INSTANCE_ID", id);
        server.env("POSTGRES_PASSWORD", PASSWORD).env("POSTGRES_DB", DATABASE).start()
    };
    let servers = [on("one"), on("two")];
    assert_eq!(our_file(&servers[1], "theirs").unwrap().1, b"theirs");
    for round in 0..10_u32 {
        // The second half is written while the old server is down.
        if round == 5 {
            old.stop();
        }
        for (number, server) in servers.iter().enumerate() {
            let path = format!("f/{}", round % 3);
            let version = 2 * round + number as u32 + 1;
            put(server, &path, version, format!("round {round} by {number}").as_bytes()).assert_status(200);
        }
    }
    assert_eq!(delete(&servers[0], "f/1", 50).status, 200);
    assert!(our_file(&servers[1], "f/1").is_none());
    old.start_again();
    all_told(&servers[0], 120);
    for path in ["f/0", "f/2"] {
        let ours = our_file(&servers[0], path);
        assert!(ours.is_some() && ours == our_file(&servers[1], path) && ours == old_file(&old, path), "{path}");
    }
    assert!(old_file(&old, "f/1").is_none());
    assert_eq!(servers[0].list(""), ["f/0", "f/2", "theirs"]);
}

#[test]
fn the_way_back_needs_nothing_but_the_old_server() {
    let old = OldFiletracker::start();
    for number in 0..10 {
        old_put(&old, &format!("old/{number}"), 1, b"before");
    }
    let mut server = beside(&old.url(), "live").start();
    for number in 0..20 {
        put(&server, &format!("new/{number}"), 2, format!("written {}", number % 4).as_bytes()).assert_status(200);
    }
    put(&server, "old/0", 2, b"replaced").assert_status(200);
    assert_eq!(delete(&server, "old/1", 2).status, 200);
    assert_eq!(delete(&server, "new/1", 3).status, 200);
    all_told(&server, 60);
    server.stop();
    // What clients find who are given the old server's address again.
    for number in (0..20).filter(|number| *number != 1) {
        let content = format!("written {}", number % 4).into_bytes();
        assert_eq!(old_file(&old, &format!("new/{number}")).unwrap(), (shown(2), content));
    }
    assert_eq!(old_file(&old, "old/0").unwrap(), (shown(2), b"replaced".to_vec()));
    assert!(old_file(&old, "old/1").is_none() && old_file(&old, "new/1").is_none());
    assert_eq!(old_file(&old, "old/2").unwrap(), (shown(1), b"before".to_vec()));
    // And forth again.
    old_put(&old, "old/3", 4, b"written there");
    server.start_again();
    assert_eq!(our_file(&server, "old/3").unwrap(), (shown(4), b"written there".to_vec()));
}

#[test]
fn a_content_that_the_old_server_has_broken_is_given_to_it_anew() {
    use super::world::old_request;
    use crate::support::content::{date, gzip, sha256};
    let old = OldFiletracker::start();
    let content = Noise::bytes(4, 200_000);
    let body = gzip(&content, 6);
    // What an upload that broke off leaves: half a content under its digest.
    let request = old_request(&old, "PUT", &format!("/files/half?last_modified={}", date(1)));
    let request = request.header("Content-Encoding", "gzip").header("SHA256-Checksum", &sha256(&content));
    let request = request.header("Logical-Size", &content.len().to_string());
    request.body(&body[..body.len() / 2]).send().assert_status(200);
    let server = beside(&old.url(), "proxy").start();
    put(&server, "whole", 1, &content).assert_status(200);
    all_told(&server, 30);
    assert!(old_file(&old, "whole").unwrap() == (shown(1), content));
}

#[test]
fn a_write_is_not_refused_for_a_version_that_may_not_be_the_real_one() {
    let old = OldFiletracker::start();
    let server = beside(&old.url(), "proxy").start();
    old_put(&old, "flux", 1, b"theirs");
    old_put(&old, "newer", 1, b"theirs");
    let note_version = |name: &str, seconds: i64| {
        let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
        let times = Timestamps { last_access: time, last_modification: time };
        utimensat(CWD, old.data().join("links").join(name), &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().cast_signed();
    for name in ["flux", "newer"] {
        note_version(name, now);
    }
    std::thread::scope(|scope| {
        // While it is told, it notes the version of one, which was older than ours.
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(700));
            note_version("flux", 1_700_000_001);
        });
        for name in ["flux", "newer"] {
            let server = &server;
            scope.spawn(move || put(server, name, 5, b"ours").assert_status(200).status);
        }
    });
    all_told(&server, 120);
    let ours = (shown(5), b"ours".to_vec());
    assert_eq!((our_file(&server, "flux").unwrap(), old_file(&old, "flux").unwrap()), (ours.clone(), ours));
    let newer = old_file(&old, "newer").unwrap();
    assert_eq!((our_file(&server, "newer").unwrap(), newer.1.as_slice()), (newer.clone(), &b"theirs"[..]));
}

#[test]
fn a_write_replaces_what_the_old_server_has_with_a_fraction_of_the_same_second_for_its_version() {
    let old = OldFiletracker::start();
    let server = beside(&old.url(), "proxy").start();
    for (path, nanoseconds) in [("same", 0), ("fraction", 500_000_000)] {
        old_put(&old, path, 5, b"theirs, longer");
        let time = Timespec { tv_sec: 5, tv_nsec: nanoseconds };
        let times = Timestamps { last_access: time, last_modification: time };
        utimensat(CWD, old.data().join("links").join(path), &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        put(&server, path, 5, b"ours").assert_status(200);
    }
    all_told(&server, 60);
    for path in ["same", "fraction"] {
        assert_eq!(old_file(&old, path), our_file(&server, path), "{path}");
    }
}
