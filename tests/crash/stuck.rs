//! A thread that does not come back: the others go on, the server says so, and ends in order to be started afresh.

use std::time::Instant;

use crate::support::{TestServer, eventually, upload};

/// The state of an actor, as the server shows it.
fn state(server: &TestServer, name: &str) -> Option<String> {
    let answer = server.raw_request("GET", "/api/actors").try_send().ok()?;
    let text = answer.text();
    let at = text.find(&format!("\"name\":\"{name}\""))?;
    let state = text[at..].split("\"state\":\"").nth(1)?;
    Some(state.split('"').next()?.to_owned())
}

#[test]
fn a_thread_that_comes_back_has_its_actor_rebuilt() {
    let mut server =
        TestServer::builder().env("STUCK_SECONDS", 4).env("S3DEDUP_FAILPOINTS", "put-at-locks=block:7.5#2").start();
    upload(&server, "first", 0, b"first").send().assert_status(200);
    let told = upload(&server, "second", 0, b"second").send();
    assert_eq!(told.status, 503, "{told:?}");
    eventually("it is seen", || (state(&server, "locks")? == "stuck").then_some(()));
    eventually("it is well again", || (state(&server, "locks")? == "up").then_some(()));
    let told = server.raw_request("GET", "/api/actors").send();
    let text = told.text();
    assert!(text.contains("\"last_fault\":\"its thread does not answer\""), "{text}");
    upload(&server, "second", 0, b"second").send().assert_status(200);
    server.stop();
}

#[test]
fn a_stuck_actor_is_reported_and_in_the_end_fatal() {
    let mut server =
        TestServer::builder().env("STUCK_SECONDS", 2).env("S3DEDUP_FAILPOINTS", "put-after-upload=block:60#2").start();
    upload(&server, "known", 0, b"known").send().assert_status(200);
    assert_eq!(state(&server, "uploads").as_deref(), Some("up"));
    let (begun, mut cut) = (Instant::now(), server.connect());
    cut.write(&upload(&server, "cut", 0, b"an upload that keeps the thread").head());
    cut.write(&crate::support::gzip(b"an upload that keeps the thread", 6));
    eventually("the actor is reported", || (state(&server, "uploads")? == "stuck").then_some(()));
    assert_eq!(state(&server, "metadata").as_deref(), Some("up"));
    let ready = server.raw_request("GET", "/ready").send();
    assert_eq!((ready.status, ready.text().contains("actor uploads is stuck")), (503, true), "{ready:?}");
    // Who waits for it is told.
    let told = cut.response(false).unwrap();
    assert_eq!((told.status, told.header("retry-after")), (503, Some("5")), "{told:?}");
    // What does not need the uploads goes on.
    upload(&server, "again", 0, b"known").send().assert_status(200);
    server.request("GET", "/files/known").send().assert_status(200);
    let status = server.wait();
    assert_eq!(status.code(), Some(70), "{}", server.log());
    assert!(begun.elapsed().as_secs() < 15, "{:?}", begun.elapsed());
    assert!(server.log().contains("an actor is stuck actor=uploads"), "{}", server.log());

    server.set_env("S3DEDUP_FAILPOINTS", None);
    server.start_again();
    for name in ["known", "again"] {
        server.request("GET", &format!("/files/{name}")).send().assert_status(200);
    }
    upload(&server, "cut", 0, b"an upload that keeps the thread").send().assert_status(200);
}
