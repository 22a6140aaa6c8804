//! Several servers on one bucket, under faults, with two hundred clients.
//!
//! Everything that is acknowledged is recorded, and everything that is seen must be possible after it
//! (`rule.rs`). What goes wrong and when follows from a seed, which is printed: set `S3DEDUP_TEST_SEED` to it for
//! the same faults in the same order.

mod answer;
mod books;
mod check;
mod client;
mod contents;
mod faults;
mod fixture;
mod history;
mod load;
mod member;
mod paths;
mod peer;
mod rule;
mod stamp;

use std::time::Duration;

use faults::{Fault, Faults};
use fixture::{Bucket, Cluster};
use load::{EndsWith, Load};

use crate::support::s3::S3InProcess;

/// Between two operations of a client, on average: the processors are shared with other tests.
const PAUSE: Duration = Duration::from_millis(500);

fn seed() -> u64 {
    let given = std::env::var("S3DEDUP_TEST_SEED").ok().map(|text| text.parse().expect("a number"));
    let seed = given.unwrap_or_else(rand::random);
    println!("S3DEDUP_TEST_SEED={seed}");
    seed
}

/// Clients work while things go wrong; then everything must be right.
fn survive(mut cluster: Cluster, faults: &[Fault], time: Duration) {
    let seed = seed();
    let peers = cluster.members.iter().map(|member| member.peer.clone()).collect();
    let load = Load::new(peers, seed, PAUSE);
    std::thread::scope(|scope| {
        let _ends = EndsWith(&load);
        load.start(scope);
        Faults::new(seed, faults).run(&mut cluster, time);
    });
    check::verify(&mut cluster, &load);
}

#[test]
fn one_server_with_sqlite_survives_kills() {
    let cluster = Cluster::start_alone(Bucket::InProcess(S3InProcess::start()));
    survive(cluster, &[Fault::Kill], Duration::from_secs(8));
}
