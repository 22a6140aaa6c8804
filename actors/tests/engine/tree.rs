//! Looking at the tree of actors, and doing them harm.

use std::time::{Duration, Instant};

use actix::{Actor, Arbiter, Supervisor};
use s3dedup_actors::model::Digest;
use s3dedup_actors::runtime::guard::Vital;
use s3dedup_actors::runtime::guardian::Guardian;
use s3dedup_actors::runtime::way::Way;
use s3dedup_actors::testkit::locks::{
    DistributedLockActor, DistributedLockPlan, DistributedLockSettings, DistributedLockStats, DistributedLocks,
    KeyLease, Times,
};
use s3dedup_actors::testkit::postgres::PostgresServer;
use s3dedup_actors::{ActorReport, ActorState};
use sha2::{Digest as _, Sha256};

use crate::support::TestEngine;

/// Nothing here takes this long unless it hangs.
pub const HANG: Duration = Duration::from_secs(60);

/// All supervised actors.
pub const ALL: [&str; 9] =
    ["cleaner", "cluster", "exporter", "locks", "locks-db", "metadata", "migrator", "mirror", "uploads"];

/// What may happen to an actor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Blow {
    /// A change of its state panics.
    Panic,
    /// It ends with an error.
    Error,
    /// Its thread is kept until that is seen.
    Stuck,
}

impl Blow {
    pub const ALL: [Self; 3] = [Self::Panic, Self::Error, Self::Stuck];

    /// What is told of it.
    pub fn fault(self) -> &'static str {
        match self {
            Self::Panic => "struck by a test",
            Self::Error => "failed by a test",
            Self::Stuck => "its thread does not answer",
        }
    }

    /// Does it to all actors of that name.
    pub async fn strike(self, test: &TestEngine, name: &str) {
        match self {
            Self::Panic => test.strike(name),
            Self::Error => test.fail(name),
            Self::Stuck => {
                let _held = test.hold(name);
                until("it is seen", || reports(test, name).iter().all(|it| it.state == ActorState::Stuck)).await;
            }
        }
    }
}

/// The actors of that name.
pub fn reports(test: &TestEngine, name: &str) -> Vec<ActorReport> {
    test.engine.actors().children.into_iter().filter(|child| child.name == name).collect()
}

/// How often each actor was rebuilt.
pub fn restarts(test: &TestEngine) -> Vec<(&'static str, u32)> {
    test.engine.actors().children.iter().map(|child| (child.name, child.restarts)).collect()
}

/// Waits until something is so.
pub async fn until(what: &str, is_so: impl Fn() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(HANG, wait).await.is_ok(), "never: {what}");
}

/// Waits until all actors are up, and those of that name have been rebuilt `restarts` times.
pub async fn until_well(test: &TestEngine, name: &str, restarts: u32) {
    let is_well = || test.engine.actors().is_well() && reports(test, name).iter().all(|it| it.restarts >= restarts);
    until(&format!("{name} is well"), is_well).await;
}

/// Another instance that shares the locks.
pub struct OtherInstance {
    locks: DistributedLocks,
    _arbiter: Arbiter,
}

pub fn other_instance(postgres: &PostgresServer) -> OtherInstance {
    let settings = DistributedLockSettings::new(postgres.access(), "bucket");
    let plan = DistributedLockPlan::new(&settings, DistributedLockStats::default()).expect("a plan");
    let guardian = Guardian::new(Box::new(|why| panic!("{why}"))).start();
    let vital = Vital::new("locks-db", guardian.recipient());
    let (arbiter, watched) = (Arbiter::new(), vital.clone());
    let actor = Supervisor::start_in_arbiter(&arbiter.handle(), move |_| DistributedLockActor::new(vital, plan));
    OtherInstance { locks: DistributedLocks::new(Way::new(actor, watched), "bucket"), _arbiter: arbiter }
}

impl OtherInstance {
    /// Takes the lock of a content.
    pub async fn acquire(&self, content: &[u8]) -> KeyLease {
        let now = Instant::now();
        let digest = Digest::from_bytes(Sha256::digest(content).into());
        self.locks.acquire(digest, Times { begun: now, deadline: now + HANG }).await.expect("a lock")
    }
}
