//! Damage, from outside: who finds it, who heals it, what is refused.

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use s3dedup_actors::testkit::postgres::{DATABASE, PostgresServer};
use s3dedup_actors::testkit::proxy::{HttpFault, HttpFaultProxy};
use serde_json::Value;

use crate::support::s3::S3InProcess;
use crate::support::{Noise, TestServer, gunzip, sha256, upload};

/// The JSON report of a command that must end with `code`.
fn report(server: &TestServer, code: i32, arguments: &[&str]) -> Value {
    let output = server.run(&[arguments, &["--json"]].concat());
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{arguments:?} {said} {complained}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error} {said} {complained}"))
}

/// The kinds of the damages of a report.
fn kinds(report: &Value) -> Vec<&str> {
    report["damages"].as_array().unwrap().iter().map(|damage| damage["kind"].as_str().unwrap()).collect()
}

#[track_caller]
fn assert_served(server: &TestServer, name: &str, content: &[u8]) {
    let answer = server.request("GET", &format!("/files/{name}")).send();
    assert!(gunzip(&answer.assert_status(200).body) == content, "{name}");
}

/// Neither whole nor absent.
#[track_caller]
fn assert_damaged(server: &TestServer, name: &str) {
    if let Ok(answer) = server.request("GET", &format!("/files/{name}")).try_send() {
        assert!(answer.status >= 500 || (answer.status == 200 && !answer.complete), "{name} {}", answer.status);
    }
}

fn flip(object: &Path) {
    let mut bytes = fs::read(object).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(object, bytes).unwrap();
}

/// A small and a large content, each under two names, are lost in two ways; after a read found out, an upload under a
/// third name brings them back for all.
fn an_upload_heals(mut server: TestServer, objects: impl Fn(&TestServer) -> Vec<PathBuf>) {
    for (len, seed) in [(3_000, 1), (3 << 20, 2)] {
        for (damage, is_missing) in [("flipped", false), ("missing", true)] {
            let content = Noise::bytes(seed + 10 * u64::from(is_missing), len);
            let name = |which: &str| format!("{damage}/{len}/{which}");
            for which in ["a", "b"] {
                upload(&server, &name(which), 0, &content).send().assert_status(200);
            }
            // Small contents are kept in memory.
            server.stop();
            let digest = sha256(&content);
            let is_it =
                |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&digest));
            let object = objects(&server).into_iter().find(is_it).unwrap();
            match is_missing {
                true => fs::remove_file(&object).unwrap(),
                false => flip(&object),
            }
            server.start_again();
            assert_damaged(&server, &name("a"));
            let found = report(&server, 9, &["verify"]);
            let kind = if is_missing { "missing-object" } else { "wrong-content" };
            assert_eq!(kinds(&found), [kind], "what a read found is read by every verify");
            upload(&server, &name("c"), 1, &content).send().assert_status(200);
            for which in ["a", "b", "c"] {
                assert_served(&server, &name(which), &content);
            }
            report(&server, 0, &["verify", "--deep"]);
            // Whole contents are uploaded once.
            let before = objects(&server).len();
            upload(&server, &name("d"), 1, &content).send().assert_status(200);
            assert_eq!(objects(&server).len(), before);
            assert_eq!(object.exists(), !is_missing, "nothing is deleted");
        }
    }
    server.stop();
    server.start_again();
    assert_served(&server, "missing/3000/a", &Noise::bytes(11, 3_000));
}

#[test]
fn an_upload_heals_what_a_read_found_damaged_in_a_folder() {
    an_upload_heals(TestServer::start(), TestServer::objects);
}

#[test]
fn an_upload_heals_what_a_read_found_damaged_in_a_bucket_with_postgres() {
    let (s3, postgres) = (S3InProcess::start(), PostgresServer::start());
    let server = TestServer::builder().s3(&s3.access).postgres(&postgres, DATABASE).start();
    an_upload_heals(server, |_| s3.objects());
}

