//! What the old server has is served as if it were here, and soon is.

use std::thread;
use std::time::Duration;

use s3dedup_actors::testkit::filetracker::OldFiletracker;

use super::world::{Watcher, beside, delete, old_file, old_put, old_request, our_file, put, told};
use crate::support::content::{date, gunzip, gzip, sha256, shown};
use crate::support::{Noise, TestServer, eventually};

#[test]
fn a_file_of_the_old_server_is_served_at_once_and_stored() {
    let mut old = OldFiletracker::start();
    let large = Noise::bytes(1, 5 << 20);
    let files: [(&str, &[u8]); 4] =
        [("a", b"one"), ("d/%C5%BC%C3%B3%20%3F%23+%25", b"two"), ("empty", b""), ("large", &large)];
    for (path, content) in files {
        old_put(&old, path, 1, content);
    }
    let server = beside(&old.url(), "proxy").start();
    for (path, content) in files {
        let head = server.request("HEAD", &format!("/files/{path}")).header("Accept-Encoding", "gzip").send();
        head.assert_status(200);
        assert_eq!(head.header("logical-size"), Some(content.len().to_string().as_str()));
        assert_eq!(head.header("content-encoding"), Some("gzip"));
        let answer = server.request("GET", &format!("/files/{path}")).header("Accept-Encoding", "gzip").send();
        answer.assert_status(200);
        assert_eq!(answer.header("last-modified"), Some(shown(1).as_str()));
        assert_eq!(answer.content_length(), head.content_length());
        assert!(gunzip(&answer.body) == content, "{path}");
    }
    // A client that rules gzip out, of one that is not here yet.
    old_put(&old, "plain", 1, b"three");
    let answer = server.request("GET", "/files/plain").header("Accept-Encoding", "identity").send();
    assert_eq!((answer.assert_status(200).body.as_slice(), answer.header("content-encoding")), (&b"three"[..], None));
    eventually("all is stored", || (told(&server)["old_server"]["files_being_fetched"] == 0).then_some(()));
    old.stop();
    for (path, content) in files {
        assert!(our_file(&server, path).unwrap() == (shown(1), content.to_vec()), "{path}");
    }
}

#[test]
fn what_is_not_known_is_never_absent() {
    let mut old = OldFiletracker::start();
    let server = beside(&old.url(), "proxy").start();
    put(&server, "here", 1, b"here").assert_status(200);
    for method in ["GET", "HEAD"] {
        assert_eq!(server.request(method, "/files/nowhere").send().status, 404);
    }
    old.stop();
    for method in ["GET", "HEAD"] {
        let answer = server.request(method, "/files/nowhere").send();
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("5")), "{method}");
        assert_eq!(server.request(method, "/files/here").send().status, 200, "{method}");
    }
    server.request("GET", "/list/").send().assert_refused(503);
    put(&server, "there", 1, b"written").assert_status(200);
    assert_eq!(our_file(&server, "there").unwrap().1, b"written");
}

#[test]
fn a_newer_version_on_the_old_server_is_seen() {
    let old = OldFiletracker::start();
    let server = beside(&old.url(), "proxy").start();
    put(&server, "a", 1, b"ours").assert_status(200);
    old_put(&old, "a", 5, b"theirs");
    assert_eq!(our_file(&server, "a").unwrap(), (shown(5), b"theirs".to_vec()));
    // An older upload changes nothing on either side, and says so.
    let answer = put(&server, "a", 3, b"late");
    assert_eq!(answer.assert_status(200).header("last-modified"), Some(shown(5).as_str()));
    assert_eq!(old_file(&old, "a").unwrap(), (shown(5), b"theirs".to_vec()));
}

#[test]
fn twenty_clients_are_one_fetch() {
    let old = OldFiletracker::start();
    let content = Noise::bytes(2, 6 << 20);
    old_put(&old, "wanted", 1, &content);
    let watcher = Watcher::start(old.port(), Duration::from_millis(5));
    let server = beside(&watcher.url(), "proxy").env("MAX_INMEMORY_SIZE", 1 << 20).start();
    thread::scope(|scope| {
        for client in 0..20 {
            let (server, content) = (&server, &content);
            scope.spawn(move || {
                // Some join late, one has had enough early.
                thread::sleep(Duration::from_millis(40 * client));
                if client == 3 {
                    let mut connection = server.connect();
                    connection.write(&server.request("GET", "/files/wanted").head());
                    connection.line();
                    return;
                }
                let (version, bytes) = our_file(server, "wanted").unwrap();
                assert!(version == shown(1) && bytes == *content);
            });
        }
    });
    eventually("it is stored", || (told(&server)["old_server"]["files_being_fetched"] == 0).then_some(()));
    assert!(our_file(&server, "wanted").is_some());
    assert_eq!(watcher.count("GET /files/wanted"), 1);
}

