//! What does not need a backend goes on when that backend is slow or dead.

use std::time::Duration;

use s3dedup_actors::testkit::postgres::{DATABASE, PostgresServer};
use s3dedup_actors::testkit::proxy::{HttpFault, NetworkFault};

use crate::health::{Holding, Watch, actors, works};
use crate::member::{Fault, Member, Way};
use crate::support::s3::Garage;
use crate::support::{Noise, Request, Response, TestServer, date, eventually, upload};

/// Far less than anything waits that waits for a backend.
const AT_ONCE_MAX: Duration = Duration::from_secs(2);
/// The contract of refusals.
const REFUSAL_MAX: Duration = Duration::from_secs(5);
/// Requests that need the backend, at a time.
const STUCK: u64 = 24;

#[track_caller]
fn answers_at_once(server: &TestServer, request: &Request, status: u16) -> Response {
    let watch = Watch::start(server);
    let answer = request.send();
    let took = watch.elapsed();
    assert_eq!(answer.status, status, "{request}: {:?}", answer.header("x-exception"));
    assert!(took < watch.limit(AT_ONCE_MAX), "{request} took {took:?}");
    answer
}

#[track_caller]
fn is_refused_in_time(server: &TestServer, request: &Request) {
    let watch = Watch::start(server);
    let answer = request.send();
    let took = watch.elapsed();
    assert!(took < watch.limit(REFUSAL_MAX), "{request} took {took:?}");
    answer.assert_refused(503);
    assert!(answer.header("retry-after").is_some());
}

fn delete(server: &TestServer, path: &str) -> Request {
    server.request("DELETE", &format!("/files/{path}?last_modified={}", date(0)))
}

#[test]
fn a_dead_s3_slows_nobody_who_does_not_need_it() {
    let _turn = crate::alone();
    let garage = Garage::start();
    let member = Member::start("alone", Some(&garage.access), None, &[], 1);
    let server = &member.server;
    let large = Noise::bytes(1, 200_000);
    upload(server, "large", 0, &large).send().assert_status(200);
    upload(server, "small", 0, b"kept in memory").send().assert_status(200);
    let before = Holding::at_rest(&member);
    for (round, fault) in [
        Fault::Network(NetworkFault::Stall),
        Fault::Network(NetworkFault::Deaf),
        Fault::Http(HttpFault::Refuse(503, "SlowDown")),
    ]
    .into_iter()
    .enumerate()
    {
        println!("{fault:?}");
        for number in 0..10 {
            upload(server, &format!("gone/{number}"), 0, &large).send().assert_status(200);
        }
        member.fail(Way::S3, fault, 1.0);
        std::thread::scope(|scope| {
            for number in 0..STUCK {
                scope.spawn(move || match number % 2 {
                    0 => is_refused_in_time(server, &server.request("GET", "/files/large")),
                    _ => {
                        let content = Noise::bytes(100 * round as u64 + number, 100_000);
                        is_refused_in_time(server, &upload(server, &format!("new/{number}"), 0, &content));
                    }
                });
            }
            for number in 0..10 {
                answers_at_once(server, &server.request("GET", "/list/"), 200);
                answers_at_once(server, &server.request("HEAD", "/files/large"), 200);
                answers_at_once(server, &server.request("GET", "/files/small"), 200);
                answers_at_once(server, &upload(server, &format!("again/{number}"), 0, &large), 200);
                answers_at_once(server, &delete(server, &format!("gone/{number}")), 200);
                answers_at_once(server, &server.raw_request("GET", "/ready?contents=optional"), 200);
                std::thread::sleep(Duration::from_millis(200));
            }
        });
        member.pass();
        eventually("it works again", || works(server, round as u64).ok());
        server.request("GET", "/files/large").send().assert_status(200);
    }
    assert_eq!(before.left_since(&member), None);
}

#[test]
fn a_slow_database_stops_neither_health_nor_what_shows_the_trouble() {
    let _turn = crate::alone();
    let postgres = PostgresServer::start();
    let member = Member::start("alone", None, Some((&postgres, DATABASE)), &[], 1);
    let server = &member.server;
    upload(server, "known", 0, b"known").send().assert_status(200);
    let before = Holding::at_rest(&member);
    for fault in [NetworkFault::Stall, NetworkFault::Deaf] {
        println!("{fault:?}");
        member.fail(Way::Database, Fault::Network(fault), 1.0);
        std::thread::scope(|scope| {
            for number in 0..STUCK {
                scope.spawn(move || match number % 3 {
                    0 => is_refused_in_time(server, &server.request("GET", "/files/known")),
                    1 => is_refused_in_time(server, &server.request("GET", "/list/")),
                    _ => is_refused_in_time(server, &upload(server, &format!("new/{number}"), 0, &[number as u8])),
                });
            }
            for _ in 0..10 {
                answers_at_once(server, &server.raw_request("GET", "/health"), 200);
                answers_at_once(server, &server.request("GET", "/version"), 200);
                actors(server);
                std::thread::sleep(Duration::from_millis(100));
            }
            let ready = server.raw_request("GET", "/ready").send();
            assert_eq!(ready.status, 503, "{}", ready.text());
        });
        member.pass();
        eventually("it is ready", || (server.raw_request("GET", "/ready").send().status == 200).then_some(()));
        server.request("GET", "/files/known").send().assert_status(200);
    }
    assert_eq!(before.left_since(&member), None);
}
