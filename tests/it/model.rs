//! Random sequences of uploads and deletions against a small model of the protocol.
//!
//! The model is a map from path to version and content; the newest version wins. Every answer and,
//! at the end and after a restart, the whole store must be as the model says.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::support::content::shown;
use crate::support::{Connection, Noise, TestServer, date, gunzip, upload};

const SEQUENCES: u64 = 6;
const STEPS: usize = 120;
/// Few, so that sequences meet themselves; some are directories of others.
const PATHS: [&str; 5] = ["a", "a/b", "a/b/c", "d/e", "f"];
const CONTENTS: u64 = 4;
const VERSIONS: u32 = 12;

type Model = BTreeMap<&'static str, (u32, u64)>;

fn content(number: u64) -> Vec<u8> {
    Noise::bytes(number, [0, 10, 5000, 150_000][number as usize])
}

fn check(server: &TestServer, model: &Model) {
    assert_eq!(server.list(""), model.keys().copied().collect::<Vec<_>>());
    for path in PATHS {
        let answer = server.request("GET", &format!("/files/{path}")).send();
        let head = server.request("HEAD", &format!("/files/{path}")).send();
        assert_eq!(answer.status, head.status);
        match model.get(path) {
            None => assert_eq!(answer.status, 404),
            Some((version, number)) => {
                assert_eq!(answer.assert_status(200).header("last-modified"), Some(shown(*version).as_str()));
                assert!(gunzip(&answer.body) == content(*number), "{path} holds other bytes");
            }
        }
    }
}

#[test]
fn sequences_end_as_the_model_says() {
    for seed in 0..SEQUENCES {
        println!("sequence {seed}");
        let mut random = StdRng::seed_from_u64(seed);
        let mut server = TestServer::start();
        let mut connection = Connection::open(server.address()).unwrap();
        let mut model = Model::new();
        let mut contents_seen = std::collections::BTreeSet::new();
        for _ in 0..STEPS {
            let path = PATHS[random.random_range(0..PATHS.len())];
            let version = random.random_range(0..VERSIONS);
            let current = model.get(path).map(|(version, _)| *version);
            if random.random_ratio(2, 3) {
                let number = random.random_range(0..CONTENTS);
                let answer = upload(&server, path, version, &content(number)).send_on(&mut connection);
                let is_newer = current.is_none_or(|current| current <= version);
                if is_newer {
                    model.insert(path, (version, number));
                    contents_seen.insert(number);
                }
                let told = if is_newer { version } else { current.unwrap() };
                assert_eq!(answer.assert_status(200).header("last-modified"), Some(shown(told).as_str()));
            } else {
                let target = format!("/files/{path}?last_modified={}", date(version));
                let answer = server.request("DELETE", &target).send_on(&mut connection);
                assert_eq!(answer.status, if current.is_some() { 200 } else { 404 });
                if current.is_some_and(|current| current <= version) {
                    model.remove(path);
                }
            }
        }
        check(&server, &model);
        assert!(server.objects().len() <= contents_seen.len());
        drop(connection);
        server.stop();
        server.start_again();
        check(&server, &model);
    }
}
