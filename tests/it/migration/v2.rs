//! Files of a server of version 2.

use s3dedup_actors::testkit::filetracker::OldFiletracker;
use s3dedup_actors::testkit::postgres::{DATABASE, PASSWORD, PostgresServer, USER};

use super::old::{
    LargeNoise, claim, delete, differences, ends, large_bytes, large_gzip, large_sha256, migrates, noise_bytes, put,
};
use crate::support::s3::S3InProcess;
use crate::support::server::Builder;
use crate::support::{Noise, TestServer, gunzip, gzip, sha256, upload};

const FILES: u64 = 60;

/// Two of five files have the content of another one.
fn content(number: u64) -> Vec<u8> {
    let number = if number % 5 < 2 { 0 } else { number };
    Noise::bytes(number, 1000 + number as usize)
}

fn name(number: u64) -> String {
    match number % 4 {
        0 => format!("{}file{number}", "deep/".repeat(number as usize % 150)),
        1 => format!("zażółć gęślą/jaźń {number} ?#%41+&"),
        2 => format!("日本/語{number}"),
        _ => format!("plain/{number}"),
    }
}

fn fill(old: &OldFiletracker) {
    for number in 0..FILES {
        put(old, &name(number), 1_600_000_000 + number as i64, &content(number));
    }
    put(old, "empty", 0, b"");
    put(old, "before 1970", -5, b"early");
    put(old, "in the future", 4_000_000_000, b"late");
    let size = large_bytes().to_string();
    claim(old, b"large", 1_600_000_000, large_gzip(), &large_sha256(), &size).assert_status(200);
}

fn everything_is_copied(builder: Builder) {
    let old = OldFiletracker::start();
    fill(&old);
    let url = old.url();
    let mut server = builder.prefix("").prepare();
    let (migration, not_copied) = migrates(&server, 0, &["migrate", "--env", "--filetracker-url", &url]);
    let files = FILES + 4;
    assert_eq!(migration["files"]["copied"], files, "{migration}");
    assert!(not_copied.is_empty());
    // Two of five share one content.
    assert_eq!(migration["unique_contents"], files - FILES * 2 / 5 + 1, "{migration}");
    let bytes: u64 = (0..FILES).map(|number| content(number).len() as u64).sum();
    assert_eq!(migration["logical_bytes"], bytes + 9 + large_bytes());
    assert!(migration["stored_bytes"].as_u64().unwrap() < bytes + large_bytes() / 100);
    assert!(differences(&server, &["--filetracker-url", &url]).is_empty());

    // What is here and current is not copied again.
    let (again, _) = migrates(&server, 0, &["migrate", "--filetracker-url", &url, "--max-concurrency", "3"]);
    assert_eq!((&again["files"]["copied"], &again["files"]["skipped"]), (&0.into(), &files.into()));
    assert_eq!(again["received_bytes"], 0);

    server.start_again();
    for number in 0..FILES {
        let path = super::old::quoted(name(number).as_bytes());
        let answer = server.request("GET", &format!("/files/{path}")).send();
        assert_eq!(gunzip(&answer.assert_status(200).body), content(number));
    }
    ends(&server, 0, &["verify"]);
}

#[test]
fn everything_of_an_old_server_is_copied_into_a_folder() {
    everything_is_copied(TestServer::builder());
}

#[test]
fn everything_of_an_old_server_is_copied_into_a_bucket_and_postgresql_while_a_server_runs() {
    let (postgres, s3) = (PostgresServer::start(), S3InProcess::start());
    let on = || {
        TestServer::builder()
            .s3(&s3.access)
            .env("KVSTORAGE_TYPE", "postgres")
            .env("POSTGRES_HOST", "127.0.0.1")
            .env("POSTGRES_PORT", postgres.port())
            .env("POSTGRES_USER", USER)
            .env("POSTGRES_PASSWORD", PASSWORD)
            .env("POSTGRES_DB", DATABASE)
            .env("LOCKS_TYPE", "postgres")
    };
    let _beside = on().start();
    everything_is_copied(on());
}

fn noise_is_copied(builder: Builder) {
    let (old, bytes) = (OldFiletracker::start(), noise_bytes());
    let noise = LargeNoise::new(bytes);
    noise.put(&old, "noise", 1_600_000_000);
    let url = old.url();
    let server = builder.prepare();
    let (migration, _) = migrates(&server, 0, &["migrate", "--filetracker-url", &url]);
    assert_eq!((&migration["files"]["copied"], &migration["logical_bytes"]), (&1.into(), &bytes.into()));
    assert!(migration["received_bytes"].as_u64().unwrap() > bytes, "{migration}");
    assert!(migration["stored_bytes"].as_u64().unwrap() > bytes, "{migration}");
    assert!(differences(&server, &["--filetracker-url", &url]).is_empty());
}

#[test]
fn a_large_file_that_does_not_compress_is_copied_into_a_folder() {
    noise_is_copied(TestServer::builder());
}

#[test]
fn a_large_file_that_does_not_compress_is_copied_into_a_bucket() {
    let s3 = S3InProcess::start();
    noise_is_copied(TestServer::builder().s3(&s3.access));
}

