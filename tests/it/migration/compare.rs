//! `s3dedup compare` finds every kind of difference, while the server runs.

use s3dedup_actors::testkit::filetracker::OldFiletracker;
use serde_json::Value;

use super::old::{differences, ends, put};
use crate::support::{TestServer, upload};

#[test]
fn every_kind_of_difference_is_found() {
    let old = OldFiletracker::start();
    let url = old.url();
    let server = TestServer::builder().start();
    let base = 1_700_000_000;
    for (name, there) in
        [("same", "same"), ("version", "version"), ("bytes", "one"), ("size", "longer"), ("there", "x")]
    {
        put(&old, name, base, there.as_bytes());
    }
    for (name, offset, here) in
        [("same", 0, "same"), ("version", 1, "version"), ("bytes", 0, "two"), ("size", 0, "short"), ("here", 0, "x")]
    {
        upload(&server, name, offset, here.as_bytes()).send().assert_status(200);
    }
    let want =
        [("bytes", "content"), ("here", "extra"), ("size", "size"), ("there", "missing"), ("version", "version")];
    let found = differences(&server, &["--filetracker-url", &url]);
    assert_eq!(found.iter().map(|(name, kind)| (name.as_str(), kind.as_str())).collect::<Vec<_>>(), want);

    // Without reading, other bytes of the same number pass.
    let output = ends(&server, 9, &["compare", "--filetracker-url", &url, "--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let numbers = ["there", "here", "same", "different"].map(|key| report[key].as_u64().unwrap());
    assert_eq!((numbers, &report["status"]), ([5, 5, 2, 4], &"different".into()));
    let text = String::from_utf8(ends(&server, 9, &["compare", "--filetracker-url", &url]).stdout).unwrap();
    assert!(text.contains("missing name=\"there\"") && text.ends_with("NOT the same\n"), "{text}");
    assert!(text.contains(&format!("version name=\"version\" here={} there={base}", base + 1)), "{text}");

    // A damaged object here is a difference, too.
    let objects = server.objects();
    for object in &objects {
        std::fs::write(object, b"damaged").unwrap();
    }
    assert_eq!(differences(&server, &["--filetracker-url", &url]).get("same").map(String::as_str), Some("content"));
}

#[test]
fn a_side_that_does_not_answer_is_no_difference() {
    let server = TestServer::start();
    upload(&server, "a", 0, b"a").send().assert_status(200);
    let output = ends(&server, 1, &["compare", "--filetracker-url", "http://127.0.0.1:9"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot compare"));
}
