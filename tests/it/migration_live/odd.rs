//! What is large, what one side cannot take, and what is not there when it should be.

use std::time::Duration;

use s3dedup_actors::testkit::filetracker::OldFiletracker;

use super::world::{
    Watcher, all_copied, all_told, beside, delete, old_file, old_put, old_request, our_file, put, told,
};
use crate::migration::old::{large_bytes, large_gzip, large_sha256};
use crate::support::content::{date, shown};
use crate::support::{TestServer, eventually};

#[test]
fn a_gigabyte_comes_goes_and_is_copied() {
    let mut old = OldFiletracker::start();
    let (body, digest, size) = (large_gzip(), large_sha256(), large_bytes().to_string());
    for path in ["asked", "copied"] {
        let request = old_request(&old, "PUT", &format!("/files/{path}?last_modified={}", date(1)));
        let request = request.header("Content-Encoding", "gzip").header("SHA256-Checksum", &digest);
        request.header("Logical-Size", &size).body(&body[..]).send().assert_status(200);
    }
    let server = beside(&old.url(), "live").start();
    let gzipped = |path: &str| {
        let answer = server.request("GET", &format!("/files/{path}")).header("Accept-Encoding", "gzip").send();
        assert_eq!(answer.assert_status(200).header("logical-size"), Some(size.as_str()));
        assert!(answer.body == body, "{path}");
    };
    gzipped("asked");
    let request = server.request("PUT", &format!("/files/written?last_modified={}", date(2)));
    let request = request.header("Content-Encoding", "gzip").header("SHA256-Checksum", &digest);
    request.header("Logical-Size", &size).body(&body[..]).send().assert_status(200);
    eventually("all are copied", || (told(&server)["phase"] == "done").then_some(()));
    all_told(&server, 120);
    let there = old_request(&old, "GET", "/files/written").send();
    assert!(there.assert_status(200).body == body);
    assert_eq!(there.header("last-modified"), Some(shown(2).as_str()));
    old.stop();
    for path in ["asked", "copied", "written"] {
        gzipped(path);
    }
    assert_eq!(server.objects().len(), 1);
}

#[test]
fn names_that_are_files_on_one_side_and_directories_on_the_other_live_here() {
    let old = OldFiletracker::start();
    old_put(&old, "file", 1, b"a file there");
    old_put(&old, "folder/below", 1, b"below there");
    let server = beside(&old.url(), "live").start();
    all_copied(&server);
    put(&server, "file/below", 2, b"below here").assert_status(200);
    put(&server, "folder", 2, b"a file here").assert_status(200);
    // The old server takes neither; what else there is does not wait for them.
    put(&server, "other", 2, b"other").assert_status(200);
    assert_eq!(old_file(&old, "other").unwrap(), (shown(2), b"other".to_vec()));
    let files: [(&str, u32, &[u8]); 4] = [
        ("file", 1, b"a file there"),
        ("file/below", 2, b"below here"),
        ("folder", 2, b"a file here"),
        ("folder/below", 1, b"below there"),
    ];
    for (path, offset, content) in files {
        assert_eq!(our_file(&server, path).unwrap(), (shown(offset), content.to_vec()), "{path}");
    }
    assert_eq!(server.list(""), ["file", "file/below", "folder", "folder/below", "other"]);
    assert_eq!(server.list("file"), ["below"]);
    eventually("it is told that they wait, and why", || {
        let waits = &told(&server)["old_server"]["second_writes"];
        (waits["waiting"] == 2 && waits["last_error"].is_string() && waits["failures"].as_u64() > Some(1)).then_some(())
    });
    assert_eq!(old_file(&old, "file").unwrap().1, b"a file there");
    assert_eq!(old_file(&old, "folder/below").unwrap().1, b"below there");
}

#[test]
fn a_list_of_names_is_copied_when_the_old_server_comes_back() {
    let mut old = OldFiletracker::start();
    for number in 0..20 {
        old_put(&old, &format!("f/{number}"), 1, format!("content {number}").as_bytes());
    }
    let dir = tempfile::tempdir().unwrap();
    let list = dir.path().join("names");
    std::fs::write(&list, (0..10).map(|number| format!("/f/{number}\n")).collect::<String>() + "nowhere\n").unwrap();
    old.stop();
    let mut server = beside(&old.url(), "live").env("MIGRATION_FILE_LIST", list.display()).start();
    let waits = |server: &TestServer| {
        eventually("it waits", || told(server)["waits_for"].is_string().then_some(()));
    };
    waits(&server);
    // What clients do meanwhile goes on; what they cannot know is 503.
    put(&server, "f/3", 2, b"newer").assert_status(200);
    server.request("GET", "/files/f/4").send().assert_refused(503);
    server.signal(rustix::process::Signal::KILL);
    server.wait();
    server.start_again();
    waits(&server);
    old.start_again();
    all_copied(&server);
    let files = &told(&server)["files"];
    assert_eq!((&files["total"], &files["gone"], &files["failed"]), (&11.into(), &1.into(), &0.into()), "{files}");
    all_told(&server, 60);
    old.stop();
    for number in 0..10 {
        let newer = number == 3;
        let content = if newer { b"newer".to_vec() } else { format!("content {number}").into_bytes() };
        let there = our_file(&server, &format!("f/{number}")).unwrap();
        assert_eq!(there, (shown(if newer { 2 } else { 1 }), content), "{number}");
    }
    server.request("GET", "/files/f/15").send().assert_refused(503);
}

