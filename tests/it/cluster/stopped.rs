//! A server that stops in the middle of something (`SIGSTOP`: a suspended machine, a pause for swapping), goes on
//! long after everybody else has gone on without it, and must do no harm then.

use std::time::{Duration, Instant};

use s3dedup_actors::testkit::noise;

use super::books::{Name, differences};
use super::faults::STALL_TIME;
use super::fixture::Cluster;
use super::member::Member;
use crate::load::peer::HANG_MIN;
use crate::load::stamp::{self, Stamp};
use crate::support::{Connection, Request, Response, TestServer, eventually, gunzip, sha256};

/// More than a server collects before it starts to spool.
const HALF: usize = 700_000;

fn write(server: &TestServer, method: &str, path: &str, version: Stamp) -> Request {
    server.request(method, &format!("/files/{path}?last_modified={}", stamp::query(version)))
}

fn put(server: &TestServer, path: &str, version: Stamp, content: &[u8]) -> Request {
    write(server, "PUT", path, version).body(content)
}

/// Repeats a request until it is done, as clients do.
fn until_done(request: &Request) -> Response {
    eventually("it is done", || {
        let began = Instant::now();
        let answer = request.send();
        assert!(began.elapsed() < HANG_MIN, "{request} took {:?}", began.elapsed());
        assert!(matches!(answer.status, 200 | 503), "{request}: {answer:?}");
        (answer.status == 200).then_some(answer)
    })
}

fn sent(server: &TestServer, request: &Request) -> Connection {
    let mut connection = server.connect();
    request.write_to(&mut connection).unwrap();
    connection
}

/// Has a server prepare its statements for deletions on all connections that it has: the next ones are sent to
/// the database in one message.
fn warm_up(server: &TestServer) {
    std::thread::scope(|scope| {
        for client in 0..4 {
            scope.spawn(move || {
                for _ in 0..25 {
                    let answer = write(server, "DELETE", &format!("nothing{client}"), 1).send();
                    assert_eq!(answer.status, 404);
                }
            });
        }
    });
}

