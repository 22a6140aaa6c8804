//! Several servers on one bucket, under faults, with two hundred clients.
//!
//! Everything that is acknowledged is recorded, and everything that is seen must be possible after it
//! (`load/rule.rs`). What goes wrong and when follows from a seed, which is printed: set `S3DEDUP_TEST_SEED` to it for
//! the same faults in the same order. `S3DEDUP_TEST_SECONDS` makes every run so long.

mod books;
mod check;
mod faults;
mod fixture;
mod member;
mod shared;
mod stopped;

use std::time::Duration;

use faults::{Fault, Faults};
use fixture::{Bucket, Cluster};

use crate::load::{EndsWith, Load};
use crate::support::s3::{Garage, S3InProcess};

/// Between two operations of a client, on average: the processors are shared with other tests.
const PAUSE: Duration = Duration::from_millis(500);

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect(name))
}

/// Clients work while things go wrong; then everything must be right.
fn survive(mut cluster: Cluster, faults: &[Fault], time: Duration) {
    let seed = setting("S3DEDUP_TEST_SEED").unwrap_or_else(rand::random);
    let time = setting("S3DEDUP_TEST_SECONDS").map_or(time, Duration::from_secs);
    println!("S3DEDUP_TEST_SEED={seed}");
    let peers = cluster.members.iter().map(|member| member.peer.clone()).collect();
    let load = Load::new(peers, seed, PAUSE);
    std::thread::scope(|scope| {
        let _ends = EndsWith(&load);
        load.start(scope);
        Faults::new(seed, faults).run(&mut cluster, time);
    });
    check::verify(&mut cluster, &load);
}

fn in_process() -> Bucket {
    Bucket::InProcess(S3InProcess::start())
}

#[test]
fn one_server_with_sqlite_survives_kills() {
    let cluster = Cluster::start_alone(in_process());
    survive(cluster, &[Fault::Kill], Duration::from_secs(6));
}

#[test]
fn two_servers_survive_kills_and_ends_of_lock_sessions() {
    let faults = [Fault::Kill, Fault::EndOneLockSession, Fault::EndAllLockSessions, Fault::EndAllLockSessions];
    survive(Cluster::start(2, in_process()), &faults, Duration::from_secs(20));
}

#[test]
fn three_servers_survive_a_database_that_restarts_and_a_bad_network() {
    let faults = [
        Fault::StopServer,
        Fault::Cut,
        Fault::StopPostgres,
        Fault::Kill,
        Fault::Stall,
        Fault::EndAllLockSessions,
        Fault::CrashPostgres,
        Fault::Delay,
    ];
    survive(Cluster::start(3, in_process()), &faults, Duration::from_secs(25));
}

#[test]
fn two_servers_on_garage_survive_everything() {
    let faults = [Fault::Kill, Fault::EndAllLockSessions, Fault::Cut, Fault::StopPostgres];
    survive(Cluster::start(2, Bucket::Garage(Garage::start())), &faults, Duration::from_secs(8));
}
