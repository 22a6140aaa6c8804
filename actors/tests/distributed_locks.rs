//! The locks that instances share, on a real PostgreSQL. Several actors, each with a thread and a session of
//! its own, are the instances. Every test ends with the check that the server holds no lock.
#![allow(missing_docs, reason = "a test")]
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot be set up fails")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use actix::{Actor, Arbiter, Supervisor};
use futures_util::future::join_all;
use s3dedup_actors::model::{Digest, Kind, Result};
use s3dedup_actors::runtime::guard::Vital;
use s3dedup_actors::runtime::guardian::Guardian;
use s3dedup_actors::runtime::way::Way;
use s3dedup_actors::testkit::locks::{
    DistributedLockActor, DistributedLockPlan, DistributedLockSettings, DistributedLockStats, DistributedLocks,
    KeyLease, LockDirectory, LockStats, Locks, Times, Turn,
};
use s3dedup_actors::testkit::postgres::PostgresServer;

/// Nothing here takes this long unless it hangs.
const HANG: Duration = Duration::from_secs(60);
const BUCKET: &str = "bucket";

struct Instance {
    arbiter: Arbiter,
    locks: DistributedLocks,
    stats: DistributedLockStats,
}

impl Instance {
    fn start(server: &PostgresServer) -> Self {
        Self::start_with(server, |_| ())
    }

    fn start_with(server: &PostgresServer, change: impl FnOnce(&mut DistributedLockSettings)) -> Self {
        let mut settings = DistributedLockSettings::new(server.access(), BUCKET);
        settings.postgres.application_name = "lock-session".into();
        change(&mut settings);
        let stats = DistributedLockStats::default();
        let plan = DistributedLockPlan::new(&settings, stats.clone()).unwrap();
        let guardian = Guardian::new(Box::new(|why| panic!("{why}"))).start();
        let vital = Vital::new("locks-db", guardian.recipient());
        let arbiter = Arbiter::new();
        let watched = vital.clone();
        let actor = Supervisor::start_in_arbiter(&arbiter.handle(), move |_| DistributedLockActor::new(vital, plan));
        Self { arbiter, locks: DistributedLocks::new(Way::new(actor, watched), BUCKET), stats }
    }

    async fn acquire(&self, number: u64) -> Result<KeyLease> {
        self.locks.acquire(digest(number), within(HANG)).await
    }

    async fn quiet(&self) {
        until("an instance is quiet", || (self.stats.held(), self.stats.waiting()) == (0, 0)).await;
    }
}

fn within(wait: Duration) -> Times {
    let begun = Instant::now();
    Times { begun, deadline: begun + wait }
}

fn digest(number: u64) -> Digest {
    let mut bytes = [9; 32];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    Digest::from_bytes(bytes)
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + HANG;
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn locked(server: &PostgresServer) -> usize {
    server.sql("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").parse().unwrap()
}

async fn nothing_left(server: &PostgresServer, instances: &[&Instance]) {
    for instance in instances {
        instance.quiet().await;
    }
    until("the server holds no lock", || locked(server) == 0).await;
}

#[actix_rt::test]
async fn never_two_holders() {
    const DIGESTS: u64 = 20;
    let server = PostgresServer::start();
    let instances: Vec<_> = (0..3).map(|_| Instance::start(&server)).collect();
    let holders: Arc<Vec<AtomicUsize>> = Arc::new((0..DIGESTS).map(|_| AtomicUsize::new(0)).collect());
    let rounds = (0..1_800_u64).map(|round| {
        let instance = &instances[(round % 3) as usize];
        let number = round / 3 % DIGESTS;
        let holder = &holders[number as usize];
        async move {
            let lease = instance.acquire(number).await.unwrap();
            assert_eq!(holder.fetch_add(1, Ordering::SeqCst), 0, "two holders");
            tokio::time::sleep(Duration::from_micros(round % 7 * 100)).await;
            assert!(!lease.is_lost());
            assert_eq!(holder.fetch_sub(1, Ordering::SeqCst), 1);
            drop(lease);
        }
    });
    tokio::time::timeout(HANG, join_all(rounds)).await.expect("all get their turn");
    nothing_left(&server, &instances.iter().collect::<Vec<_>>()).await;
    assert!(instances.iter().all(|instance| instance.stats.sessions() == 1));
}

#[actix_rt::test]
async fn an_instance_that_always_comes_back_keeps_nobody_out() {
    let server = PostgresServer::start();
    let (greedy, other) = (Instance::start(&server), Instance::start(&server));
    let is_done = AtomicBool::new(false);
    let rounds = AtomicUsize::new(0);
    let take = async {
        let mut between = Vec::new();
        for _ in 0..20 {
            let before = rounds.load(Ordering::SeqCst);
            drop(other.acquire(1).await.unwrap());
            between.push(rounds.load(Ordering::SeqCst) - before);
        }
        is_done.store(true, Ordering::SeqCst);
        between
    };
    let keep = async {
        while !is_done.load(Ordering::SeqCst) {
            let lease = greedy.acquire(1).await.unwrap();
            rounds.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(2)).await;
            drop(lease);
        }
    };
    let (between, ()) = tokio::time::timeout(HANG, async { tokio::join!(take, keep) }).await.expect("no hang");
    // Until the other one is first in line, that is for one pause, the greedy one may come again and again.
    assert!(between.iter().all(|rounds| *rounds < 100), "{between:?}");
    nothing_left(&server, &[&greedy, &other]).await;
}