/// Asserts that every server shows exactly this, and that the books are right.
fn assert_all_see(cluster: &Cluster, expected: &[(&str, Stamp, &[u8])]) {
    for Member { server, peer, .. } in &cluster.members {
        for (path, version, content) in expected {
            let answer = server.request("GET", &format!("/files/{path}")).send();
            let shown = answer.assert_status(200).header("last-modified").and_then(stamp::read);
            assert_eq!(shown, Some(*version), "{path} of {}", peer.name);
            assert!(gunzip(&answer.body) == *content, "{path} of {} has other bytes", peer.name);
        }
    }
    let names = expected.iter().map(|(path, version, content)| {
        let (name, sha256) = ((*path).to_owned(), sha256(content));
        Name { name, version: *version, sha256, size: content.len() }
    });
    let wrong = differences(cluster, names);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_server_that_stops_in_the_middle_of_an_upload_and_of_deletions_does_no_harm() {
    let cluster = Cluster::start(2, super::in_process());
    let [one, other] = &cluster.members[..] else { panic!("two servers") };
    let content = noise(1, 2 * HALF);
    for path in ["overwritten", "put-again"] {
        put(&other.server, path, 5, b"old").send().assert_status(200);
    }
    warm_up(&one.server);
    // Half of an upload is in, and deletions are on their way to the database.
    let mut upload = one.server.connect();
    upload.write(&put(&one.server, "uploaded", 10, &content).head());
    upload.write(&content[..HALF]);
    eventually("half of it is in", || (!one.server.temporary_files().is_empty()).then_some(()));
    let to_database = &one.database.as_ref().unwrap().metadata;
    to_database.stall();
    let mut older = sent(&one.server, &write(&one.server, "DELETE", "overwritten", 6));
    let mut newer = sent(&one.server, &write(&one.server, "DELETE", "put-again", 40));
    std::thread::sleep(Duration::from_millis(500));
    one.stall();

    for (path, version, content) in
        [("uploaded", 20, &content[..]), ("overwritten", 30, b"new"), ("put-again", 35, b"new")]
    {
        let answer = until_done(&put(&other.server, path, version, content));
        assert_eq!(answer.header("last-modified"), Some(&*stamp::shown(version)));
    }
    std::thread::sleep(STALL_TIME);
    to_database.pass();
    one.go_on();
    upload.write(&content[HALF..]);

    let answer = upload.response(false).unwrap();
    println!("the upload is told {}", answer.status);
    let answer = if answer.status == 200 { answer } else { until_done(&put(&one.server, "uploaded", 10, &content)) };
    assert_eq!(answer.header("last-modified"), Some(&*stamp::shown(20)), "the newer version stays");
    let [older, newer] = [&mut older, &mut newer].map(|deletion| deletion.response(false).unwrap().status);
    println!("the deletions are told {older} and {newer}");
    assert!(matches!(older, 200 | 503));
    let mut expected = vec![("uploaded", 20, &content[..]), ("overwritten", 30, b"new")];
    match newer {
        // It took effect, late: it was newer than what was put meanwhile, and its client still waited.
        200 => {}
        503 => expected.push(("put-again", 35, b"new")),
        status => panic!("{status}"),
    }
    // What the database was sent before may still arrive.
    std::thread::sleep(Duration::from_secs(1));
    assert_all_see(&cluster, &expected);
}

#[test]
fn a_server_that_stops_in_the_middle_of_storing_a_content_keeps_nobody_from_it() {
    let cluster = Cluster::start(2, super::in_process());
    let [one, other] = &cluster.members[..] else { panic!("two servers") };
    let content = noise(2, HALF);
    one.s3.stall();
    let mut first = sent(&one.server, &put(&one.server, "first", 1, &content));
    let intents = "SELECT count(*) FROM s3dedup.intents";
    eventually("the upload is begun", || (cluster.postgres().sql(intents) == "1").then_some(()));
    one.stall();
    let stopped = Instant::now();

    until_done(&put(&other.server, "second", 2, &content));
    println!("stored by the other one after {:?}", stopped.elapsed());
    std::thread::sleep(STALL_TIME.saturating_sub(stopped.elapsed()));
    one.s3.pass();
    one.go_on();

    let answer = first.response(false).unwrap();
    println!("the first upload is told {}", answer.status);
    if answer.status != 200 {
        until_done(&put(&one.server, "first", 1, &content));
    }
    assert_all_see(&cluster, &[("first", 1, &content), ("second", 2, &content)]);
    // It is not stopped or broken by what it missed.
    until_done(&put(&one.server, "third", 3, b"new"));
    assert_all_see(&cluster, &[("first", 1, &content), ("second", 2, &content), ("third", 3, b"new")]);
}

#[test]
fn a_name_that_was_deleted_meanwhile_is_not_brought_back_by_a_server_that_stood_still() {
    let cluster = Cluster::start(2, super::in_process());
    let [one, other] = &cluster.members[..] else { panic!("two servers") };
    let (content, known) = (noise(3, HALF), noise(4, 2 * HALF));
    put(&other.server, "known", 1, &known).send().assert_status(200);
    // One upload waits for the content store, the other one for the rest of its body.
    let mut waiting_for_body = one.server.connect();
    waiting_for_body.write(&put(&one.server, "half", 5, &known).head());
    waiting_for_body.write(&known[..HALF]);
    eventually("half of it is in", || (!one.server.temporary_files().is_empty()).then_some(()));
    one.s3.stall();
    let mut waiting_for_store = sent(&one.server, &put(&one.server, "new", 5, &content));
    let intents = "SELECT count(*) FROM s3dedup.intents";
    eventually("the upload is begun", || (cluster.postgres().sql(intents) == "1").then_some(()));
    one.stall();

    for (path, content) in [("half", &known), ("new", &content)] {
        until_done(&put(&other.server, path, 5, content));
        until_done(&write(&other.server, "DELETE", path, 6));
    }
    std::thread::sleep(STALL_TIME);
    one.s3.pass();
    one.go_on();
    waiting_for_body.write(&known[HALF..]);

    for upload in [&mut waiting_for_body, &mut waiting_for_store] {
        let answer = upload.response(false).unwrap();
        // The body may count as too slow before anything else is looked at.
        assert!(matches!(answer.status, 503 | 408), "it must not be told that it was done: {answer:?}");
    }
    assert_all_see(&cluster, &[("known", 1, &known)]);
    until_done(&put(&one.server, "new", 7, &content));
    assert_all_see(&cluster, &[("known", 1, &known), ("new", 7, &content)]);
}
