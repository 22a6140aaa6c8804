//! Goal: whatever happens to one kind of actor, it is seen and repaired, and the others go on.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use s3dedup_actors::ActorState;
use s3dedup_actors::model::{Kind, Result};
use s3dedup_actors::testkit::faulty::Fault;
use s3dedup_actors::testkit::postgres::PostgresServer;

use crate::support::TestEngine;
use crate::tree::{ALL, Blow, HANG, other_instance, reports, restarts, until, until_well};

/// The time after which actors are stuck: long enough for a busy machine, short enough to be waited for.
const STUCK_AFTER: Duration = Duration::from_millis(1500);

async fn start() -> TestEngine {
    start_on(&Arc::new(PostgresServer::start())).await
}

async fn start_on(postgres: &Arc<PostgresServer>) -> TestEngine {
    TestEngine::start_with_all(Arc::clone(postgres), |settings| settings.stuck_after = STUCK_AFTER).await
}

/// An engine for each actor, to be used at the same time.
async fn start_one_for_each() -> Vec<(&'static str, TestEngine)> {
    let (postgres, mut engines) = (Arc::new(PostgresServer::start()), Vec::new());
    for name in ALL {
        engines.push((name, start_on(&postgres).await));
    }
    engines
}

#[actix_rt::test]
async fn every_actor_of_the_tree_is_struck_here() {
    let test = start().await;
    let mut names: Vec<_> = test.engine.actors().children.iter().map(|child| child.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names, ALL, "a new actor wants a place in these tests");
    test.stop().await;
}

/// Does it to each actor in turn: it is seen and repaired, the others notice nothing.
async fn each_is_repaired_after(blow: Blow) {
    let test = start().await;
    test.put("known", 1, b"known").await.unwrap();
    for name in ALL {
        let before = restarts(&test);
        let count = reports(&test, name).len();
        blow.strike(&test, name).await;
        until_well(&test, name, 1).await;
        for child in reports(&test, name) {
            let panics = u64::from(blow == Blow::Panic);
            assert_eq!((child.restarts, child.panics, child.state), (1, panics, ActorState::Up), "{blow:?} {child:?}");
            let fault = child.last_fault.unwrap_or_default();
            assert!(fault.contains(blow.fault()), "{name} {blow:?}: {fault}");
        }
        let changed = restarts(&test).iter().zip(&before).filter(|(now, before)| now != before).count();
        assert_eq!(changed, count, "{name} {blow:?}: {before:?} {:?}", restarts(&test));
        assert_eq!(test.get("known").await.unwrap(), Some((1, b"known".to_vec())), "after {name}");
        test.put("new", 1, format!("new after {name}").as_bytes()).await.unwrap();
    }
    // Those without requests go on, too. Each new content but the last lost its name to the next.
    let (cleaner, exporter) = (test.engine.cleaner_stats(), test.engine.exporter_stats());
    let garbage = ALL.len() as u64 - 1;
    until("all is cleaned", || cleaner.deleted() >= garbage).await;
    let exports = exporter.exports();
    until("another export", || exporter.exports() > exports).await;
    test.stop().await;
}

#[actix_rt::test]
async fn each_actor_is_repaired_after_a_panic() {
    each_is_repaired_after(Blow::Panic).await;
}

#[actix_rt::test]
async fn each_actor_is_repaired_after_an_error() {
    each_is_repaired_after(Blow::Error).await;
}

#[actix_rt::test]
async fn each_actor_is_repaired_after_it_was_stuck() {
    each_is_repaired_after(Blow::Stuck).await;
}

#[actix_rt::test]
async fn while_an_actor_is_stuck_what_does_not_need_it_goes_on() {
    let test = start().await;
    test.put("known", 1, b"known").await.unwrap();
    // More than five in a minute would be too many: those that requests meet.
    for name in ["locks", "locks-db", "uploads", "cleaner"] {
        let held = test.hold(name);
        until("it is seen", || reports(&test, name)[0].state == ActorState::Stuck).await;
        assert!(!test.engine.actors().is_well());
        assert!(test.engine.readiness().await.actors.is_some_and(|told| told.contains(name)));
        for child in test.engine.actors().children.iter().filter(|child| child.name != name) {
            assert_eq!(child.state, ActorState::Up, "{name} is stuck, not {child:?}");
        }
        assert_eq!(test.get("known").await.unwrap(), Some((1, b"known".to_vec())));
        test.put("again", 1, b"known").await.unwrap();
        let new = test.put("new", 1, format!("new while {name}").as_bytes()).await;
        assert_eq!(new.is_ok(), name == "cleaner", "{name}: {new:?}");
        drop(held);
        until_well(&test, name, 1).await;
        test.put("new", 1, format!("new while {name}").as_bytes()).await.unwrap();
    }
    test.stop().await;
}