#[actix_rt::test]
async fn never_more_keys_than_allowed() {
    let server = PostgresServer::start();
    let instance = Instance::start_with(&server, |settings| {
        settings.held_max = 128;
        settings.postgres.application_name = "bounded".into();
    });
    let other = Instance::start(&server);
    // Some keys are taken, so that places in line are held as well.
    let taken = join_all((0..50).map(|number| other.acquire(number))).await;
    let (server, is_done) = (Arc::new(server), Arc::new(AtomicBool::new(false)));
    let (watched, done) = (Arc::clone(&server), Arc::clone(&is_done));
    let watch = std::thread::spawn(move || {
        let mut most: usize = 0;
        while !done.load(Ordering::SeqCst) {
            let held = watched.sql(
                "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)
                 WHERE locktype = 'advisory' AND application_name = 'bounded'",
            );
            most = most.max(held.parse().unwrap());
        }
        most
    });

    let requests = (0..2_000).map(|number| {
        let instance = &instance;
        async move {
            let lease = instance.acquire(number).await.unwrap();
            tokio::time::sleep(Duration::from_millis(10)).await;
            drop(lease);
        }
    });
    let give_back = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        drop(taken);
    };
    let all = async { tokio::join!(join_all(requests), give_back) };
    tokio::time::timeout(HANG, all).await.expect("all are served");
    is_done.store(true, Ordering::SeqCst);
    let most = watch.join().unwrap();
    assert!((20..=128).contains(&most), "{most} keys");
    nothing_left(&server, &[&instance, &other]).await;
}

#[actix_rt::test]
async fn too_many_requests_are_refused() {
    let server = PostgresServer::start();
    let instance = Instance::start_with(&server, |settings| settings.held_max = 4);
    let first = instance.acquire(0).await.unwrap();
    let requests = (0..100).map(|_| instance.locks.acquire(digest(0), within(Duration::from_millis(300))));
    let refused = join_all(requests).await;
    let of = |kind| refused.iter().filter(|refused| refused.as_ref().is_err_and(|error| error.kind() == kind)).count();
    assert_eq!((of(Kind::Overloaded), of(Kind::Unavailable)), (100 - 64, 64));
    drop(first);
    nothing_left(&server, &[&instance]).await;
}

#[actix_rt::test]
async fn one_statement_for_many_requests() {
    let server = PostgresServer::start();
    let instance = Instance::start(&server);
    drop(instance.acquire(0).await.unwrap());
    instance.quiet().await;
    let before = instance.stats.batches();
    let leases = join_all((1..=400).map(|number| instance.acquire(number))).await;
    assert_eq!(leases.iter().flatten().count(), 400);
    assert_eq!(locked(&server), 400);
    drop(leases);
    nothing_left(&server, &[&instance]).await;
    let batches = instance.stats.batches() - before;
    assert!(batches < 80, "{batches} statements for 400 pairs");
}

#[actix_rt::test]
async fn a_session_that_is_ended_loses_its_leases_and_another_one_follows() {
    let server = PostgresServer::start();
    let (instance, other) = (Instance::start(&server), Instance::start(&server));
    for round in 1..=3 {
        let lease = instance.acquire(1).await.unwrap();
        let mut waiting = Box::pin(other.acquire(1));
        assert!(tokio::time::timeout(Duration::from_millis(50), &mut waiting).await.is_err());
        server.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'lock-session'");
        until("the holder is told", || lease.is_lost()).await;
        assert!(lease.is_lost());
        // The other's session ended as well: it goes on with its next one.
        let next = waiting.await.unwrap();
        assert!(!next.is_lost() && lease.is_lost());
        // A lease of old must not give back what is another's now.
        drop(lease);
        let more = instance.acquire(2).await.unwrap();
        assert_eq!(locked(&server), 2);
        drop((next, more));
        nothing_left(&server, &[&instance, &other]).await;
        assert_eq!(instance.stats.sessions(), round + 1);
    }
}

#[actix_rt::test]
async fn a_server_that_is_away_is_told_in_time_and_waited_for() {
    let mut server = PostgresServer::start();
    let instance = Instance::start(&server);
    let lease = instance.acquire(1).await.unwrap();
    server.stop();
    until("the holder is told", || lease.is_lost()).await;
    until("the loss is known", || !instance.stats.is_connected()).await;
    let began = Instant::now();
    let error = instance.acquire(2).await.unwrap_err();
    assert_eq!((error.kind(), error.context()), (Kind::Unavailable, "the lock session is down"));
    assert!(began.elapsed() < Duration::from_secs(30));
    let waits = instance.locks.acquire(digest(3), within(HANG));
    let (_, waited) = tokio::join!(async { server.start_again() }, waits);
    // It may have been told just before.
    drop(waited);
    until("a new session", || instance.stats.is_connected()).await;
    drop((instance.acquire(1).await.unwrap(), lease));
    nothing_left(&server, &[&instance]).await;
}

