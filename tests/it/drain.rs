//! Ending: requests in flight are finished, a second signal ends at once.

use std::os::unix::process::ExitStatusExt;

use rustix::process::Signal;

use crate::support::{Connection, TestServer, date, eventually, gunzip};

const BODY: &[u8] = b"a slow but honest body";

/// A server with an upload half-way in.
fn with_upload_in_flight() -> (TestServer, Connection) {
    let server = TestServer::builder().env("REQUEST_SLOTS_MAX", 1).start();
    let target = format!("/files/x?last_modified={}", date(0));
    let mut connection = server.connect();
    connection.write(&server.request("PUT", &target).body(BODY).head());
    connection.write(&BODY[..5]);
    eventually("the upload is in", || (server.request("GET", "/list").send().status == 503).then_some(()));
    (server, connection)
}

fn signal_finishes_what_is_in_flight(signal: Signal) {
    let (mut server, mut connection) = with_upload_in_flight();
    server.signal(signal);
    eventually("no new connections are served", || server.request("GET", "/version").try_send().err());
    assert!(!server.has_ended());
    connection.write(&BODY[5..]);
    let answer = connection.response(false).unwrap();
    answer.assert_status(200);
    assert_eq!(answer.header("connection"), Some("close"));
    let status = server.wait();
    assert!(status.success(), "{status}: {}", server.log());

    server.start_again();
    let stored = server.request("GET", "/files/x").send();
    assert_eq!(gunzip(&stored.assert_status(200).body), BODY);
}

#[test]
fn sigterm_finishes_what_is_in_flight() {
    signal_finishes_what_is_in_flight(Signal::TERM);
}

#[test]
fn sigint_finishes_what_is_in_flight() {
    signal_finishes_what_is_in_flight(Signal::INT);
}

#[test]
fn a_second_signal_ends_at_once() {
    for (first, second) in [(Signal::TERM, Signal::TERM), (Signal::INT, Signal::INT), (Signal::TERM, Signal::INT)] {
        let (mut server, mut connection) = with_upload_in_flight();
        server.signal(first);
        eventually("no new connections are served", || server.request("GET", "/version").try_send().err());
        server.signal(second);
        let status = server.wait();
        assert!(!status.success(), "an upload was cut: {status}");
        assert_ne!(status.signal(), Some(9));
        assert!(connection.response(false).is_err());
        server.start_again();
        assert!(server.list("").is_empty());
    }
}

#[test]
fn idle_connections_do_not_hold_up_the_end() {
    let mut server = TestServer::start();
    let mut idle = server.connect();
    server.request("GET", "/version").send_on(&mut idle).assert_status(200);
    let _silent = server.connect();
    server.stop();
    assert!(idle.is_closed());
    server.start_again();
}