#[test]
fn the_tree_of_actors_shows_what_the_old_server_was_not_told() {
    let mut old = OldFiletracker::start();
    old_put(&old, "theirs", 1, b"theirs");
    let server = beside(&old.url(), "proxy").start();
    assert!(our_file(&server, "theirs").is_some());
    old.stop();
    for number in 0..7 {
        put(&server, &format!("f/{number}"), 1, b"content").assert_status(200);
    }
    let tree = || -> serde_json::Value {
        let answer = server.raw_request("GET", "/api/actors").send();
        serde_json::from_slice(&answer.assert_status(200).body).unwrap()
    };
    let part = |tree: &serde_json::Value, list: &str, name: &str| {
        let found = tree.pointer(list).unwrap().as_array().unwrap().iter().find(|one| one["name"] == name);
        found.unwrap_or_else(|| panic!("no {name} in {tree:#}")).clone()
    };
    eventually("the breaker and the mirror tell", || {
        let tree = tree();
        let mirror = part(&tree, "/actors/children", "mirror");
        let is_open = part(&tree, "/breakers", "the old server")["state"] != "closed";
        (is_open && mirror["load"]["waiting"] == 7 && mirror["load"]["oldest_seconds"].is_u64()).then_some(())
    });
    assert_eq!(told(&server)["old_server"]["reads_answered"], 1);
    let metrics = server.raw_request("GET", "/metrics").send();
    for line in ["migration_active 1", "migration_files_migrated_total 1", "filetracker_fallbacks_total 1"] {
        assert!(metrics.text().lines().any(|it| it == format!("s3dedup_{line}")), "{line}");
    }
    old.start_again();
    all_told(&server, 60);
    let tree = tree();
    assert_eq!(part(&tree, "/breakers", "the old server")["state"], "closed");
    assert_eq!(part(&tree, "/actors/children", "mirror")["load"]["waiting"], 0);
}

#[test]
fn what_the_old_server_gave_a_version_of_its_own_when_it_was_killed_is_not_newer() {
    let old = OldFiletracker::start();
    let watcher = Watcher::start(old.port(), Duration::ZERO);
    let server = beside(&watcher.url(), "proxy").start();
    watcher.cut_uploads(true);
    for path in ["kept", "deleted", "replaced", "theirs"] {
        put(&server, path, 1, b"ours").assert_status(200);
    }
    eventually("it was told in vain", || {
        let waits = &told(&server)["old_server"]["second_writes"];
        (waits["waiting"] == 4 && waits["failures"].as_u64() >= Some(4)).then_some(())
    });
    // It makes the link, and dies before it notes the version: that is the time then. The last is another client's.
    for (path, content) in [("kept", "ours"), ("deleted", "ours"), ("replaced", "ours"), ("theirs", "theirs")] {
        old_put(&old, path, 2000, content.as_bytes());
    }
    watcher.cut_uploads(false);
    assert_eq!(our_file(&server, "kept").unwrap(), (shown(1), b"ours".to_vec()));
    put(&server, "replaced", 5, b"replaced").assert_status(200);
    assert_eq!(delete(&server, "deleted", 5).status, 200);
    assert!(our_file(&server, "deleted").is_none());
    assert!(!server.list("").contains(&"deleted".to_owned()));
    all_told(&server, 120);
    for (path, want) in [("kept", Some((1, "ours"))), ("deleted", None), ("replaced", Some((5, "replaced")))] {
        let want = want.map(|(offset, content)| (shown(offset), content.as_bytes().to_vec()));
        assert_eq!((&our_file(&server, path), &old_file(&old, path)), (&want, &want), "{path}");
    }
    let theirs = Some((shown(2000), b"theirs".to_vec()));
    assert_eq!((&our_file(&server, "theirs"), &old_file(&old, "theirs")), (&theirs, &theirs));
}
