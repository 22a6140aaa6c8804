//! The old server fails in the middle of a file that clients have the beginning of.

use std::thread;
use std::time::Duration;

use s3dedup_actors::testkit::filetracker::OldFiletracker;

use super::world::{Watcher, beside, old_file, old_put, our_file, put, told};
use crate::support::content::shown;
use crate::support::http::Connection;
use crate::support::{Noise, Response, TestServer, eventually};

/// More than is kept in memory, and more than fits into the buffers of a connection.
const SIZE: usize = 24 << 20;
/// Longer than an old server is waited for.
const PATIENCE: Duration = Duration::from_secs(150);

/// A client that has the beginning of a file.
fn begun(server: &TestServer, path: &str) -> Connection {
    let mut connection = Connection::open_with(server.address(), PATIENCE).unwrap();
    connection.write(&server.request("GET", &format!("/files/{path}")).header("Accept-Encoding", "identity").head());
    assert!(connection.answers_within(PATIENCE), "it begins");
    connection
}

/// Waits until a fetch waits for the old server.
fn interrupted(server: &TestServer) {
    eventually("the fetch waits", || server.log().contains("a fetch waits for the old server").then_some(()));
}

/// The rest of the answer, which may be cut off.
fn rest(connection: &mut Connection) -> Response {
    let answer = connection.response(false).unwrap();
    assert_eq!((answer.status, answer.header("last-modified")), (200, Some(shown(1).as_str())));
    answer
}

#[test]
fn a_read_goes_on_when_the_old_server_is_killed_and_comes_back() {
    let mut old = OldFiletracker::start();
    let content = Noise::bytes(11, SIZE);
    old_put(&old, "large", 1, &content);
    let watcher = Watcher::start(old.port(), Duration::from_millis(3));
    let server = beside(&watcher.url(), "proxy").env("MAX_INMEMORY_SIZE", 1 << 20).start();
    let mut clients = [begun(&server, "large"), begun(&server, "large")];
    old.kill();
    interrupted(&server);
    // Who has not begun is told to come back.
    let late = server.request("GET", "/files/large").send();
    assert_eq!((late.status, late.header("retry-after")), (503, Some("5")), "{late:?}");
    old.start_again();
    for client in &mut clients {
        let answer = rest(client);
        assert!(answer.complete && answer.body == content, "{} bytes", answer.body.len());
    }
    eventually("it is stored", || (told(&server)["old_server"]["files_being_fetched"] == 0).then_some(()));
    old.stop();
    assert!(our_file(&server, "large").unwrap() == (shown(1), content));
}

#[test]
fn a_read_goes_on_through_several_cuts() {
    let old = OldFiletracker::start();
    let content = Noise::bytes(12, SIZE);
    old_put(&old, "large", 1, &content);
    let watcher = Watcher::start(old.port(), Duration::from_millis(3));
    let server = beside(&watcher.url(), "proxy").start();
    let mut client = begun(&server, "large");
    for cut in 1..=3 {
        watcher.goes_away(true);
        let waits = || server.log().matches("a fetch waits for the old server").count();
        eventually("the fetch waits", || (waits() == cut).then_some(()));
        watcher.goes_away(false);
        eventually("it goes on", || (server.log().matches("a fetch goes on").count() == cut).then_some(()));
    }
    let answer = rest(&mut client);
    assert!(answer.complete && answer.body == content, "{} bytes", answer.body.len());
}

#[test]
fn a_read_is_never_put_together_from_two_versions() {
    let old = OldFiletracker::start();
    old_put(&old, "large", 1, &Noise::bytes(13, SIZE));
    let watcher = Watcher::start(old.port(), Duration::from_millis(3));
    let server = beside(&watcher.url(), "proxy").start();
    let mut client = begun(&server, "large");
    watcher.goes_away(true);
    interrupted(&server);
    let newer = Noise::bytes(14, SIZE);
    old_put(&old, "large", 2, &newer);
    watcher.goes_away(false);
    assert!(!rest(&mut client).complete, "it is cut off");
    assert!(our_file(&server, "large").unwrap() == (shown(2), newer), "and the newer version follows");
}

#[test]
fn a_read_is_cut_off_when_the_old_server_stays_away_and_the_server_goes_on() {
    let mut old = OldFiletracker::start();
    let content = Noise::bytes(15, SIZE);
    old_put(&old, "large", 1, &content);
    let watcher = Watcher::start(old.port(), Duration::from_millis(3));
    let server = beside(&watcher.url(), "proxy").start();
    put(&server, "here", 1, b"here").assert_status(200);
    let mut client = begun(&server, "large");
    old.kill();
    interrupted(&server);
    thread::scope(|scope| {
        let waits = scope.spawn(|| rest(&mut client));
        while !waits.is_finished() {
            assert_eq!(our_file(&server, "here").unwrap().1, b"here");
            thread::sleep(Duration::from_secs(1));
        }
        assert!(!waits.join().unwrap().complete, "it is cut off");
    });
    eventually("nothing is left", || server.temporary_files().is_empty().then_some(()));
    old.start_again();
    // It is left alone for a moment after it failed: 503 until then.
    let reads = || server.request("GET", "/files/large").send().status != 503;
    eventually("it is asked again", || reads().then_some(()));
    assert!(our_file(&server, "large").unwrap() == (shown(1), content.clone()));
    assert!(old_file(&old, "large").unwrap().1 == content);
}

#[test]
fn a_server_that_cuts_every_answer_is_not_asked_for_ever() {
    let old = OldFiletracker::start();
    old_put(&old, "large", 1, &Noise::bytes(16, SIZE));
    // So slow that little comes between two cuts.
    let watcher = Watcher::start(old.port(), Duration::from_millis(50));
    let server = beside(&watcher.url(), "proxy").start();
    let mut client = begun(&server, "large");
    let told = |text: &str| server.log().matches(text).count();
    let gave_up = || told("a file could not be fetched") > 0;
    for cut in 1.. {
        watcher.goes_away(true);
        eventually("it is cut", || (gave_up() || told("a fetch waits for the old server") == cut).then_some(()));
        if gave_up() {
            break;
        }
        assert!(cut < 20, "it is asked again and again");
        watcher.goes_away(false);
        eventually("it goes on", || (gave_up() || told("a fetch goes on") == cut).then_some(()));
        // All that came before comes again, and a little more.
        thread::sleep(Duration::from_millis(200) * u32::try_from(cut + 1).unwrap());
    }
    assert!(!rest(&mut client).complete, "it is cut off");
}
