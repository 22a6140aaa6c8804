//! What the server tells of itself.

use crate::support::s3::S3InProcess;
use crate::support::{Noise, SlowUploads, TestServer, eventually, upload};

#[test]
fn the_tree_of_actors_is_shown_outside_the_prefix() {
    let server = TestServer::builder().env("MAX_INMEMORY_SIZE", 4096).env("SQLITE_MAX_CONNECTIONS", 4).start();
    let answer = server.raw_request("GET", "/api/actors").send();
    let tree: serde_json::Value = serde_json::from_slice(&answer.assert_status(200).body).unwrap();
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(tree["well"], true, "{tree}");
    assert_eq!(tree["requests"], serde_json::json!({ "inside": 0, "slots": 512, "spool_bytes": 0 }));
    assert!(tree["database"].is_null(), "{tree}");
    assert_eq!(tree["breakers"][0]["state"], "closed");
    let children = tree["actors"]["children"].as_array().unwrap();
    let names: Vec<_> = children.iter().map(|child| child["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["locks", "cleaner", "metadata", "metadata", "uploads"]);
    for child in children {
        assert_eq!((&child["state"], &child["restarts"], &child["panics"]), (&"up".into(), &0.into(), &0.into()));
        assert!(child["last_fault"].is_null() && !child["load"].as_object().unwrap().is_empty(), "{child}");
    }

    let mut slow = SlowUploads::begin(&server, 3);
    let answer = server.raw_request("GET", "/api/actors").send();
    assert!(answer.text().contains("\"inside\":3"), "{}", answer.text());
    slow.finish();
    server.raw_request("POST", "/api/actors").send().assert_refused(405);
    server.raw_request("GET", "/api/nothing").send().assert_refused(404);
    server.request("GET", "/api/actors").send().assert_refused(400);
}

#[test]
fn exports_and_their_failures_are_shown() {
    let server = TestServer::builder().env("EXPORT_INTERVAL", 1).start();
    upload(&server, "a", 0, &Noise::bytes(1, 10)).send().assert_status(200);
    let exporter = || {
        let answer = server.raw_request("GET", "/api/actors").send();
        let tree: serde_json::Value = serde_json::from_slice(&answer.assert_status(200).body).unwrap();
        let children = tree["actors"]["children"].as_array().unwrap().clone();
        children.into_iter().find(|child| child["name"] == "exporter").unwrap()
    };
    let file = server.data_dir().join("names.jsonl");
    eventually("an export", || (exporter()["load"]["names"] == 1).then_some(()));
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.lines().count() == 3 && text.ends_with("{\"end\":1}\n"), "{text}");
    assert!(exporter()["load"]["last_success"].as_u64().unwrap() > 1_600_000_000 && exporter()["last_fault"].is_null());
    // A folder where the file should be.
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    eventually("a failure", || {
        exporter()["last_fault"].as_str().is_some_and(|why| why.contains("export")).then_some(())
    });
    server.request("GET", "/files/a").send().assert_status(200);
    std::fs::remove_dir(&file).unwrap();
    eventually("an export", || exporter()["last_fault"].is_null().then_some(()));
    assert!(file.is_file());
    let left = std::fs::read_dir(server.data_dir()).unwrap();
    let left = left.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().ends_with(".part")).count();
    assert!(left <= 1, "the one that is being written");
}

#[test]
fn an_open_breaker_is_shown() {
    let mut s3 = S3InProcess::start();
    let server = TestServer::builder().s3(&s3.access).start();
    s3.stop();
    eventually("the breaker opens", || {
        upload(&server, "a", 0, &Noise::bytes(1, 10)).send().assert_refused(503);
        let tree = server.raw_request("GET", "/api/actors").send();
        tree.text().contains("\"state\":\"open\"").then_some(())
    });
}

#[test]
fn a_server_that_migrates_nothing_says_so() {
    let server = TestServer::start();
    let answer = server.raw_request("GET", "/api/migration").send();
    assert_eq!(answer.assert_status(200).text(), "{\"active\":false}");
    server.raw_request("POST", "/api/migration").send().assert_refused(405);
}