#[actix_rt::test]
async fn while_one_of_several_metadata_actors_is_stuck_the_others_do_its_work() {
    let test = TestEngine::start();
    test.put("known", 1, b"known").await.unwrap();
    let mut held = test.hold("metadata");
    let first = held.remove(0);
    drop(held);
    // One request finds out, at most; the others need not.
    let mut found_out = 0;
    let mut note = |answer: Result<()>| {
        if let Err(error) = answer {
            assert_eq!(error.kind(), Kind::Unavailable, "{error}");
            found_out += 1;
        }
    };
    for number in 0..20 {
        note(test.get("known").await.map(|known| assert_eq!(known, Some((1, b"known".to_vec())))));
        note(test.put("new", number, format!("{number}").as_bytes()).await.map(drop));
    }
    assert!(found_out <= 1, "{found_out}");
    drop(first);
    test.stop().await;
}

/// Waits for the answer of a request that was inside when it happened.
async fn told(answer: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::time::timeout(HANG, answer).await.expect("an answer")
}

#[actix_rt::test]
async fn uploads_that_wait_for_a_struck_pool_are_told_at_once_and_may_come_again() {
    for blow in Blow::ALL {
        let test = TestEngine::start_with(|settings| settings.stuck_after = STUCK_AFTER);
        test.blob_faults.set(Fault::Hang);
        let bodies: Vec<_> = (0..5).map(|number| format!("content {number}").into_bytes()).collect();
        let load = |name, count| reports(&test, "uploads")[0].load.contains(&(name, count));
        let hanging = join_all(bodies[..4].iter().map(|body| test.put("hangs", 1, body)));
        let waiting = async {
            until("four are under way", || load("busy", 4)).await;
            let waiting = told(async { test.put("waits", 1, &bodies[4]).await.map(drop) });
            let struck = async {
                until("one waits", || load("waiting", 1)).await;
                blow.strike(&test, "uploads").await;
            };
            tokio::join!(waiting, struck).0
        };
        let mut hanging = std::pin::pin!(hanging);
        let waiting = match blow {
            // What an uploader has begun goes on, whatever happens to its pool; what waits for one is told.
            Blow::Panic | Blow::Error => tokio::select! {
                ended = &mut hanging => panic!("{ended:?}"),
                waiting = waiting => waiting,
            },
            // Uploaders share the thread of the pool.
            Blow::Stuck => {
                let (begun, waiting) = tokio::join!(hanging, waiting);
                for ended in begun {
                    assert_eq!(ended.unwrap_err().kind(), Kind::Unavailable);
                }
                waiting
            }
        };
        // One that waits for an uploader for too long is told as well, which is as good.
        let kind = waiting.unwrap_err().kind();
        assert!(kind == Kind::Unavailable || (blow == Blow::Stuck && kind == Kind::Overloaded), "{blow:?}: {kind:?}");
        test.blob_faults.set(Fault::None);
        until_well(&test, "uploads", 1).await;
        test.put("waits", 1, &bodies[4]).await.unwrap();
        until("all is done", || load("busy", 0)).await;
        // Not stopped: the uploads that hang keep their bodies.
    }
}

#[actix_rt::test]
async fn uploads_that_wait_for_the_lock_of_their_content_outlive_its_directory_and_are_told_when_it_is_stuck() {
    for blow in Blow::ALL {
        let test = TestEngine::start_with(|settings| settings.stuck_after = STUCK_AFTER);
        test.blob_faults.set(Fault::Hang);
        let mut holder = Box::pin(test.put("holder", 1, b"content"));
        tokio::select! {
            ended = &mut holder => panic!("{ended:?}"),
            () = until("the holder uploads", || test.blob_faults.puts() == 1) => {}
        }
        let mut waits = Box::pin(told(async { test.put("waits", 1, b"content").await.map(drop) }));
        tokio::select! {
            ended = &mut waits => panic!("{ended:?}"),
            // So that it has asked for the lock.
            () = tokio::time::sleep(Duration::from_millis(100)) => {}
        }
        if blow == Blow::Stuck {
            let (ended, ()) = tokio::join!(waits, blow.strike(&test, "locks"));
            assert_eq!(ended.unwrap_err().kind(), Kind::Unavailable);
            until_well(&test, "locks", 1).await;
            drop(holder);
            test.blob_faults.set(Fault::None);
        } else {
            blow.strike(&test, "locks").await;
            until_well(&test, "locks", 1).await;
            // Its lock is given to the next, whoever found it for them.
            drop(holder);
            test.blob_faults.set(Fault::None);
            waits.await.unwrap();
        }
        test.put("waits", 1, b"content").await.unwrap();
    }
}