#[test]
fn an_upload_heals_what_a_repair_could_not() {
    let mut server = TestServer::start();
    let contents = [Noise::bytes(1, 2_000), Noise::bytes(2, 2_000)];
    for (name, content) in ["flipped", "missing"].iter().zip(&contents) {
        upload(&server, name, 0, content).send().assert_status(200);
    }
    server.stop();
    for object in server.objects() {
        let is_first = object.file_name().unwrap().to_string_lossy() == sha256(&contents[0]);
        if is_first { flip(&object) } else { fs::remove_file(&object).unwrap() }
    }
    for _ in 0..2 {
        let repaired = report(&server, 9, &["repair", "--deep"]);
        assert_eq!(repaired["lost"].as_array().unwrap().len(), 2, "{repaired}");
    }
    server.start_again();
    // Nobody has read them.
    for (name, content) in ["flipped", "missing"].iter().zip(&contents) {
        upload(&server, name, 0, content).send().assert_status(200);
        assert_served(&server, name, content);
    }
    report(&server, 0, &["verify", "--deep"]);
}

#[test]
fn a_repair_takes_back_what_was_wrongly_found() {
    let mut server = TestServer::start();
    upload(&server, "x", 0, b"a content").send().assert_status(200);
    server.stop();
    let object = server.objects().pop().unwrap();
    flip(&object);
    server.start_again();
    assert_damaged(&server, "x");
    server.stop();
    // The disk is itself again.
    flip(&object);
    assert_eq!(report(&server, 0, &["verify"])["cleared"].as_array().unwrap().len(), 1);
    let repaired = report(&server, 0, &["repair"]);
    assert_eq!(repaired["actions"][0]["action"], "clear", "{repaired}");
    assert_eq!(report(&server, 0, &["verify"])["cleared"], serde_json::json!([]));
    server.start_again();
    upload(&server, "y", 0, b"a content").send().assert_status(200);
    assert_eq!(server.objects().len(), 1);
    assert_served(&server, "y", b"a content");
}

#[test]
fn an_upload_that_is_acknowledged_and_not_stored_is_told_and_healed() {
    let s3 = S3InProcess::start();
    let proxy = HttpFaultProxy::start(s3.access.address(), 1);
    let mut access = s3.access.clone();
    access.endpoint = format!("http://{}", proxy.address());
    let server = TestServer::builder().s3(&access).env("CONTENT_CACHE_BYTES", 0).start();
    upload(&server, "good", 0, b"another content").send().assert_status(200);
    let contents = [Noise::bytes(1, 3_000), Noise::bytes(2, 1 << 20)];
    proxy.fail(HttpFault::Unstored, 1.0);
    for (number, content) in contents.iter().enumerate() {
        upload(&server, &format!("lost/{number}"), 0, content).send().assert_status(200);
    }
    proxy.pass();
    assert_eq!(proxy.met(), 2);
    let found = report(&server, 9, &["verify"]);
    assert_eq!(kinds(&found), ["missing-object"; 2]);
    for (number, content) in contents.iter().enumerate() {
        let name = format!("lost/{number}");
        let mut names = found["damages"].as_array().unwrap().iter().map(|damage| &damage["names"][0]);
        assert!(names.any(|told| *told == name.as_str()), "{found}");
        // Known to be gone from here on.
        let answer = server.request("GET", &format!("/files/{name}")).send();
        assert!(answer.status >= 500, "{}", answer.status);
        upload(&server, &name, 0, content).send().assert_status(200);
        assert_served(&server, &name, content);
    }
    assert_served(&server, "good", b"another content");
    report(&server, 0, &["verify", "--deep"]);
}

/// Twenty names of as many contents; returns the contents.
fn fill(server: &TestServer) -> Vec<Vec<u8>> {
    let contents: Vec<_> = (0..20).map(|seed| Noise::bytes(100 + seed, 500)).collect();
    for (number, content) in contents.iter().enumerate() {
        upload(server, &format!("f/{number}"), 0, content).send().assert_status(200);
    }
    contents
}

/// The content in the order of digests.
fn nth(contents: &[Vec<u8>], number: usize) -> (String, String) {
    let mut digests: Vec<_> = contents.iter().enumerate().map(|(name, content)| (sha256(content), name)).collect();
    digests.sort();
    let (digest, name) = digests.swap_remove(number);
    (digest, format!("f/{name}"))
}

