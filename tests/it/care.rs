//! `verify`, `repair`, `export` and `import` through the real program: exit codes, reports, a lost database.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Output};

use s3dedup_actors::testkit::filetracker::OldFiletracker;
use s3dedup_actors::testkit::postgres::{DATABASE, PASSWORD, PostgresServer, USER};

use crate::support::s3::{Garage, S3InProcess};
use crate::support::{Noise, Request, TestServer, date, eventually, gunzip, gzip, sha256, upload};

/// A store to look after, as the environment names it.
struct Store {
    environment: Vec<(String, String)>,
}

impl Store {
    fn folder(server: &TestServer) -> Self {
        let mut store = Self { environment: Vec::new() };
        store.set("DATA_DIR", server.data_dir().display());
        store.set("TEMP_DIR", server.temp_dir().display());
        store.set("STORAGE_TYPE", "filesystem");
        store.set("LOG_LEVEL", "warn");
        store
    }

    fn set(&mut self, name: &str, value: impl ToString) {
        self.environment.push((name.to_owned(), value.to_string()));
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_s3dedup"));
        let variables = self.environment.iter().map(|(name, value)| (name, value));
        command.args(arguments).env_clear().envs(variables);
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// The JSON report of a command that must end with `code`.
    fn report(&self, code: i32, arguments: &[&str]) -> serde_json::Value {
        let output = self.run(&[arguments, &["--json"]].concat());
        let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{arguments:?} {said} {complained}");
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error} {said} {complained}"))
    }
}

/// Twelve names of ten contents.
fn fill(server: &TestServer) -> Vec<(String, Vec<u8>)> {
    let content = |seed: u64| Noise::bytes(seed, 100 + 40_000 * (seed % 4) as usize);
    let contents: Vec<_> = (0..12u64).map(|number| (format!("d/{number}"), content(number % 10))).collect();
    for (name, content) in &contents {
        upload(server, name, 0, content).send().assert_status(200);
    }
    contents
}

fn assert_served(server: &TestServer, contents: &[(String, Vec<u8>)]) {
    assert_eq!(server.list("").len(), contents.len());
    for (name, content) in contents {
        let answer = server.request("GET", &format!("/files/{name}")).send();
        assert!(gunzip(&answer.assert_status(200).body) == *content, "{name}");
    }
}

fn object(server: &TestServer, content: &[u8]) -> std::path::PathBuf {
    let digest = sha256(content);
    server.objects().into_iter().find(|path| path.ends_with(&digest)).unwrap()
}

#[test]
fn verify_tells_whole_from_damaged_and_from_what_it_cannot_see() {
    let mut server = TestServer::start();
    let contents = fill(&server);
    let mut store = Store::folder(&server);
    // Beside the running server.
    let report = store.report(0, &["verify", "--deep"]);
    assert_eq!(
        (&report["status"], &report["names"], &report["damages"]),
        (&"whole".into(), &12.into(), &serde_json::json!([]))
    );
    let file = server.temp_dir().join("../report.json");
    let output = store.run(&["verify", "--report", file.to_str().unwrap()]);
    assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).starts_with("whole: 12 names"));
    let written: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert_eq!(written["status"], "whole");

    let broken = object(&server, &contents[5].1);
    let mut bytes = fs::read(&broken).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&broken, bytes).unwrap();
    store.report(0, &["verify"]);
    let report = store.report(9, &["verify", "--deep"]);
    let damage = &report["damages"][0];
    assert_eq!((&damage["kind"], &damage["names"][0]), (&"wrong-content".into(), &"d/5".into()));
    assert_eq!(damage["digest"], sha256(&contents[5].1));

    // Who writes needs the server stopped.
    let output = store.run(&["repair"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("in use by another s3dedup"));
    server.stop();
    store.report(9, &["verify", "--deep"]);
    let blobs = server.data_dir().join("blobs");
    fs::rename(&blobs, server.data_dir().join("away")).unwrap();
    assert_eq!(store.run(&["verify"]).status.code(), Some(1));
    fs::rename(server.data_dir().join("away"), &blobs).unwrap();
    store.set("SQLITE_PATH", "/nowhere/kv.db");
    assert_eq!(store.run(&["verify"]).status.code(), Some(1));
    assert_eq!(store.run(&["verify", "--max-mbps", "0"]).status.code(), Some(2));
    // What this test broke stays broken.
    server.start_again();
}

