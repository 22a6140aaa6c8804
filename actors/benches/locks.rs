//! How fast one instance takes and gives back locks through its one session with a real PostgreSQL, and
//! what the actor adds to a bare round trip. Prints one line of JSON.
//!
//! The server is this program's own; see the module `postgres` of the testkit for where it is taken from.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a measurement that cannot be set up fails")]

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use actix::{Actor, Arbiter, Handler, Message, Supervisor};
use s3dedup_actors::model::Digest;
use s3dedup_actors::runtime::guard::Vital;
use s3dedup_actors::runtime::guardian::Guardian;
use s3dedup_actors::runtime::way::Way;
use s3dedup_actors::store::postgres::Connector;
use s3dedup_actors::testkit::locks::{
    DistributedLockActor, DistributedLockPlan, DistributedLockSettings, DistributedLockStats, DistributedLocks, Times,
};
use s3dedup_actors::testkit::postgres::PostgresServer;
use tokio::sync::oneshot;

const HOLDERS: usize = 256;
const RUN: Duration = Duration::from_secs(5);
const SINGLES: u64 = 5_000;
/// Locks that are held meanwhile, at most.
const HELD_MAX: usize = 50;

fn main() {
    // Tests of all targets run this as well, without the argument.
    if !std::env::args().any(|argument| argument == "--bench") {
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
        "single_acquire_p50_us": single.acquire,
        "bare_try_lock_p50_us": single.bare,
        "echo_p50_us": single.echo,
        "single_to_bare": (single.acquire / single.bare * 100.0).round() / 100.0,
    });
    println!("{report}");
}

async fn start(server: &PostgresServer, stats: &DistributedLockStats) -> DistributedLocks {
    let settings = DistributedLockSettings::new(server.access(), "bench");
    let plan = DistributedLockPlan::new(&settings, stats.clone()).unwrap();
    let guardian = Guardian::new(Box::new(|why| panic!("{why}"))).start();
    let vital = Vital::new("locks-db", guardian.recipient());
    let watched = vital.clone();
    let actor = Supervisor::start_in_arbiter(&Arbiter::new().handle(), |_| DistributedLockActor::new(vital, plan));
    DistributedLocks::new(Way::new(actor, watched), "bench")
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
                let lease = locks
                    .acquire(digest, Times { begun: began, deadline: began + Duration::from_secs(60) })
                    .await
                    .unwrap();
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

/// Medians in microseconds.
struct Singles {
    acquire: f64,
    bare: f64,
    echo: f64,
}

/// Answers at once: what it takes to ask another thread.
struct Echo;

impl Actor for Echo {
    type Context = actix::Context<Self>;
}

#[derive(Message)]
#[rtype(result = "()")]
struct Call(oneshot::Sender<()>);

impl Handler<Call> for Echo {
    type Result = ();

    fn handle(&mut self, call: Call, _: &mut Self::Context) {
        let _ = call.0.send(());
    }
}

/// One after the other and in turn: an acquisition through the actor, a bare statement, an answer of
/// another thread.
fn singles(system: &actix::SystemRunner, locks: &DistributedLocks, server: &PostgresServer) -> Singles {
    let echo = system.block_on(async { Echo::start_in_arbiter(&Arbiter::new().handle(), |_| Echo) });
    let bare = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let session = bare.block_on(Connector::new(&server.access()).unwrap().connect()).unwrap();
    let client = session.client();
    let lock = bare.block_on(client.prepare("SELECT pg_try_advisory_lock($1)")).unwrap();
    let (mut through_actor, mut directly, mut echoes) = (Vec::new(), Vec::new(), Vec::new());
    let mut leases = Vec::new();
    for number in 0..SINGLES {
        let digest = digest(u64::MAX - number);
        let began = Instant::now();
        leases.push(
            system
                .block_on(locks.acquire(digest, Times { begun: began, deadline: began + Duration::from_secs(60) }))
                .unwrap(),
        );
        through_actor.push(began.elapsed());

        let number = i64::try_from(number).unwrap();
        let began = Instant::now();
        let row = bare.block_on(client.query_one(&lock, &[&number])).unwrap();
        directly.push(began.elapsed());
        assert!(row.get::<_, bool>(0));

        let began = Instant::now();
        let (reply, answer) = oneshot::channel();
        echo.do_send(Call(reply));
        system.block_on(answer).unwrap();
        echoes.push(began.elapsed());

        if leases.len() == HELD_MAX {
            leases.clear();
            bare.block_on(client.batch_execute("SELECT pg_advisory_unlock_all()")).unwrap();
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    let median = |mut took: Vec<Duration>| {
        took.sort_unstable();
        quantile(&took, 0.5)
    };
    Singles { acquire: median(through_actor), bare: median(directly), echo: median(echoes) }
}

/// Of sorted durations, in microseconds.
fn quantile(sorted: &[Duration], which: f64) -> f64 {
    let at = ((sorted.len() - 1) as f64 * which) as usize;
    (sorted[at].as_secs_f64() * 1e7).round() / 10.0
}