/// A row that makes no sense, and behind it an object that is missing: both are told.
fn bad_rows_are_damage(server: &TestServer, contents: &[Vec<u8>]) {
    let (bad, (missing, name)) = (nth(contents, 3).0, nth(contents, 9));
    let object = server.objects().into_iter().find(|path| path.ends_with(&missing)).unwrap();
    fs::remove_file(object).unwrap();
    for arguments in [&["verify"][..], &["verify", "--deep"]] {
        let found = report(server, 9, arguments);
        assert_eq!(kinds(&found), ["unreadable-row", "missing-object"], "{found}");
        assert!(found["damages"][0]["row"].as_str().unwrap().contains(&bad), "{found}");
        assert_eq!(found["damages"][1]["names"][0], name, "{found}");
    }
    let output = server.run(&["verify"]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("unreadable-row contents"), "{output:?}");
    // The row can be made anew, as the object proves what it holds; what has no object is lost.
    let repaired = report(server, 9, &["repair", "--dry-run"]);
    assert_eq!(repaired["lost"].as_array().unwrap().len(), 1, "{repaired}");
    let switch = &repaired["actions"].as_array().unwrap().iter().find(|action| action["action"] == "switch");
    assert!(switch.unwrap()["to"].as_str().unwrap().ends_with(&bad), "{repaired}");
}

#[test]
fn a_row_that_makes_no_sense_is_damage_with_sqlite() {
    let mut server = TestServer::start();
    let contents = fill(&server);
    server.stop();
    let database = Connection::open(server.data_dir().join("kv.db")).unwrap();
    let bad = nth(&contents, 3).0;
    let sql = format!("UPDATE representations SET encoding = 'lzma' WHERE hex(digest) = upper('{bad}')");
    assert_eq!(database.execute(&sql, []).unwrap(), 1);
    drop(database);
    bad_rows_are_damage(&server, &contents);
    // Names and contents whose digests are none.
    let database = Connection::open(server.data_dir().join("kv.db")).unwrap();
    let sql = "PRAGMA ignore_check_constraints = on;
        INSERT INTO contents VALUES (x'00', 5, 1, NULL);
        UPDATE entries SET digest = x'ff00' WHERE name = 'f/7';
        UPDATE contents SET logical_size = -5 WHERE refs = 1 AND length(digest) = 32;";
    database.execute_batch(sql).unwrap();
    drop(database);
    let found = report(&server, 9, &["verify"]);
    let rows: Vec<_> =
        found["damages"].as_array().unwrap().iter().filter_map(|damage| damage["row"].as_str()).collect();
    for row in ["contents 00", "entries of content ff00", "the file"] {
        assert!(rows.contains(&row), "{row} {rows:?}");
    }
}

#[test]
fn a_row_that_makes_no_sense_is_damage_with_postgres() {
    let postgres = PostgresServer::start();
    let mut server = TestServer::builder().postgres(&postgres, DATABASE).start();
    let contents = fill(&server);
    server.stop();
    let bad = nth(&contents, 3).0;
    postgres.sql(&format!("UPDATE s3dedup.representations SET encoding = 'lzma' WHERE digest = '\\x{bad}'"));
    bad_rows_are_damage(&server, &contents);
}

#[test]
fn a_broken_page_of_the_database_file_is_damage_and_no_failure() {
    let mut server = TestServer::start();
    fill(&server);
    server.stop();
    let file = server.data_dir().join("kv.db");
    let database = Connection::open(&file).unwrap();
    let number = |sql: &str, name: &str| -> usize {
        let number: i64 = database.query_row(sql, [name], |row| row.get(0)).unwrap();
        usize::try_from(number).unwrap()
    };
    let page_size = number("SELECT page_size FROM pragma_page_size WHERE ?1 = ?1", "");
    let page = |table: &str| number("SELECT rootpage FROM sqlite_master WHERE name = ?1", table);
    let pages: Vec<_> =
        ["contents", "representations", "entries", "entries_digest"].map(|table| (table, page(table))).into();
    drop(database);
    let whole = fs::read(&file).unwrap();
    for (table, page) in pages {
        let mut bytes = whole.clone();
        bytes[(page - 1) * page_size..page * page_size].fill(0xa5);
        fs::write(&file, bytes).unwrap();
        let found = report(&server, 9, &["verify"]);
        assert!(kinds(&found).contains(&"unreadable-row"), "{table} {found}");
    }
    fs::write(&file, whole).unwrap();
    report(&server, 0, &["verify", "--deep"]);
}