#[test]
fn newer_versions_win_on_both_sides_and_what_went_is_not_missed() {
    let old = OldFiletracker::start();
    let url = old.url();
    for name in ["newer there", "newer here", "same", "goes", "file/below"] {
        put(&old, name, 1_700_000_010, name.as_bytes());
    }
    let mut server = TestServer::builder().start();
    upload(&server, "newer%20here", 30, b"client").send().assert_status(200);
    upload(&server, "newer%20there", 5, b"client").send().assert_status(200);
    upload(&server, "same", 10, b"same").send().assert_status(200);
    // A file here, a directory there; and the other way round.
    upload(&server, "file", 0, b"a file here").send().assert_status(200);
    let refused = server.run(&["migrate", "--filetracker-url", &url]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("stop the server"));
    server.stop();
    let (migration, _) = migrates(&server, 0, &["migrate", "--filetracker-url", &url]);
    assert_eq!((&migration["files"]["copied"], &migration["files"]["skipped"]), (&3.into(), &2.into()));
    let found = differences(&server, &["--filetracker-url", &url]);
    let want = [("file", "extra"), ("newer here", "version")].map(|(name, kind)| (name.to_owned(), kind.to_owned()));
    assert_eq!(found.into_iter().collect::<Vec<_>>(), want);

    // Later changes there are brought here by running it again; a deletion there is not.
    put(&old, "same", 1_700_000_040, b"changed");
    delete(&old, "goes", 1_700_000_050);
    let (migration, _) = migrates(&server, 0, &["migrate", "--filetracker-url", &url]);
    assert_eq!((&migration["files"]["copied"], &migration["files"]["total"]), (&1.into(), &4.into()));
    server.start_again();
    let get = |path: &str| gunzip(&server.request("GET", &format!("/files/{path}")).send().assert_status(200).body);
    assert_eq!(get("same"), b"changed");
    assert_eq!(get("newer%20here"), b"client");
    assert_eq!(get("newer%20there"), b"newer there");
    assert_eq!(get("file"), b"a file here");
    assert_eq!(get("file/below"), b"file/below");
    assert_eq!(get("goes"), b"goes");
}

#[test]
fn what_is_broken_on_the_old_server_is_reported_and_nothing_else_suffers() {
    let old = OldFiletracker::start();
    let url = old.url();
    let whole = Noise::bytes(1, 50_000);
    let packed = gzip(&whole, 6);
    let size = whole.len().to_string();
    put(&old, "good", 10, b"good");
    claim(&old, b"cut", 10, packed[..20_000].to_vec(), &sha256(&whole), &size).assert_status(200);
    claim(&old, b"no gzip", 10, b"plain text".to_vec(), &sha256(b"plain text"), "10").assert_status(200);
    claim(&old, b"wrong size", 10, gzip(b"ten bytes!", 6), &sha256(b"ten bytes!"), "11").assert_status(200);
    claim(&old, b"junk size", 10, gzip(b"junk", 6), &sha256(b"junk"), "many").assert_status(200);
    // A digest that is a lie, then an honest upload of what it belongs to, which the old server throws away.
    let honest = Noise::bytes(2, 3000);
    claim(&old, b"liar", 10, gzip(b"false bytes", 6), &sha256(&honest), "11").assert_status(200);
    put(&old, "victim", 11, &honest);
    claim(&old, b"bytes \xff\xfe", 10, gzip(b"x", 6), &sha256(b"x"), "1").assert_status(200);
    claim(&old, b"dir/line\nbreak", 10, gzip(b"y", 6), &sha256(b"y"), "1").assert_status(200);

    let server = TestServer::builder().prepare();
    let (migration, not_copied) = migrates(&server, 10, &["migrate", "--filetracker-url", &url]);
    let mut want = vec!["cut", "junk size", "no gzip", "wrong size"];
    for name in &want {
        let (fate, reason) = &not_copied[*name];
        assert_eq!(fate, "failed", "{name}");
        assert!(!reason.is_empty() && !reason.contains("/tmp"), "{reason}");
    }
    assert!(not_copied["cut"].1.contains("gzip"), "{not_copied:?}");
    assert!(not_copied["wrong size"].1.contains("10 bytes, the source says 11"), "{not_copied:?}");
    assert!(not_copied["junk size"].1.contains("500"), "{not_copied:?}");
    // What the old server serves for the victim has the size of what it holds: nobody can know better.
    let odd: Vec<_> = not_copied.keys().filter(|name| !want.contains(&name.as_str()) && *name != "victim").collect();
    assert_eq!(odd.len(), 3, "two halves of a line and bytes that are no text: {not_copied:?}");
    assert_eq!(
        migration["files"]["failed"].as_u64().unwrap() + migration["files"]["gone"].as_u64().unwrap(),
        not_copied.len() as u64
    );

    // All that differs was named.
    let found = differences(&server, &["--filetracker-url", &url]);
    for (name, kind) in &found {
        assert!(not_copied.contains_key(name), "{name} {kind}: {not_copied:?}");
    }
    want.push("good");
    assert!(!found.contains_key("good"));

    // Mended there, they come with the next run.
    claim(&old, b"cut", 20, packed, &sha256(&Noise::bytes(3, 10)), &size).assert_status(200);
    let (_, not_copied) = migrates(&server, 10, &["migrate", "--filetracker-url", &url]);
    assert!(!not_copied.contains_key("cut"), "{not_copied:?}");
}

#[test]
fn wrong_use_is_told_in_one_line() {
    let server = TestServer::builder().prepare();
    let v1 = server.temp_dir();
    let v1 = v1.to_str().unwrap();
    let cases: [&[&str]; 7] = [
        &["migrate"],
        &["migrate-v1"],
        &["compare"],
        &["migrate", "--filetracker-url", "not an address"],
        &["migrate-v1", "--v1-directory", v1],
        &["migrate", "--filetracker-url", "http://127.0.0.1:9", "--file-list", "/nowhere"],
        &["migrate", "--filetracker-url", "http://127.0.0.1:9", "--max-concurrency", "0"],
    ];
    for arguments in cases {
        let output = ends(&server, 2, arguments);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(said.lines().count(), 1, "{arguments:?}: {said}");
    }
    assert!(!server.data_dir().exists());
}