#[test]
fn a_broken_file_is_cut_off_and_not_stored() {
    let old = OldFiletracker::start();
    let content = Noise::bytes(3, 300_000);
    let body = gzip(&content, 6);
    for (path, body, size) in [("cut", &body[..body.len() / 2], content.len()), ("lie", &body[..], 5)] {
        let request = old_request(&old, "PUT", &format!("/files/{path}?last_modified={}", date(1)));
        // The old server believes all of this.
        let request = request.header("Content-Encoding", "gzip").header("SHA256-Checksum", &sha256(path.as_bytes()));
        request.header("Logical-Size", &size.to_string()).body(body).send().assert_status(200);
    }
    let server = beside(&old.url(), "proxy").start();
    for path in ["cut", "lie"] {
        let answer = server.request("GET", &format!("/files/{path}")).send();
        assert!(answer.status != 200 || !answer.complete, "{path}");
    }
    eventually("they are told of", || (told(&server)["old_server"]["files_broken"] == 2).then_some(()));
    assert!(server.objects().is_empty());
}

#[test]
fn listings_show_both_sides_once() {
    let old = OldFiletracker::start();
    for path in ["d/old", "d/both", "d/%C5%BC", "d/deleted", "e/else"] {
        old_put(&old, path, 1, b"theirs");
    }
    old_put(&old, "d/late", 30, b"theirs");
    let server = beside(&old.url(), "proxy").start();
    for (path, offset) in [("d/new", 1), ("d/both", 2), ("d/later", 30)] {
        put(&server, path, offset, b"ours").assert_status(200);
    }
    delete(&server, "d/deleted", 2).assert_status(200);
    assert!(our_file(&server, "d/old").is_some());
    assert_eq!(server.list("d"), ["both", "late", "later", "new", "old", "ż"]);
    let early = server.request("GET", &format!("/list/d?last_modified={}", date(5))).send();
    assert_eq!(early.assert_status(200).lines(), ["both", "new", "old", "ż"]);
    assert_eq!(server.list("e"), ["else"]);
    server.request("GET", "/list/none").send().assert_refused(400);
    let all = server.list("");
    assert_eq!(all, ["d/both", "d/late", "d/later", "d/new", "d/old", "d/ż", "e/else"]);
}

#[test]
fn the_background_copy_brings_all_files_and_no_deleted_ones() {
    let mut old = OldFiletracker::start();
    for number in 0..40 {
        old_put(&old, &format!("f/{number:02}"), 1, format!("content {}", number % 10).as_bytes());
    }
    // Slow enough for deletions while it copies.
    let watcher = Watcher::start(old.port(), Duration::from_millis(100));
    let server = beside(&watcher.url(), "live").env("MIGRATION_MAX_CONCURRENCY", 1).start();
    eventually("it copies", || (told(&server)["phase"] == "copying").then_some(()));
    // One of the first and the last ones, whatever the order: some that are here and some that are still to come.
    let deleted = ["f/00", "f/01", "f/37", "f/38", "f/39"];
    for path in deleted {
        delete(&server, path, 2).assert_status(200);
    }
    // It finds one again in the version that was deleted.
    old_put(&old, "f/39", 1, b"content 9");
    assert_eq!(told(&server)["phase"], "copying", "the deletions came too late to prove anything");
    super::world::all_copied(&server);
    old.stop();
    for number in 0..40 {
        let path = format!("f/{number:02}");
        let content = our_file(&server, &path).map(|(_, content)| content);
        let wanted = format!("content {}", number % 10).into_bytes();
        assert_eq!(content, (!deleted.contains(&path.as_str())).then_some(wanted), "{path}");
    }
}

#[test]
fn commands_and_flags_that_do_not_go_together_are_refused() {
    let server = TestServer::builder().prepare();
    for arguments in [
        &["server", "--migrate-from", "http://127.0.0.1:1", "--proxy-only", "--file-list", "x"][..],
        &["live-migrate", "--proxy-only", "--file-list", "x"],
    ] {
        assert_eq!(server.run(arguments).status.code(), Some(2), "{arguments:?}");
    }
    for arguments in
        [&["live-migrate"][..], &["live-migrate-v1"], &["server", "--file-list", "x"], &["server", "--proxy-only"]]
    {
        let refused = server.run(arguments);
        let text = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(2), "{arguments:?} {text}");
        assert!(text.contains("is missing"), "{arguments:?} {text}");
    }
    let server = TestServer::builder().env("MIGRATION", "live").prepare();
    let alone = server.run(&["server"]);
    let text = String::from_utf8_lossy(&alone.stderr).into_owned();
    assert!(alone.status.code() == Some(2) && text.contains("the old server is missing"), "{text}");
    let server = TestServer::builder().env("MIGRATION_FILE_LIST", "x").prepare();
    let both = server.run(&["server", "--migrate-from", "http://127.0.0.1:1", "--proxy-only"]);
    let text = String::from_utf8_lossy(&both.stderr).into_owned();
    assert!(both.status.code() == Some(2) && text.contains("file_list"), "{text}");
}
