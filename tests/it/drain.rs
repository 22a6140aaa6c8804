//! Ending: requests in flight are finished, a second signal ends at once.

use std::os::unix::process::ExitStatusExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use s3dedup_actors::testkit::postgres::{DATABASE, PostgresServer};

use crate::support::s3::S3InProcess;
use crate::support::server::Builder;
use crate::support::{Noise, SlowUploads, TestServer, eventually, eventually_within, gunzip, upload};

/// A server with an upload half-way in.
fn with_upload_in_flight() -> (TestServer, SlowUploads) {
    let server = TestServer::builder().env("MAX_INMEMORY_SIZE", 4096).start();
    let upload = SlowUploads::begin(&server, 1);
    (server, upload)
}

/// Waits until new requests are refused, on connections of their own.
fn until_it_refuses(server: &TestServer) {
    let refused = eventually("new requests are refused", || {
        let answer = server.request("GET", "/version").send();
        (answer.status == 503).then_some(answer)
    });
    assert_eq!((refused.header("connection"), refused.header("retry-after")), (Some("close"), Some("1")));
}

fn signal_finishes_what_is_in_flight(signal: Signal) {
    let (mut server, mut upload) = with_upload_in_flight();
    server.signal(signal);
    until_it_refuses(&server);
    assert_says_that_it_stops(&server);
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

/// On connections of their own, as a balancer's checks.
fn assert_says_that_it_stops(server: &TestServer) {
    let told = server.raw_request("GET", "/ready").send();
    assert_eq!(told.status, 503);
    let told: serde_json::Value = serde_json::from_slice(&told.body).unwrap();
    assert_eq!((&told["ready"], &told["draining"], &told["metadata"]), (&false.into(), &true.into(), &"ok".into()));
    assert_eq!(server.raw_request("GET", "/ready?otherwise=404").send().status, 404);
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
        until_it_refuses(&server);
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

#[test]
fn readiness_fails_first_and_requests_are_served_meanwhile() {
    let mut server = TestServer::builder().env("DRAIN_DELAY_SECONDS", 3).start();
    server.raw_request("GET", "/ready").send().assert_status(200);
    server.signal(Signal::TERM);
    eventually("it says that it stops", || (server.raw_request("GET", "/ready").send().status == 503).then_some(()));
    assert_says_that_it_stops(&server);
    upload(&server, "late", 0, b"still served").send().assert_status(200);
    assert!(server.wait().success());
    server.start_again();
    assert_eq!(server.list(""), ["late"]);
}

#[test]
fn who_asks_hears_that_it_stops_for_as_long_as_an_upload_is_in_flight() {
    let (mut server, mut upload) = with_upload_in_flight();
    server.raw_request("GET", "/ready?otherwise=404").send().assert_status(200);
    server.signal(Signal::TERM);
    until_it_refuses(&server);
    // A balancer asks once a second or so, and counts to three.
    for _ in 0..5 {
        std::thread::sleep(Duration::from_millis(300));
        assert_says_that_it_stops(&server);
        server.raw_request("GET", "/health").send().assert_status(200);
        until_it_refuses(&server);
    }
    upload.finish().remove(0).assert_status(200);
    let status = server.wait();
    assert!(status.success(), "{status}: {}", server.log());
    server.start_again();
    let stored = server.request("GET", "/files/slow0").send();
    assert_eq!(gunzip(&stored.assert_status(200).body), upload.content());
}

#[test]
fn the_drain_time_is_a_bound_for_uploads_that_do_not_end() {
    let mut server = TestServer::builder().env("MAX_INMEMORY_SIZE", 4096).env("DRAIN_SECONDS", 1).start();
    let mut upload = SlowUploads::begin(&server, 1);
    server.signal(Signal::TERM);
    let status = server.wait();
    assert!(status.success(), "{status}: {}", server.log());
    assert!(server.log().contains("may have been cut"), "{}", server.log());
    upload.assert_cut();
    server.start_again();
    assert!(server.list("").is_empty());
}

const SLOW: usize = 50;
const BUSY: usize = 150;

/// How long a stopping server serves on, so that its balancer can notice.
const DELAY_SECONDS: u64 = 3;

/// What the busy clients of a drain saw.
#[derive(Default)]
struct Seen {
    acknowledged: Mutex<Vec<(usize, usize)>>,
    answers: AtomicUsize,
    /// Right before the signal.
    is_told: AtomicBool,
    refused: AtomicUsize,
    has_failed: AtomicBool,
}

/// Sends the clients home when the test fails: its scope would wait for them for ever.
struct EndOnPanic<'a>(&'a Seen);

impl Drop for EndOnPanic<'_> {
    fn drop(&mut self) {
        self.0.has_failed.store(std::thread::panicking(), Ordering::SeqCst);
    }
}

