//! `GET /api/stats`, `s3dedup stats` and `s3dedup healthcheck`.

use serde_json::Value;

use crate::support::{Noise, TestServer, eventually, upload};

fn url(server: &TestServer) -> String {
    format!("http://{}", server.address())
}

#[test]
fn stats_tell_what_is_stored_and_saved() {
    let server = TestServer::start();
    for name in ["a", "b", "c"] {
        upload(&server, name, 0, &Noise::bytes(1, 1000)).send().assert_status(200);
    }
    upload(&server, "d", 0, &Noise::bytes(2, 500)).send().assert_status(200);
    let stats = || {
        let answer = server.raw_request("GET", "/api/stats").send();
        serde_json::from_slice::<Value>(&answer.assert_status(200).body).unwrap()
    };
    let now = eventually("totals", || Some(stats()).filter(|now| now["dedup_total_references"] == 4));
    assert_eq!((&now["dedup_unique_blobs"], &now["objects_count"]), (&2.into(), &2.into()));
    assert_eq!((&now["dedup_ratio"], &now["logical_bytes"]), (&2.0.into(), &3500.into()));
    let stored = now["storage_used_bytes"].as_u64().unwrap();
    assert_eq!(now["saved_bytes"], 3500 - stored);
    assert!(now["uptime_seconds"].is_u64() && now["version"] == env!("CARGO_PKG_VERSION"));

    let ran = server.run(&["stats", "--url", &url(&server), "--json"]);
    assert!(ran.status.success(), "{ran:?}");
    let told: Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!((&told["logical_bytes"], &told["storage_used_bytes"]), (&3500.into(), &stored.into()));
    let ran = server.run(&["stats", "--url", &url(&server)]);
    let table = String::from_utf8(ran.stdout).unwrap();
    assert!(table.contains("unique contents") && table.contains("2.00") && table.lines().count() > 8, "{table}");
    server.raw_request("GET", "/api/history?range=week").send().assert_status(200);
    server.raw_request("GET", "/api/history?range=year").send().assert_refused(400);
}

#[test]
fn a_health_check_tells_a_server_that_answers_from_one_that_does_not() {
    let mut server = TestServer::start();
    let url = url(&server);
    let port = server.address().port().to_string();
    for arguments in [&["healthcheck", "--url", &url][..], &["healthcheck", "--url", &url, "--ready"]] {
        let ran = server.run(arguments);
        assert_eq!((ran.status.code(), ran.stdout.len()), (Some(0), 0), "{ran:?}");
    }
    // By the configuration that the server has, too.
    let ran = server.command(&["healthcheck"]).env("LISTEN_PORT", &port).output().unwrap();
    assert_eq!(ran.status.code(), Some(0), "{ran:?}");
    server.stop();
    for command in ["healthcheck", "stats"] {
        let ran = server.run(&[command, "--url", &url]);
        assert_eq!(ran.status.code(), Some(1), "{ran:?}");
        assert!(String::from_utf8_lossy(&ran.stderr).contains("does not answer"), "{ran:?}");
    }
}
