//! `s3dedup instances`: who serves one database, and what is refused or told when they do not fit together.

use s3dedup_actors::testkit::postgres::{DATABASE, PostgresServer};
use serde_json::Value;

use crate::support::eventually;
use crate::support::s3::S3InProcess;
use crate::support::server::{Builder, TestServer};

fn on(postgres: &PostgresServer, id: &str) -> Builder {
    TestServer::builder().postgres(postgres, DATABASE).env("INSTANCE_ID", id)
}

#[test]
fn instances_are_listed_while_they_serve_and_leave_the_list_when_they_stop() {
    let (postgres, s3) = (PostgresServer::start(), S3InProcess::start());
    let one = on(&postgres, "one").s3(&s3.access).env("LOCKS_TYPE", "postgres").start();
    let mut two = on(&postgres, "two").s3(&s3.access).env("LOCKS_TYPE", "postgres").start();
    let listed = one.run(&["instances", "--json"]);
    assert_eq!(listed.status.code(), Some(0));
    let listed: Value = serde_json::from_slice(&listed.stdout).expect("JSON");
    let ids: Vec<_> = listed.as_array().expect("an array").iter().map(|instance| &instance["id"]).collect();
    assert_eq!(ids, ["one", "two"]);
    let table = String::from_utf8(one.run(&["instances"]).stdout).unwrap();
    let lines: Vec<_> = table.lines().collect();
    assert_eq!(lines.len(), 3, "{table}");
    for (line, words) in lines[1..].iter().zip([["one", "live"], ["two", "live"]]) {
        assert!(words.iter().all(|word| line.contains(word)) && line.contains(env!("CARGO_PKG_VERSION")), "{line}");
    }
    two.stop();
    let table = String::from_utf8(one.run(&["instances"]).stdout).unwrap();
    assert!(table.contains("one") && !table.contains("two"), "{table}");
}

#[test]
fn locks_in_memory_on_several_instances_are_told_loudly() {
    let (postgres, s3) = (PostgresServer::start(), S3InProcess::start());
    let one = on(&postgres, "one").s3(&s3.access).start();
    let two = on(&postgres, "two").s3(&s3.access).start();
    for server in [&one, &two] {
        eventually("it is told", || server.log().contains("set LOCKS_TYPE=postgres on all").then_some(()));
    }
}

#[test]
fn an_instance_with_another_bucket_is_refused() {
    let (postgres, s3) = (PostgresServer::start(), S3InProcess::start());
    let _one = on(&postgres, "one").s3(&s3.access).start();
    let mut elsewhere = s3.access.clone();
    elsewhere.bucket = "elsewhere".into();
    s3.make_bucket("elsewhere");
    let refusal = on(&postgres, "two").s3(&elsewhere).prepare().fails_to_start();
    assert!(refusal.contains("contents") && refusal.contains("elsewhere"), "{refusal}");
}
