//! Both sides are killed at random, again and again, until all is copied.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use s3dedup_actors::testkit::filetracker::OldFiletracker;
use s3dedup_actors::testkit::postgres::{DATABASE, PostgresServer};

use super::old::{differences, ends, put};
use crate::support::s3::S3InProcess;
use crate::support::server::Builder;
use crate::support::{Noise, TestServer};

const FILES: u64 = 400;
/// Kills of either side before it may end.
const KILLS: usize = 8;

fn fill(old: &OldFiletracker) {
    for number in 0..FILES {
        let seed = if number % 5 < 2 { number % 7 } else { number };
        let len = if number % 50 == 0 { 3_000_000 } else { 4096 };
        put(old, &format!("d{}/f {number}", number % 9), 1_600_000_000 + number as i64, &Noise::bytes(seed, len));
    }
}

#[test]
fn a_migration_outlives_kills_of_either_side() {
    outlives_kills(TestServer::builder());
}

#[test]
fn a_migration_into_postgresql_and_a_bucket_outlives_kills_of_either_side() {
    let (postgres, s3) = (PostgresServer::start(), S3InProcess::start());
    outlives_kills(TestServer::builder().s3(&s3.access).postgres(&postgres, DATABASE));
}

fn outlives_kills(builder: Builder) {
    let seed: u64 = rand::rng().random();
    eprintln!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut old = OldFiletracker::start();
    fill(&old);
    let url = old.url();
    let arguments = ["migrate", "--filetracker-url", &url, "--max-concurrency", "4"];
    let server = builder.prepare();
    let log = server.temp_dir().join("log");
    let start = || {
        let said = fs::File::options().create(true).append(true).open(&log).unwrap();
        server.command(&arguments).stderr(said).stdout(Stdio::null()).spawn().unwrap()
    };
    let mut child = start();
    let mut ended = None;
    for _ in 0..KILLS {
        std::thread::sleep(Duration::from_millis(random.random_range(50..1200)));
        if random.random_bool(0.4) {
            old.kill();
            std::thread::sleep(Duration::from_millis(random.random_range(0..800)));
            old.start_again();
        } else {
            let _ = child.kill();
            ended = child.wait().unwrap().code();
            child = start();
        }
    }
    eprintln!("the last one that was killed ended with {ended:?}");
    let code = child.wait().unwrap().code();
    assert_eq!(code, Some(0), "{}", fs::read_to_string(&log).unwrap());
    fs::remove_file(log).unwrap();
    assert!(differences(&server, &["--filetracker-url", &url]).is_empty());
    ends(&server, 0, &["verify", "--deep"]);
}