#[test]
fn a_database_that_is_not_there_is_refused_and_not_made() {
    let mut server = TestServer::start();
    fill(&server);
    let mut store = Store::folder(&server);
    let names = server.temp_dir().join("../names");
    assert!(store.run(&["export", "--output", names.to_str().unwrap()]).status.success());
    server.stop();
    let mistyped = server.data_dir().join("kv.bd");
    store.set("SQLITE_PATH", mistyped.display());
    for arguments in [&["import", names.to_str().unwrap()][..], &["repair"], &["repair", "--dry-run"]] {
        let output = store.run(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?} {}", String::from_utf8_lossy(&output.stderr));
        assert!(String::from_utf8_lossy(&output.stderr).contains("there is no database"), "{arguments:?}");
        assert!(!mistyped.exists(), "{arguments:?}");
    }
    server.start_again();
}

#[test]
fn verify_goes_on_from_its_state_file() {
    let server = TestServer::start();
    fill(&server);
    // Many of one size, so that some are done all along.
    for seed in 100..140 {
        upload(&server, &format!("e/{seed}"), 0, &Noise::bytes(seed, 12_000)).send().assert_status(200);
    }
    let store = Store::folder(&server);
    let state = server.temp_dir().join("../verify.state");
    let path = state.to_str().unwrap();
    fs::write(&state, "{}").unwrap();
    assert_eq!(store.run(&["verify", "--resume", path]).status.code(), Some(1));
    fs::remove_file(&state).unwrap();
    // So slow that it is killed on its way.
    let slow = ["verify", "--deep", "--max-mbps", "0.05", "--resume", path];
    let mut killed = store.command(&slow).spawn().unwrap();
    eventually("a state", || state.exists().then_some(()));
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert_eq!(store.run(&["verify", "--resume", path]).status.code(), Some(1), "that was a deep one");
    let report = store.report(0, &["verify", "--deep", "--resume", path]);
    assert_eq!((&report["resumed"], &report["contents"]), (&true.into(), &50.into()));
    assert!(!state.exists(), "it is done");
}

