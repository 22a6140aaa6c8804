//! How fast one instance takes and gives back locks through its one session with a real PostgreSQL, and
//! what the actor adds to a bare round trip. Prints one line of JSON.
//!
//! The server is this program's own; see the module `postgres` of the testkit for where it is taken from.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a measurement that cannot be set up fails")]

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use actix::{Actor, Arbiter, Supervisor};
use s3dedup_actors::model::Digest;
use s3dedup_actors::runtime::guard::Vital;
use s3dedup_actors::runtime::guardian::Guardian;
use s3dedup_actors::store::postgres::Connector;
use s3dedup_actors::testkit::locks::{
    DistributedLockActor, DistributedLockPlan, DistributedLockSettings, DistributedLockStats, DistributedLocks,
};
use s3dedup_actors::testkit::postgres::PostgresServer;

const HOLDERS: usize = 256;
const RUN: Duration = Duration::from_secs(5);
const SINGLES: u64 = 3_000;

fn main() {
    // Cargo asks every benchmark for its tests as well.
    if std::env::args().any(|argument| argument == "--test" || argument == "--list") {
        return;
    }
    let server = PostgresServer::start();
    let system = actix::System::new();
    let stats = DistributedLockStats::default();
    let locks = system.block_on(start(&server, &stats));
    // Warms up connection, statement and caches.
    system.block_on(pairs(&locks, Duration::from_secs(1)));
    let before = stats.batches();
    let many = system.block_on(pairs(&locks, RUN));
    let batches = stats.batches() - before;
    let single = singles(&system, &locks, &server);
    let count = many.len();
    let report = serde_json::json!({
        "holders": HOLDERS,
        "pairs_per_second": (count as f64 / RUN.as_secs_f64()).round(),
        "pairs_per_statement": (count as f64 / batches as f64 * 10.0).round() / 10.0,
        "acquire_p50_us": quantile(&many, 0.5),
        "acquire_p99_us": quantile(&many, 0.99),
        "single_acquire_p50_us": single.0,
        "bare_try_lock_p50_us": single.1,
        "single_to_bare": (single.0 / single.1 * 100.0).round() / 100.0,
    });
    println!("{report}");
}

async fn start(server: &PostgresServer, stats: &DistributedLockStats) -> DistributedLocks {
    let settings = DistributedLockSettings::new(server.access(), "bench");
    let plan = DistributedLockPlan::new(&settings, stats.clone()).unwrap();
    let guardian = Guardian::new(Box::new(|why| panic!("{why}"))).start();
    let vital = Vital::new("locks-db", guardian.recipient());
    let actor = Supervisor::start_in_arbiter(&Arbiter::new().handle(), |_| DistributedLockActor::new(vital, plan));
    DistributedLocks::new(actor, "bench")
}

fn digest(number: u64) -> Digest {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    Digest::from_bytes(bytes)
}

/// As many pairs as possible; returns how long each acquisition took, in order.
async fn pairs(locks: &DistributedLocks, run: Duration) -> Vec<Duration> {
    let (next, took) = (Rc::new(Cell::new(0)), Rc::new(RefCell::new(Vec::with_capacity(1 << 20))));
    let end = Instant::now() + run;
    let holders = (0..HOLDERS).map(|_| {
        let (locks, next, took) = (locks.clone(), Rc::clone(&next), Rc::clone(&took));
        actix_rt::spawn(async move {
            while Instant::now() < end {
                next.set(next.get() + 1);
                let digest = digest(next.get());
                let began = Instant::now();
                let lease = locks.acquire(&digest, began + Duration::from_secs(60)).await.unwrap();
                took.borrow_mut().push(began.elapsed());
                drop(lease);
            }
        })
    });
    for holder in holders.collect::<Vec<_>>() {
        holder.await.unwrap();
    }
    let mut took = took.take();
    took.sort_unstable();
    took
}

/// One after the other, an acquisition through the actor and a bare statement in turn: medians.
fn singles(system: &actix::SystemRunner, locks: &DistributedLocks, server: &PostgresServer) -> (f64, f64) {
    let bare = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let session = bare.block_on(Connector::new(&server.access()).unwrap().connect()).unwrap();
    let client = session.client();
    let (lock, unlock) = bare.block_on(async {
        let lock = client.prepare("SELECT pg_try_advisory_lock($1)").await.unwrap();
        (lock, client.prepare("SELECT pg_advisory_unlock($1)").await.unwrap())
    });
    let (mut through_actor, mut directly) = (Vec::new(), Vec::new());
    for number in 0..SINGLES {
        let digest = digest(u64::MAX - number);
        let began = Instant::now();
        let lease = system.block_on(locks.acquire(&digest, began + Duration::from_secs(60))).unwrap();
        through_actor.push(began.elapsed());
        drop(lease);
        std::thread::sleep(Duration::from_micros(500));

        let number = i64::try_from(number).unwrap();
        let began = Instant::now();
        let row = bare.block_on(client.query_one(&lock, &[&number])).unwrap();
        directly.push(began.elapsed());
        assert!(row.get::<_, bool>(0));
        bare.block_on(client.query_one(&unlock, &[&number])).unwrap();
        std::thread::sleep(Duration::from_micros(500));
    }
    through_actor.sort_unstable();
    directly.sort_unstable();
    (quantile(&through_actor, 0.5), quantile(&directly, 0.5))
}

/// Of sorted durations, in microseconds.
fn quantile(sorted: &[Duration], which: f64) -> f64 {
    let at = ((sorted.len() - 1) as f64 * which) as usize;
    (sorted[at].as_secs_f64() * 1e7).round() / 10.0
}
