//! Ending: requests in flight are finished, a second signal ends at once.

use std::os::unix::process::ExitStatusExt;

use rustix::process::Signal;

use crate::support::{SlowUploads, TestServer, eventually, gunzip};

/// A server with an upload half-way in.
fn with_upload_in_flight() -> (TestServer, SlowUploads) {
    let server = TestServer::builder().env("MAX_INMEMORY_SIZE", 4096).start();
    let upload = SlowUploads::begin(&server, 1);
    (server, upload)
}

fn signal_finishes_what_is_in_flight(signal: Signal) {
    let (mut server, mut upload) = with_upload_in_flight();
    server.signal(signal);
    eventually("no new connections are served", || server.request("GET", "/version").try_send().err());
    assert!(!server.has_ended());
    let answer = upload.finish().remove(0);
    answer.assert_status(200);
    assert_eq!(answer.header("connection"), Some("close"));
    let status = server.wait();
    assert!(status.success(), "{status}: {}", server.log());

    server.start_again();
    let stored = server.request("GET", "/files/slow0").send();
    assert_eq!(gunzip(&stored.assert_status(200).body), upload.content());
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
        let (mut server, mut upload) = with_upload_in_flight();
        server.signal(first);
        eventually("no new connections are served", || server.request("GET", "/version").try_send().err());
        server.signal(second);
        let status = server.wait();
        assert!(!status.success(), "an upload was cut: {status}");
        assert_ne!(status.signal(), Some(9));
        upload.assert_cut();
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
