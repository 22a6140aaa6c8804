//! Cleaning, by the server itself and from the command line.

use std::process::Output;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::s3::S3InProcess;
use crate::support::server::Builder;
use crate::support::{Noise, TestServer, date, eventually, gunzip, upload};

const CONTENTS: u32 = 12;

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Half of the files go.
fn fill(server: &TestServer) {
    for number in 0..CONTENTS {
        upload(server, &format!("f{number}"), 0, &content(number)).send().assert_status(200);
    }
    for number in (0..CONTENTS).step_by(2) {
        let target = format!("/files/f{number}?last_modified={}", date(1));
        server.request("DELETE", &target).send().assert_status(200);
    }
}

fn content(number: u32) -> Vec<u8> {
    Noise::bytes(u64::from(number), 100 + number as usize)
}

fn the_rest_is_there(server: &TestServer) {
    for number in (1..CONTENTS).step_by(2) {
        let answer = server.request("GET", &format!("/files/f{number}")).send();
        assert_eq!(gunzip(&answer.assert_status(200).body), content(number));
    }
}

/// A run that must go well, as JSON.
fn report(server: &TestServer, arguments: &[&str]) -> Value {
    let output = server.run(&[&["clean", "--json"], arguments].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn one_line(output: &Output) -> String {
    let said = text(&output.stderr);
    assert_eq!((output.status.code(), said.lines().count()), (Some(1), 1), "{said}");
    said
}

fn cleans_by_itself(builder: Builder, objects: impl Fn(&TestServer) -> usize) {
    let server = builder.env("CLEANER_INTERVAL", 1).env("CLEANER_GRACE", 0).start();
    fill(&server);
    eventually("garbage is gone", || (objects(&server) == CONTENTS as usize / 2).then_some(()));
    the_rest_is_there(&server);
    // What is gone can come back.
    upload(&server, "f0", 2, &content(0)).send().assert_status(200);
    let answer = server.request("GET", "/files/f0").send();
    assert_eq!(gunzip(&answer.assert_status(200).body), content(0));
    assert!(server.log().contains("cleaned deleted="), "{}", server.log());
}

#[test]
fn a_server_cleans_its_folder_by_itself() {
    cleans_by_itself(TestServer::builder(), |server| server.objects().len());
}

#[test]
fn a_server_cleans_its_bucket_by_itself() {
    let s3 = S3InProcess::start();
    cleans_by_itself(TestServer::builder().s3(&s3.access), |_| s3.objects().len());
}

#[test]
fn a_server_may_be_told_not_to() {
    let server = TestServer::builder().env("CLEANER_ENABLED", false).env("CLEANER_INTERVAL", 1);
    let server = server.env("CLEANER_GRACE", 0).start();
    fill(&server);
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert_eq!(server.objects().len(), CONTENTS as usize);
}

fn by_hand(builder: Builder, objects: impl Fn(&TestServer) -> usize) {
    let mut server = builder.env("CLEANER_MAX_DELETES", 4).env("CLEANER_GRACE", 0).start();
    fill(&server);
    let said = one_line(&server.run(&["clean"]));
    assert!(said.contains("in use by another s3dedup") && said.contains("stop it"), "{said}");
    server.stop();

    for (count, is_partial) in [(4, true), (2, false), (0, false)] {
        let before = objects(&server);
        let dry = report(&server, &["--dry-run"]);
        assert_eq!(objects(&server), before);
        let run = report(&server, &[]);
        assert_eq!(dry["unused"]["planned"], run["unused"]["planned"]);
        assert_eq!(run["unused"]["deleted"], count);
        assert_eq!((&dry["partial"], &run["partial"]), (&is_partial.into(), &is_partial.into()));
        assert_eq!(objects(&server), before - count);
    }
    let scan = &report(&server, &["--full-scan"])["scan"];
    assert_eq!((&scan["objects"], &scan["contents"]), (&6.into(), &6.into()), "{scan}");
    for kind in ["orphans", "missing", "wrong_size", "strangers"] {
        assert_eq!(scan[kind]["number"], 0, "{kind}: {scan}");
    }
    server.start_again();
    the_rest_is_there(&server);
}

#[test]
fn a_folder_is_cleaned_by_hand() {
    by_hand(TestServer::builder(), |server| server.objects().len());
}

#[test]
fn a_bucket_is_cleaned_by_hand() {
    let s3 = S3InProcess::start();
    by_hand(TestServer::builder().s3(&s3.access), |_| s3.objects().len());
}

#[test]
fn orphans_go_only_when_asked_for() {
    let mut server = TestServer::builder().env("CLEANER_ENABLED", false).start();
    fill(&server);
    server.stop();
    let hex = "ab".repeat(32);
    let orphan = server.data_dir().join(format!("blobs/ab/ab/{hex}"));
    std::fs::create_dir_all(orphan.parent().unwrap()).unwrap();
    std::fs::write(&orphan, b"12345").unwrap();
    let output = server.run(&["clean", "--full-scan"]);
    let said = text(&output.stdout);
    assert!(said.contains(&hex) && said.contains("complete") && orphan.exists(), "{said}");
    let scan = &report(&server, &["--full-scan", "--delete-orphans", "--dry-run"])["scan"];
    assert_eq!((&scan["orphans_deleted"]["planned"], orphan.exists()), (&1.into(), true));
    let scan = &report(&server, &["--full-scan", "--delete-orphans"])["scan"];
    assert_eq!((&scan["orphans_deleted"]["deleted"], orphan.exists()), (&1.into(), false));
    server.start_again();
    the_rest_is_there(&server);
}

#[test]
fn uploads_that_a_kill_cut_off_are_cleaned_when_they_are_old() {
    let mut server = TestServer::start();
    fill(&server);
    server.signal(Signal::KILL);
    server.wait();
    // As if it had been killed between the object and the commit, two days ago.
    let database = rusqlite::Connection::open(server.data_dir().join("kv.db")).unwrap();
    let made = "INSERT INTO intents (digest, generation, key_depth, instance, made_at)
        VALUES (?1, 0, 2, 'killed', unixepoch() - ?2)";
    for (byte, age) in [(0xab_u8, 172_800), (0xcd, 60)] {
        database.execute(made, rusqlite::params![[byte; 32].as_slice(), age]).unwrap();
        let folder = server.data_dir().join(format!("blobs/{byte:02x}/{byte:02x}"));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(format!("{byte:02x}").repeat(32)), b"half").unwrap();
    }
    drop(database);
    assert_eq!(server.objects().len(), CONTENTS as usize + 2);
    let run = report(&server, &[]);
    assert_eq!((&run["abandoned_uploads"]["deleted"], &run["unused"]["deleted"]), (&1.into(), &0.into()));
    assert_eq!(server.objects().len(), CONTENTS as usize + 1);
    server.start_again();
    the_rest_is_there(&server);
}

#[test]
fn wrong_use_and_nothing_to_clean_are_told() {
    let mut server = TestServer::start();
    server.stop();
    assert_eq!(server.run(&["clean", "--delete-orphans"]).status.code(), Some(2));
    let refused = server.run(&["clean", "--full-scan", "--delete-orphans"]);
    assert!(one_line(&refused).contains("knows no contents"));
    std::fs::remove_file(server.data_dir().join("kv.db")).unwrap();
    assert!(one_line(&server.run(&["clean"])).contains("there is no database"));
    assert!(!server.data_dir().join("kv.db").exists());
    // Its folder bears the mark of the database that is gone.
    std::fs::remove_dir_all(server.data_dir().join("blobs")).unwrap();
    server.start_again();
}