#[actix_rt::test]
async fn uploads_that_wait_for_a_lock_among_instances_are_told() {
    let postgres = Arc::new(PostgresServer::start());
    let (test, other) = (start_on(&postgres).await, other_instance(&postgres));
    for blow in Blow::ALL {
        let body = format!("content {blow:?}").into_bytes();
        let key = other.acquire(&body).await;
        let put = told(async { test.put("a", 1, &body).await.map(drop) });
        let struck = async {
            until("it waits for the other instance", || test.engine.gauges().keys_waiting == 1).await;
            blow.strike(&test, "locks-db").await;
        };
        let (put, ()) = tokio::join!(put, struck);
        assert_eq!(put.unwrap_err().kind(), Kind::Unavailable, "{blow:?}");
        drop(key);
        until_well(&test, "locks-db", 1).await;
        test.put("a", 1, &body).await.unwrap();
    }
    test.stop().await;
}

#[actix_rt::test]
async fn questions_to_metadata_actors_that_are_struck_are_answered_or_told() {
    for blow in Blow::ALL {
        let test = TestEngine::start_with(|settings| settings.stuck_after = STUCK_AFTER);
        test.put("known", 1, b"known").await.unwrap();
        // It waits in the store, beside the actor.
        test.meta_faults.set(Fault::Hang);
        let put = told(async { test.put("a", 1, b"new").await.map(drop) });
        let struck = async {
            until("it is inside", || reports(&test, "metadata").iter().any(|child| child.load[0].1 > 0)).await;
            blow.strike(&test, "metadata").await;
        };
        let (put, ()) = tokio::join!(put, struck);
        assert_eq!(put.unwrap_err().kind(), Kind::Unavailable, "{blow:?}");
        test.meta_faults.set(Fault::None);
        until_well(&test, "metadata", 1).await;
        // It waits in the mailbox.
        let held = test.hold("metadata");
        let got = told(async { test.get("known").await.map(drop) });
        let struck = async {
            until("it is inside", || reports(&test, "metadata").iter().any(|child| child.load[0].1 > 0)).await;
            if blow == Blow::Stuck {
                until("it is seen", || reports(&test, "metadata").iter().all(|it| it.state == ActorState::Stuck)).await;
            } else {
                test.strike("metadata");
            }
            drop(held);
        };
        let (got, ()) = tokio::join!(got, struck);
        assert!(got.is_ok() || got.is_err_and(|error| error.kind() == Kind::Unavailable), "{blow:?}");
        until_well(&test, "metadata", 2).await;
        assert_eq!(test.get("known").await.unwrap(), Some((1, b"known".to_vec())));
        test.stop().await;
    }
}

#[actix_rt::test]
async fn past_the_budget_of_restarts_the_engine_gives_up_whichever_actor_it_is() {
    let engines = start_one_for_each().await.into_iter().map(|(name, test)| async move {
        let begun = Instant::now();
        for round in 1..=6 {
            // The sixth within a minute; metadata actors are two, each of which counts.
            if round % 2 == 0 {
                test.strike(name)
            } else {
                test.fail(name)
            }
            until_well(&test, name, round).await;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "too slow a machine to tell");
        until(name, || test.fatal.load(Ordering::SeqCst) == 1).await;
        let why = test.why.lock().unwrap().clone();
        assert!(why.contains(&format!("the last of actor {name}")), "{name}: {why}");
        test.stop().await;
    });
    join_all(engines).await;
}

#[actix_rt::test]
async fn an_actor_that_stays_stuck_is_the_end_whichever_it_is() {
    let engines = start_one_for_each().await.into_iter().map(|(name, test)| async move {
        let held = test.hold(name);
        until(name, || test.fatal.load(Ordering::SeqCst) == 1).await;
        let why = test.why.lock().unwrap().clone();
        assert!(why.contains(&format!("actor {name} is stuck")), "{name}: {why}");
        drop(held);
        test.stop().await;
    });
    join_all(engines).await;
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
