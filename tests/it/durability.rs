//! `kill -9` at any moment: what was acknowledged is there afterwards, and nothing else is half there.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::support::s3::S3InProcess;
use crate::support::{Noise, TestServer, gunzip, upload};

const ROUNDS: u64 = 4;
const WRITERS: u64 = 8;

/// The content of an upload: some small, some large, two of five shared with others.
fn content(number: u64) -> Vec<u8> {
    let len = if number.is_multiple_of(10) { 300_000 } else { 3000 };
    let seed = if number % 5 < 2 { number % 5 } else { number };
    Noise::bytes(seed, len + (seed as usize % 100))
}

fn kill_while_writing(mut server: TestServer) {
    let numbers = AtomicU64::new(0);
    let acknowledged = Mutex::new(HashMap::new());
    for round in 0..ROUNDS {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..WRITERS {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        let number = numbers.fetch_add(1, Ordering::Relaxed);
                        let path = format!("d{}/f{number}", number % 3);
                        match upload(&server, &path, 0, &content(number)).try_send() {
                            Ok(answer) if answer.status == 200 => {
                                acknowledged.lock().unwrap().insert(path, number);
                            }
                            Ok(answer) => panic!("{answer:?}"),
                            Err(_) => return,
                        }
                    }
                });
            }
            // Not a deadline, only a moment: at another one in every round.
            std::thread::sleep(Duration::from_millis(300 + 130 * round));
            server.signal(rustix::process::Signal::KILL);
            stop.store(true, Ordering::Relaxed);
        });
        server.wait();
        server.start_again();

        let acknowledged = acknowledged.lock().unwrap();
        let listed = server.list("");
        for path in acknowledged.keys() {
            assert!(listed.contains(path), "{path} was acknowledged and is lost");
        }
        // Every name, acknowledged or not, leads to its whole content.
        for path in listed {
            let number: u64 = path.rsplit('f').next().unwrap().parse().unwrap();
            let answer = server.request("GET", &format!("/files/{path}")).send();
            assert!(gunzip(&answer.assert_status(200).body) == content(number), "{path} holds other bytes");
        }
    }
    let acknowledged = acknowledged.into_inner().unwrap();
    assert!(acknowledged.len() as u64 > ROUNDS * 5, "only {} uploads were acknowledged", acknowledged.len());
    // Nothing is stuck: every name can be replaced and deleted.
    for path in server.list("") {
        upload(&server, &path, 1, b"replaced").send().assert_status(200);
        let target = format!("/files/{path}?last_modified={}", crate::support::date(1));
        server.request("DELETE", &target).send().assert_status(200);
    }
    assert!(server.list("").is_empty());
}

#[test]
fn kill_while_writing_to_a_folder() {
    kill_while_writing(TestServer::start());
}

#[test]
fn kill_while_writing_to_s3() {
    let s3 = S3InProcess::start();
    kill_while_writing(TestServer::builder().s3(&s3.access).start());
}