#[actix_rt::test]
async fn deadlines_are_kept_and_places_in_line_given_up() {
    let server = PostgresServer::start();
    let (one, other) = (Instance::start(&server), Instance::start(&server));
    let lease = one.acquire(1).await.unwrap();
    let waits = other.locks.acquire(digest(1), within(Duration::from_millis(200)));
    let error = tokio::time::timeout(HANG, waits).await.expect("no hang").unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    other.quiet().await;
    until("only the key is locked", || locked(&server) == 1).await;
    drop(lease);
    nothing_left(&server, &[&one, &other]).await;
}

#[actix_rt::test]
async fn requests_that_are_dropped_leave_nothing() {
    let server = PostgresServer::start();
    let (one, other) = (Instance::start(&server), Instance::start(&server));
    let held = join_all((0..20).map(|number| one.acquire(number))).await;
    for wait in (0..2_000_u64).step_by(50) {
        let requests = (0..40).map(|number| other.acquire(number));
        let dropped = tokio::time::timeout(Duration::from_micros(wait), join_all(requests)).await;
        assert!(dropped.is_err(), "half of them can't be had");
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
    other.quiet().await;
    until("the others' keys are left", || locked(&server) == 20).await;
    drop(held);
    nothing_left(&server, &[&one, &other]).await;
}

#[actix_rt::test]
async fn an_instance_that_stands_still_loses_its_locks() {
    let server = PostgresServer::start();
    let stalled = Instance::start_with(&server, |settings| settings.ttl = Duration::from_secs(1));
    let other = Instance::start(&server);
    let lease = stalled.acquire(1).await.unwrap();
    // A live one keeps them for longer than that.
    let wait = other.locks.acquire(digest(1), within(Duration::from_millis(2_500)));
    wait.await.expect_err("the holder lives");
    assert!(!lease.is_lost());
    let (go_on, stall) = std::sync::mpsc::channel::<()>();
    stalled.arbiter.spawn_fn(move || {
        let _ = stall.recv();
    });
    let next = tokio::time::timeout(HANG, other.acquire(1)).await.expect("the server frees it").unwrap();
    // The thread that would be told stands still: the clock tells.
    assert!(lease.is_lost());
    go_on.send(()).unwrap();
    until("a new session", || stalled.stats.sessions() == 2).await;
    drop(next);
    drop((stalled.acquire(1).await.unwrap(), lease));
    nothing_left(&server, &[&stalled, &other]).await;
}

#[actix_rt::test]
async fn the_keys_of_both_layers_go_together() {
    let server = PostgresServer::start();
    let instances: Vec<_> = (0..2).map(|_| Instance::start(&server)).collect();
    let locks: Vec<_> = instances
        .iter()
        .map(|instance| {
            let guardian = Guardian::new(Box::new(|why| panic!("{why}"))).start();
            let stats = LockStats::default();
            let mine = stats.clone();
            let vital = Vital::new("locks", guardian.recipient());
            let watched = vital.clone();
            let directory = Supervisor::start(move |_| LockDirectory::new(vital, mine));
            (Locks::new(Way::new(directory, watched), Some(instance.locks.clone())), stats)
        })
        .collect();
    let deadline = || within(HANG);
    let Turn::Granted(lease) = locks[0].0.acquire(digest(1), deadline()).await.unwrap() else { panic!("not granted") };
    assert!(!lease.is_lost());
    // Of ten in the other instance one asks the database; they share its failure, and its success.
    let soon = || within(Duration::from_millis(300));
    let waiting = join_all((0..10).map(|_| locks[1].0.acquire(digest(1), soon())));
    let watch = async {
        tokio::time::sleep(Duration::from_millis(150)).await;
        instances[1].stats.waiting()
    };
    let (failed, asking) = tokio::join!(waiting, watch);
    assert_eq!(asking, 1);
    for failed in failed {
        match failed {
            Ok(Turn::Failed { kind, .. }) => assert_eq!(kind, Kind::Unavailable),
            other => assert_eq!(other.unwrap_err().kind(), Kind::Unavailable),
        }
    }
    drop(tokio::time::timeout(Duration::from_millis(30), locks[1].0.acquire(digest(1), deadline())).await);
    drop(lease);
    let Turn::Granted(lease) = locks[1].0.acquire(digest(1), deadline()).await.unwrap() else { panic!("not granted") };
    drop(lease);
    for (_, stats) in &locks {
        until("no local lock is left", || stats.live() == 0).await;
    }
    nothing_left(&server, &instances.iter().collect::<Vec<_>>()).await;
}