impl Seen {
    fn acknowledged(&self) -> usize {
        self.acknowledged.lock().unwrap().len()
    }

    /// Uploads until the door is closed. A try that began before the signal gets an answer.
    fn upload(&self, server: &TestServer, client: usize) {
        for round in 0.. {
            let path = format!("busy{client}/{round}");
            let is_late = self.is_told.load(Ordering::SeqCst);
            match upload(server, &path, 0, &busy_content(client, round)).try_send() {
                Ok(answer) if answer.status == 200 => self.acknowledged.lock().unwrap().push((client, round)),
                // The door is closed.
                Ok(answer) if answer.text().contains("stopping") => break,
                // There may be more of them than uploaders can do in time.
                Ok(answer) => assert_eq!(answer.status, 503, "{answer:?}"),
                // The door was closed while it was still sending.
                Err(_) if is_late => break,
                Err(error) => panic!("{path} began before the signal, and has no answer: {error}"),
            }
            self.answers.fetch_add(1, Ordering::Relaxed);
            if self.has_failed.load(Ordering::SeqCst) {
                return;
            }
        }
        self.refused.fetch_add(1, Ordering::SeqCst);
    }
}

fn busy_content(client: usize, round: usize) -> Vec<u8> {
    Noise::bytes((client * 1000 + round) as u64, 2000 + client)
}

/// Two hundred uploads at once, some of which take their time: readiness fails first, while all are served; those that
/// were begun are finished, and what was acknowledged is there afterwards.
fn a_busy_server_is_drained(builder: Builder) {
    let builder = builder.env("MAX_INMEMORY_SIZE", 4096).env("DRAIN_DELAY_SECONDS", DELAY_SECONDS);
    let mut server = builder.start();
    let mut slow = SlowUploads::begin(&server, SLOW);
    let seen = Seen::default();
    std::thread::scope(|scope| {
        let _end = EndOnPanic(&seen);
        let clients: Vec<_> = (0..BUSY)
            .map(|client| {
                let (server, seen) = (&server, &seen);
                scope.spawn(move || seen.upload(server, client))
            })
            .collect();
        // A machine that is busy with other tests needs its time for so many.
        eventually_within(Duration::from_secs(120), "all are at it", || {
            let has_failed = clients.iter().any(|client| client.is_finished());
            (has_failed || seen.answers.load(Ordering::Relaxed) > 2 * BUSY).then_some(())
        });
        assert_eq!(seen.refused.load(Ordering::SeqCst), 0);
        server.raw_request("GET", "/ready").send().assert_status(200);
        seen.is_told.store(true, Ordering::SeqCst);
        server.signal(Signal::TERM);
        eventually("it says that it stops", || {
            (server.raw_request("GET", "/ready").send().status == 503).then_some(())
        });
        let (refused, acknowledged) = (seen.refused.load(Ordering::SeqCst), seen.acknowledged());
        assert_eq!(refused, 0, "readiness is to fail first");
        until_it_refuses(&server);
        assert!(seen.acknowledged() > acknowledged, "nothing was served after readiness had failed");
        assert_says_that_it_stops(&server);
    });
    assert_eq!(seen.refused.load(Ordering::SeqCst), BUSY);
    assert!(!server.has_ended(), "slow uploads are still on their way");
    std::thread::sleep(Duration::from_millis(300));
    for answer in slow.finish() {
        answer.assert_status(200);
        assert_eq!(answer.header("connection"), Some("close"));
    }
    let status = server.wait();
    assert!(status.success(), "{status}: {}", server.log());
    assert!(!server.log().contains("cut"), "{}", server.log());

    server.start_again();
    for number in 0..SLOW {
        let stored = server.request("GET", &format!("/files/slow{number}")).send();
        assert_eq!(gunzip(&stored.assert_status(200).body), slow.content());
    }
    let acknowledged = seen.acknowledged.into_inner().unwrap();
    assert!(acknowledged.len() > BUSY, "{}", acknowledged.len());
    for (client, round) in acknowledged {
        let stored = server.request("GET", &format!("/files/busy{client}/{round}")).send();
        assert!(gunzip(&stored.assert_status(200).body) == busy_content(client, round), "busy{client}/{round}");
    }
}

#[test]
fn a_busy_server_with_a_folder_is_drained() {
    a_busy_server_is_drained(TestServer::builder());
}

#[test]
fn a_busy_server_with_s3_is_drained() {
    let s3 = S3InProcess::start();
    a_busy_server_is_drained(TestServer::builder().s3(&s3.access));
}

#[test]
fn a_busy_server_with_postgres_is_drained() {
    let postgres = PostgresServer::start();
    a_busy_server_is_drained(TestServer::builder().postgres(&postgres, DATABASE));
}