#[test]
fn repair_fetches_what_is_damaged_from_another_server() {
    let other = TestServer::start();
    let contents = fill(&other);
    let mut server = TestServer::start();
    fill(&server);
    let [missing, broken] = [3, 6].map(|number: usize| object(&server, &contents[number].1));
    fs::remove_file(&missing).unwrap();
    fs::write(&broken, b"not gzip at all").unwrap();
    server.stop();
    let mut store = Store::folder(&server);
    let plan = store.report(9, &["repair", "--deep", "--dry-run"]);
    assert_eq!(plan["lost"].as_array().unwrap().len(), 2);
    // Nobody listens there; the rest is looked at all the same, and the password is not told.
    store.set("FALLBACK_URL", "http://me:hunter2@127.0.0.1:9/ft");
    let output = store.run(&["repair", "--deep", "--dry-run"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.code() == Some(9) && said.contains("a fallback failed") && !said.contains("hunter2"),
        "{said}"
    );
    let shown = store.run(&["check-config"]).stdout;
    assert!(String::from_utf8_lossy(&shown).contains("http://********@127.0.0.1:9/ft"));
    store.set("FALLBACK_URL", other.url().replace("://", "://me:hunter2@"));
    let plan = store.report(9, &["repair", "--deep", "--dry-run"]);
    assert_eq!((&plan["dry_run"], &plan["actions"][0]["outcome"]), (&true.into(), &"planned".into()));
    let done = store.report(0, &["repair", "--deep"]);
    let names = |report: &serde_json::Value| -> Vec<String> {
        report["actions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|action| format!("{} {}", action["action"], action["source"]))
            .collect()
    };
    assert_eq!(names(&plan), names(&done), "the run does what the plan said");
    assert!(done["actions"].as_array().unwrap().iter().all(|action| action["outcome"] == "done"));
    store.report(0, &["verify", "--deep"]);
    assert_eq!(fs::read(&broken).unwrap(), b"not gzip at all", "nothing is deleted");
    server.start_again();
    assert_served(&server, &contents);
}

#[test]
fn repair_fetches_what_is_damaged_from_the_old_server() {
    let old = OldFiletracker::start();
    let mut server = TestServer::start();
    let contents = fill(&server);
    let put = |number: usize, offset: u32, content: &[u8]| {
        let target = format!("/files/{}?last_modified={}", contents[number].0, date(offset));
        let request = Request::new(SocketAddr::from((Ipv4Addr::LOCALHOST, old.port())), "PUT", &target);
        let request = request.header("Content-Encoding", "gzip").header("SHA256-Checksum", &sha256(content));
        request.header("Logical-Size", &content.len().to_string()).body(gzip(content, 6)).send().assert_status(200);
    };
    for (number, (_, content)) in contents.iter().enumerate() {
        // Of one name it has something else.
        put(number, 0, if number == 9 { b"another content" } else { content });
    }
    let [missing, broken, changed] = [3, 6, 9].map(|number: usize| object(&server, &contents[number].1));
    fs::remove_file(&missing).unwrap();
    fs::write(&broken, b"not gzip at all").unwrap();
    fs::remove_file(&changed).unwrap();
    server.stop();
    let mut store = Store::folder(&server);
    store.set("FALLBACK_URL", old.url());
    let plan = store.report(9, &["repair", "--deep", "--dry-run"]);
    let done = store.report(9, &["repair", "--deep"]);
    for report in [&plan, &done] {
        assert_eq!(report["lost"].as_array().unwrap().len(), 1, "another content is no help: {report}");
    }
    assert!(done["actions"].as_array().unwrap().iter().any(|action| action["outcome"] == "done"), "{done}");
    let damages = store.report(9, &["verify", "--deep"])["damages"].clone();
    assert_eq!((damages.as_array().unwrap().len(), &damages[0]["names"][0]), (1, &"d/9".into()), "{damages}");
    // It gets that content back.
    put(9, 1, &contents[9].1);
    store.report(0, &["repair", "--deep"]);
    store.report(0, &["verify", "--deep"]);
    server.start_again();
    assert_served(&server, &contents);
}

#[test]
fn repair_fetches_what_is_damaged_from_another_bucket() {
    let garage = Garage::start();
    let copy = TestServer::builder().s3(&garage.access).start();
    let contents = fill(&copy);
    let mut server = TestServer::start();
    fill(&server);
    let [missing, broken] = [3, 6].map(|number: usize| object(&server, &contents[number].1));
    fs::remove_file(&missing).unwrap();
    fs::write(&broken, b"not gzip at all").unwrap();
    server.stop();
    let mut store = Store::folder(&server);
    store.set("FALLBACK_S3_ENDPOINT", &garage.access.endpoint);
    assert_eq!(store.run(&["repair"]).status.code(), Some(2), "the rest is missing");
    store.set("FALLBACK_S3_ACCESS_KEY", &garage.access.access_key);
    store.set("FALLBACK_S3_SECRET_KEY", &garage.access.secret_key);
    store.set("FALLBACK_S3_REGION", &garage.access.region);
    store.set("FALLBACK_S3_BUCKET", "nothing-here");
    let output = store.run(&["repair", "--deep"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("nothing-here"), "{said}");
    assert!(!said.contains(&garage.access.secret_key));
    store.set("FALLBACK_S3_BUCKET", &garage.access.bucket);
    let plan = store.report(9, &["repair", "--deep", "--dry-run"]);
    assert!(plan["actions"][0]["source"]["object"].as_str().unwrap().contains('/'), "{plan}");
    let done = store.report(0, &["repair", "--deep"]);
    assert!(done["actions"].as_array().unwrap().iter().all(|action| action["outcome"] == "done"));
    store.report(0, &["verify", "--deep"]);

    // What was broken is kept, and leaves when it is told to.
    let listed = store.report(0, &["quarantine", "list"]);
    let listed = listed["objects"].as_array().unwrap();
    let size = |number: usize| listed[number]["size"].clone();
    assert_eq!(listed.len(), 2, "{listed:?}");
    assert!([size(0), size(1)].contains(&15.into()) && [size(0), size(1)].contains(&serde_json::Value::Null));
    assert!(listed.iter().all(|object| object["content"] == "has another object"));
    let name = listed[0]["object"].as_str().unwrap();
    let lifted = store.report(0, &["quarantine", "lift", name]);
    assert_eq!(lifted["objects"][0]["outcome"], "lifted");
    assert_eq!(store.report(10, &["quarantine", "lift", name])["objects"][0]["outcome"], "kept");
    let dropped = store.report(0, &["quarantine", "drop", "--all"]);
    assert_eq!(dropped["objects"].as_array().unwrap().len(), 1);
    assert_eq!(store.report(0, &["quarantine", "list"])["objects"], serde_json::json!([]));
    for wrong in [&["drop"][..], &["drop", "--all", name], &["lift", "x"], &[]] {
        assert_eq!(store.run(&[&["quarantine"], wrong].concat()).status.code(), Some(2), "{wrong:?}");
    }
    store.report(0, &["clean"]);
    store.report(0, &["verify", "--deep"]);
    server.start_again();
    assert_served(&server, &contents);
}

#[test]
fn on_postgres_a_repair_is_alone_and_keeps_to_its_bucket() {
    let postgres = PostgresServer::start();
    let s3 = S3InProcess::start();
    let port = postgres.port().to_string();
    let metadata = [
        ("KVSTORAGE_TYPE", "postgres"),
        ("POSTGRES_HOST", "127.0.0.1"),
        ("POSTGRES_PORT", &port),
        ("POSTGRES_USER", USER),
        ("POSTGRES_PASSWORD", PASSWORD),
        ("POSTGRES_DB", DATABASE),
    ];
    let builder = TestServer::builder().s3(&s3.access);
    let mut server = metadata.iter().fold(builder, |builder, (name, value)| builder.env(name, value)).prepare();
    let mut store = Store::folder(&server);
    for (name, value) in metadata {
        store.set(name, value);
    }
    store.set("STORAGE_TYPE", "s3");
    store.set("S3_ENDPOINT", &s3.access.endpoint);
    store.set("S3_ACCESS_KEY", &s3.access.access_key);
    store.set("S3_SECRET_KEY", &s3.access.secret_key);
    store.set("S3_REGION", &s3.access.region);
    store.set("BUCKET_NAME", &s3.access.bucket);
    server.start_again();
    let contents = fill(&server);
    let refused = |arguments: &[&str], why: &str| {
        let output = store.run(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && said.contains(why), "{arguments:?} {said}");
    };
    // Beside the running server.
    store.report(0, &["repair", "--deep"]);
    refused(&["repair", "--rebuild"], "stop all servers first");
    // Somebody else cleans or repairs.
    let lead = |task: &str, seconds: u32| {
        let valid = "clock_timestamp() + interval '1 hour'";
        postgres.sql(&format!("SELECT s3dedup.lead({valid}, '{task}', 'somebody', {seconds} * 1000)"))
    };
    lead("clean", 600);
    refused(&["repair"], "at work");
    store.report(0, &["repair", "--dry-run"]);
    lead("clean", 0);
    store.report(0, &["repair"]);
    server.stop();
    // Nobody serves or writes what is being rebuilt.
    lead("rebuild", 600);
    refused(&["repair"], "being rebuilt");
    refused(&["import", "/dev/null"], "being rebuilt");
    refused(&["server", "--listen-port", "0"], "being rebuilt");
    lead("rebuild", 0);
    // A database of other contents.
    postgres.sql("UPDATE s3dedup.state SET contents_place = 's3 bucket other'");
    for arguments in [&["repair"][..], &["import", "/dev/null"], &["quarantine", "drop", "--all"]] {
        refused(arguments, "belongs to the contents in s3 bucket other");
    }
    postgres.sql(&format!("UPDATE s3dedup.state SET contents_place = 's3 bucket {}'", s3.access.bucket));
    server.start_again();
    assert_served(&server, &contents);
}

/// Loses the database, rebuilds it, imports the names: everything is as it was.
fn loses_its_database(server: &mut TestServer, store: &Store) {
    let contents = fill(server);
    let names = server.temp_dir().join("../names.jsonl");
    let path = names.to_str().unwrap();
    assert!(store.run(&["export", "--output", path]).status.success());
    let text = fs::read_to_string(&names).unwrap();
    assert_eq!(text.lines().count(), 14, "a header, 12 names, an end");
    assert_eq!(store.run(&["export"]).stdout.iter().filter(|byte| **byte == b'\n').count(), 14);
    server.stop();
    for ending in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(Path::new(&format!("{}{ending}", server.data_dir().join("kv.db").display())));
    }
    assert_eq!(store.run(&["repair"]).status.code(), Some(1), "that is no repair");
    let rebuilt = store.report(0, &["repair", "--rebuild"]);
    assert_eq!(rebuilt["adopted"], 10);
    let imported = store.report(0, &["import", path]);
    assert_eq!((&imported["restored"], &imported["missing"]), (&12.into(), &0.into()));
    store.report(0, &["verify", "--deep"]);
    let more = text.replacen("\"name\":\"d/0\"", "\"name\":\"d/none\"", 1).replacen(
        &sha256(&contents[0].1),
        &"7".repeat(64),
        1,
    );
    fs::write(&names, more).unwrap();
    let partial = store.report(10, &["import", path]);
    assert_eq!((&partial["missing"], &partial["first_missing"][0]["name"]), (&1.into(), &"d/none".into()));
    server.start_again();
    assert_served(server, &contents);
}

#[test]
fn a_lost_database_over_a_folder_is_rebuilt() {
    let mut server = TestServer::start();
    let store = Store::folder(&server);
    loses_its_database(&mut server, &store);
}

#[test]
fn a_lost_database_over_a_bucket_is_rebuilt_and_an_outage_is_no_damage() {
    let mut s3 = S3InProcess::start();
    let access = s3.access.clone();
    let mut server = TestServer::builder().s3(&access).start();
    let mut store = Store::folder(&server);
    store.set("STORAGE_TYPE", "s3");
    store.set("BUCKET_NAME", &access.bucket);
    store.set("S3_ENDPOINT", &access.endpoint);
    store.set("S3_ACCESS_KEY", &access.access_key);
    store.set("S3_SECRET_KEY", &access.secret_key);
    store.set("S3_REGION", &access.region);
    loses_its_database(&mut server, &store);
    store.report(0, &["verify", "--deep"]);
    s3.stop();
    assert_eq!(store.run(&["verify"]).status.code(), Some(1));
    s3.start_again();
}