#[test]
fn an_upload_heals_a_content_whose_row_is_lost_or_says_the_wrong_size() {
    for (number, sql) in
        ["DELETE FROM contents", "UPDATE contents SET logical_size = logical_size + 7"].iter().enumerate()
    {
        let mut server = TestServer::start();
        for len in [3_000, 1 << 20] {
            let content = Noise::bytes(50 + number as u64, len);
            upload(&server, &format!("{len}"), 0, &content).send().assert_status(200);
        }
        server.stop();
        Connection::open(server.data_dir().join("kv.db")).unwrap().execute(sql, []).unwrap();
        server.start_again();
        for len in [3_000, 1 << 20] {
            let content = Noise::bytes(50 + number as u64, len);
            let name = format!("{len}");
            if number == 1 {
                // Plain, as only that way the size matters.
                let plain = server.request("GET", &format!("/files/{name}")).header("Accept-Encoding", "identity");
                if let Ok(answer) = plain.try_send() {
                    assert!(answer.status >= 500 || !answer.complete, "{name} {}", answer.status);
                }
            }
            upload(&server, &name, 1, &content).send().assert_status(200);
            assert_served(&server, &name, &content);
        }
        server.stop();
        // The totals were not told of what was lost.
        report(&server, 0, &["repair"]);
        report(&server, 0, &["verify", "--deep"]);
    }
}

#[test]
fn an_upload_heals_a_wrong_size_with_postgres() {
    let postgres = PostgresServer::start();
    let server = TestServer::builder().postgres(&postgres, DATABASE).start();
    let content = Noise::bytes(60, 1 << 20);
    upload(&server, "x", 0, &content).send().assert_status(200);
    postgres.sql("UPDATE s3dedup.contents SET logical_size = logical_size + 7");
    let plain = server.request("GET", "/files/x").header("Accept-Encoding", "identity");
    if let Ok(answer) = plain.try_send() {
        assert!(answer.status >= 500 || !answer.complete, "{}", answer.status);
    }
    upload(&server, "x", 1, &content).send().assert_status(200);
    let answer = server.request("GET", "/files/x").header("Accept-Encoding", "identity").send();
    assert!(answer.assert_status(200).body == content);
}

/// Takes away all that is in the content store, the mark of the database with it.
fn empty(server: &TestServer) {
    let blobs = server.data_dir().join("blobs");
    fs::remove_dir_all(&blobs).unwrap();
    fs::create_dir(&blobs).unwrap();
}

#[test]
fn an_emptied_store_is_told_and_fetched_from_a_fallback_when_that_is_asked_for() {
    let other = TestServer::start();
    let contents = fill(&other);
    let mut server = TestServer::start();
    fill(&server);
    server.stop();
    empty(&server);
    assert!(server.fails_to_start().contains("s3dedup repair --accept-empty-store"));
    let found = report(&server, 9, &["verify"]);
    assert_eq!(kinds(&found), ["missing-object"; 20]);
    server.set_env("FALLBACK_URL", Some(&other.url()));
    let output = server.run(&["repair"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("--accept-empty-store"), "{said}");
    assert_eq!(server.objects().len(), 0, "nothing was fetched unasked");
    let plan = report(&server, 9, &["repair", "--dry-run"]);
    assert_eq!(plan["lost"], serde_json::json!([]), "{plan}");
    assert_eq!(server.objects().len(), 0);
    report(&server, 0, &["repair", "--accept-empty-store"]);
    report(&server, 0, &["verify", "--deep"]);
    server.start_again();
    for (number, content) in contents.iter().enumerate() {
        assert_served(&server, &format!("f/{number}"), content);
    }
}

#[test]
fn an_emptied_store_without_a_fallback_serves_again_and_is_healed_by_uploads() {
    let mut server = TestServer::start();
    let contents = fill(&server);
    server.stop();
    empty(&server);
    let repaired = report(&server, 9, &["repair", "--accept-empty-store"]);
    assert_eq!(repaired["lost"].as_array().unwrap().len(), 20);
    server.start_again();
    assert_eq!(server.list("").len(), 20, "no name is lost");
    assert_damaged(&server, "f/3");
    for (number, content) in contents.iter().enumerate() {
        upload(&server, &format!("f/{number}"), 0, content).send().assert_status(200);
        assert_served(&server, &format!("f/{number}"), content);
    }
    report(&server, 0, &["verify", "--deep"]);
}
