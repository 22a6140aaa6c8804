//! Panics of a part of the server: it is made anew and the others go on; when that happens again and again, the process
//! ends in order to be started afresh.

use crate::support::{Noise, TestServer, eventually, gunzip, upload};

/// An actor as the server shows it.
fn actor(server: &TestServer, name: &str) -> Option<serde_json::Value> {
    let answer = server.raw_request("GET", "/api/actors").try_send().ok()?;
    let told: serde_json::Value = serde_json::from_slice(&answer.body).ok()?;
    let children = told["actors"]["children"].as_array()?;
    children.iter().find(|child| child["name"] == name).cloned()
}

#[test]
fn a_cleaner_that_panics_again_and_again_ends_the_process_and_one_panic_does_not() {
    let builder = TestServer::builder().env("CLEANER_INTERVAL", 1).env("CLEANER_GRACE", 0);
    let mut server = builder.env("S3DEDUP_FAILPOINTS", "clean-at-tick=panic#1").start();
    let content = Noise::bytes(1, 5000);
    for name in ["kept", "gone"] {
        upload(&server, name, 0, &content).send().assert_status(200);
    }
    upload(&server, "gone", 1, b"another").send().assert_status(200);
    upload(&server, "gone", 2, &content).send().assert_status(200);
    eventually("the panic is shown", || {
        let cleaner = actor(&server, "cleaner")?;
        (cleaner["restarts"] == 1 && cleaner["panics"] == 1 && cleaner["state"] == "up").then_some(())
    });
    for name in ["locks", "metadata", "uploads"] {
        assert_eq!(actor(&server, name).unwrap()["restarts"], 0, "{name}");
    }
    eventually("it cleans", || (server.objects().len() == 1).then_some(()));
    assert_eq!(gunzip(&server.request("GET", "/files/kept").send().assert_status(200).body), content);
    server.stop();

    server.set_env("S3DEDUP_FAILPOINTS", Some("clean-at-tick=panic"));
    server.start_again();
    // As long as it lives it serves.
    while let Ok(answer) = server.request("GET", "/files/kept").try_send() {
        assert_eq!(answer.status, 200);
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let end = server.wait();
    assert_eq!(end.code(), Some(70), "{}", server.log());
    assert!(server.log().contains("the last of actor cleaner"), "{}", server.log());
    server.set_env("S3DEDUP_FAILPOINTS", None);
    server.start_again();
    assert_eq!(gunzip(&server.request("GET", "/files/kept").send().assert_status(200).body), content);
}

#[test]
fn locks_that_fail_again_and_again_end_the_process_and_one_failure_does_not() {
    for action in ["panic", "error"] {
        let mut server = TestServer::builder().env("S3DEDUP_FAILPOINTS", format!("put-at-locks={action}#2")).start();
        upload(&server, "known", 0, b"known").send().assert_status(200);
        assert_eq!(upload(&server, "hit", 0, b"hit").send().status, 503, "{action}");
        eventually("it is shown", || {
            let locks = actor(&server, "locks")?;
            let fault = locks["last_fault"].as_str()?.contains("put-at-locks");
            (locks["restarts"] == 1 && fault && locks["state"] == "up").then_some(())
        });
        for name in ["cleaner", "metadata", "uploads"] {
            assert_eq!(actor(&server, name).unwrap()["restarts"], 0, "{name}");
        }
        upload(&server, "hit", 0, b"hit").send().assert_status(200);
        server.stop();

        server.set_env("S3DEDUP_FAILPOINTS", Some(&format!("put-at-locks={action}")));
        server.start_again();
        for round in 0.. {
            // What needs no lock goes on for as long as it lives.
            let new = upload(&server, "new", round, format!("{round}").as_bytes()).try_send();
            let (Ok(new), Ok(known)) = (new, server.request("GET", "/files/known").try_send()) else { break };
            assert!(new.status == 503 && known.status == 200, "{action}: {new:?} {known:?}");
        }
        let end = server.wait();
        assert_eq!(end.code(), Some(70), "{}", server.log());
        assert!(server.log().contains("the last of actor locks"), "{}", server.log());
        server.set_env("S3DEDUP_FAILPOINTS", None);
        server.start_again();
        server.request("GET", "/files/known").send().assert_status(200);
    }
}

#[test]
fn a_panic_is_a_line_of_the_log_with_its_request_and_a_backtrace_when_asked() {
    for (point, backtrace) in [("put-at-locks", "1"), ("put-after-upload", "0")] {
        let builder = TestServer::builder().env("LOG_JSON", true).env("RUST_BACKTRACE", backtrace);
        let mut server = builder.env("S3DEDUP_FAILPOINTS", format!("{point}=panic#1")).start();
        let answer = upload(&server, "a", 0, b"content").header("X-Request-Id", "put-1").send();
        assert_eq!(answer.status, 503, "{point}");
        server.stop();
        let log = server.log();
        let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let panic = lines.iter().find(|line| line["message"] == "panic").unwrap_or_else(|| panic!("{log}"));
        assert_eq!((&panic["request_id"], &panic["level"]), (&"put-1".into(), &"error".into()), "{panic}");
        assert!(panic["place"].as_str().unwrap().contains("failpoint.rs") && panic["thread"].is_string(), "{panic}");
        assert_eq!(panic["backtrace"].as_str().is_some_and(|lines| lines.contains('\n')), backtrace == "1", "{panic}");
        // The actor that caught it, and the front end, too.
        let told = lines.iter().filter(|line| line["request_id"] == "put-1" && line["level"] == "error");
        assert!(told.count() >= 3, "{log}");
    }
}
