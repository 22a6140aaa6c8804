//! Goal: whatever happens to one kind of actor, it is seen and repaired, and the others go on.

use std::sync::atomic::Ordering;
use std::time::Duration;

use s3dedup_actors::model::Kind;
use s3dedup_actors::testkit::faulty::Fault;
use s3dedup_actors::{ActorReport, ActorState};

use crate::support::TestEngine;

/// The actors of that name.
fn reports(test: &TestEngine, name: &str) -> Vec<ActorReport> {
    test.engine.actors().children.into_iter().filter(|child| child.name == name).collect()
}

/// Waits until all actors are up, and that one has been rebuilt `restarts` times.
async fn until_well(test: &TestEngine, name: &str, restarts: u32) {
    let well = async {
        while !test.engine.actors().is_well() || reports(test, name).iter().any(|child| child.restarts < restarts) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let is_well = tokio::time::timeout(Duration::from_secs(20), well).await.is_ok();
    assert!(is_well, "{name}: {:?}", test.engine.actors());
}

#[actix_rt::test]
async fn a_panic_in_each_actor_is_shown_and_repaired() {
    let test = TestEngine::start_with_all().await;
    test.put("known", 1, b"known").await.unwrap();
    for name in ["locks", "locks-db", "metadata", "uploads", "cluster", "cleaner"] {
        assert!(!reports(&test, name).is_empty(), "{name} is not in the tree");
        test.strike(name);
        until_well(&test, name, 1).await;
        for child in reports(&test, name) {
            assert_eq!((child.restarts, child.panics, child.state), (1, 1, ActorState::Up), "{child:?}");
            assert_eq!(child.last_fault.as_deref(), Some("struck by a test"));
        }
        assert_eq!(test.get("known").await.unwrap(), Some((1, b"known".to_vec())), "after {name}");
        test.put("new", 1, format!("new after {name}").as_bytes()).await.unwrap();
    }
    // The cleaner goes on, too: each content but the last lost its name to the next.
    let stats = test.engine.cleaner_stats();
    let cleaned = async {
        while stats.deleted() < 5 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(20), cleaned).await.is_ok(), "{stats:?}");
    test.stop().await;
}

#[actix_rt::test]
async fn those_who_wait_for_a_struck_actor_are_told_at_once_and_may_come_again() {
    let test = TestEngine::start();
    test.blob_faults.set(Fault::Hang);
    let bodies: Vec<_> = (0..5).map(|number| format!("content {number}").into_bytes()).collect();
    let until = async |load| {
        while !reports(&test, "uploads")[0].load.contains(&load) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let hanging = futures_util::future::join_all(bodies[..4].iter().map(|body| test.put("hangs", 1, body)));
    let waiting = async {
        until(("busy", 4)).await;
        let (waiting, ()) = tokio::join!(test.put("waits", 1, &bodies[4]), async {
            until(("waiting", 1)).await;
            test.strike("uploads");
        });
        waiting
    };
    // What an uploader has begun goes on, whatever happens to its pool; what waits for one is told.
    let waiting = tokio::select! {
        ended = hanging => panic!("{ended:?}"),
        waiting = waiting => waiting,
    };
    assert_eq!(waiting.unwrap_err().kind(), Kind::Unavailable);
    test.blob_faults.set(Fault::None);
    until_well(&test, "uploads", 1).await;
    test.put("waits", 1, &bodies[4]).await.unwrap();
    until(("busy", 0)).await;
    // Not stopped: the uploads that hang keep their bodies.
}

#[actix_rt::test]
async fn past_the_budget_of_restarts_the_engine_gives_up_whichever_actor_it_is() {
    for name in ["locks", "locks-db", "metadata", "uploads", "cluster", "cleaner"] {
        let needs_all = ["locks-db", "cluster", "cleaner"].contains(&name);
        let test = if needs_all { TestEngine::start_with_all().await } else { TestEngine::start() };
        for round in 1..=6 {
            test.strike(name);
            until_well(&test, name, round).await;
        }
        let given_up = async {
            while test.fatal.load(Ordering::SeqCst) == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(20), given_up).await.is_ok(), "{name}");
        test.stop().await;
    }
}

#[actix_rt::test]
async fn a_stuck_actor_is_reported_and_forgiven_and_the_others_go_on() {
    let test = TestEngine::start_with(|settings| settings.stuck_after = Duration::from_millis(500));
    test.put("known", 1, b"known").await.unwrap();
    for name in ["locks", "uploads"] {
        test.block(name, Duration::from_millis(850));
        let seen = async {
            while reports(&test, name)[0].state != ActorState::Stuck {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(20), seen).await.is_ok(), "{name}");
        assert!(!test.engine.actors().is_well());
        assert_eq!(test.get("known").await.unwrap(), Some((1, b"known".to_vec())));
        assert_eq!(reports(&test, "metadata")[0].state, ActorState::Up);
        until_well(&test, name, 0).await;
        test.put("new", 1, format!("new after {name}").as_bytes()).await.unwrap();
    }
    assert_eq!(test.fatal.load(Ordering::SeqCst), 0, "it went on in time");
    test.block("locks", Duration::from_secs(3));
    let given_up = async {
        while test.fatal.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_millis(2800), given_up).await.is_ok(), "not noticed");
    test.stop().await;
}

#[actix_rt::test]
async fn waiting_for_a_slow_store_is_not_being_stuck() {
    let test = TestEngine::start_with(|settings| settings.stuck_after = Duration::from_millis(200));
    test.blob_faults.set(Fault::Hang);
    let waiting = tokio::time::timeout(Duration::from_millis(1500), test.put("a", 1, b"hello"));
    assert!(waiting.await.is_err());
    assert!(test.engine.actors().is_well(), "{:?}", test.engine.actors());
    assert_eq!(test.fatal.load(Ordering::SeqCst), 0);
    test.blob_faults.set(Fault::None);
    tokio::time::sleep(Duration::from_millis(50)).await;
    test.put("a", 1, b"hello").await.unwrap();
}
