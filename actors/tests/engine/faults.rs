//! Goal: a fault fails the requests it touches, with the right kind, and nothing else.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::TryStreamExt;
use futures_util::future::join_all;
use s3dedup_actors::model::Kind;
use s3dedup_actors::testkit::faulty::Fault;
use s3dedup_actors::testkit::noise;

use crate::support::{TestEngine, key};

#[actix_rt::test]
async fn a_store_that_is_down_fails_all_who_wait_and_recovers() {
    let test = TestEngine::start();
    test.blob_faults.set(Fault::Down);
    let puts = (0..16).map(|number| {
        let name = format!("a/{number}");
        let test = &test;
        async move { test.put(&name, 1, b"the same new content").await }
    });
    for outcome in join_all(puts).await {
        assert_eq!(outcome.unwrap_err().kind(), Kind::Unavailable);
    }
    assert!(test.list("a").await.is_empty(), "a failed put left a name");
    test.blob_faults.set(Fault::None);
    let recovered = async {
        while test.put("a/0", 1, b"the same new content").await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), recovered).await.expect("no recovery");
    assert_eq!(test.get("a/0").await.unwrap(), Some((1, b"the same new content".to_vec())));
    test.stop().await;
}

#[actix_rt::test]
async fn a_missing_object_is_damage_and_not_absence() {
    let test = TestEngine::start();
    test.put("a", 1, b"hello").await.unwrap();
    test.blob_faults.set(Fault::Lost);
    assert_eq!(test.get("a").await.unwrap_err().kind(), Kind::Corrupt);
    assert_eq!(test.get("b").await.unwrap(), None);
    test.blob_faults.set(Fault::None);
    assert_eq!(test.get("a").await.unwrap(), Some((1, b"hello".to_vec())));
    test.stop().await;
}

#[actix_rt::test]
async fn a_small_object_that_stalls_is_refused_in_time_and_opens_the_breaker() {
    let test = TestEngine::start_with(|settings| {
        settings.cache_bytes = 1 << 20;
        // What is stored from memory would be in the cache.
        settings.spool.memory_bytes_max = 0;
    });
    for number in 0..8 {
        test.put(&format!("a/{number}"), 1, &[number; 1000]).await.unwrap();
    }
    test.blob_faults.set(Fault::Stall);
    let gets = (0..8).map(|number| {
        let test = &test;
        async move { test.get(&format!("a/{number}")).await }
    });
    let all = tokio::time::timeout(Duration::from_secs(20), join_all(gets)).await.expect("no answer in time");
    for outcome in all {
        assert_eq!(outcome.unwrap_err().kind(), Kind::Unavailable);
    }
    assert!(test.engine.readiness().await.contents.is_some(), "the breaker has not learned of it");
    test.blob_faults.set(Fault::None);
    let recovered = async {
        while test.get("a/0").await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), recovered).await.expect("no recovery");
    test.stop().await;
}

#[actix_rt::test]
async fn readers_of_a_store_that_stalls_leave_places_to_others() {
    let test = TestEngine::start_with(|settings| settings.request_slots_max = 8);
    test.put("a", 1, b"hello").await.unwrap();
    test.blob_faults.set(Fault::Stall);
    // They wait for the first bytes.
    let readers = futures_util::future::join_all((0..7).map(|_| async {
        let _permit = test.engine.admit().expect("a place");
        test.engine.open(&key("a")).await.map(drop).unwrap_err().kind()
    }));
    let others = async {
        let _permit = test.engine.admit().expect("a place is left");
        let name = key("a");
        // It is a reader itself until all of them have their places.
        let refused = loop {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let opened = tokio::time::timeout(Duration::from_millis(100), test.engine.open(&name)).await;
            if let Ok(Err(error)) = opened {
                break error.kind();
            }
        };
        assert_eq!(refused, Kind::Overloaded);
        // What needs no store goes on.
        test.put("b", 1, b"hello").await.unwrap();
    };
    let (kinds, ()) = tokio::join!(readers, others);
    assert_eq!(kinds, [Kind::Unavailable; 7]);
    test.stop().await;
}

#[actix_rt::test]
async fn a_panic_in_an_upload_fails_that_upload_only() {
    let test = TestEngine::start();
    test.blob_faults.set(Fault::Panic);
    for number in 0..10 {
        let outcome = test.put(&format!("a/{number}"), 1, format!("content {number}").as_bytes()).await;
        assert_eq!(outcome.unwrap_err().kind(), Kind::Panicked);
    }
    test.blob_faults.set(Fault::None);
    test.put("b", 1, b"content 3").await.unwrap();
    assert_eq!(test.get("b").await.unwrap(), Some((1, b"content 3".to_vec())));
    assert_eq!(test.fatal.load(Ordering::SeqCst), 0);
    test.stop().await;
}

#[actix_rt::test]
async fn a_metadata_outage_is_never_absence() {
    let test = TestEngine::start();
    test.put("a", 1, b"hello").await.unwrap();
    for (fault, kind) in [(Fault::Down, Kind::Unavailable), (Fault::Hang, Kind::Unavailable)] {
        test.meta_faults.set(fault);
        assert_eq!(test.put("b", 1, b"other").await.unwrap_err().kind(), kind);
    }
    test.meta_faults.set(Fault::Down);
    assert_eq!(test.get("a").await.unwrap_err().kind(), Kind::Unavailable);
    assert_eq!(test.engine.stat(&key("never")).await.unwrap_err().kind(), Kind::Unavailable);
    test.meta_faults.set(Fault::None);
    assert_eq!(test.get("a").await.unwrap(), Some((1, b"hello".to_vec())));
    assert_eq!(test.get("b").await.unwrap(), None);
    test.stop().await;
}

#[actix_rt::test]
async fn panics_in_a_metadata_actors_state_restart_it_until_the_budget_is_spent() {
    let test = TestEngine::start();
    test.put("a", 1, b"hello").await.unwrap();
    for round in 0..3 {
        test.meta_faults.set(Fault::Panic);
        assert_eq!(test.get("a").await.unwrap_err().kind(), Kind::Panicked, "round {round}");
        test.meta_faults.set(Fault::None);
        assert_eq!(test.get("a").await.unwrap(), Some((1, b"hello".to_vec())), "round {round}");
    }
    assert_eq!(test.fatal.load(Ordering::SeqCst), 0);
    test.meta_faults.set(Fault::Panic);
    for _ in 0..20 {
        assert!(test.get("a").await.is_err());
    }
    assert_eq!(test.fatal.load(Ordering::SeqCst), 1, "the guardian gives up once");
    test.meta_faults.set(Fault::None);
    test.stop().await;
}

#[actix_rt::test]
async fn a_client_that_goes_away_leaves_nothing_behind() {
    let test = TestEngine::start();
    test.blob_faults.set(Fault::Hang);
    for number in 0..3 {
        let permit = test.engine.admit().unwrap();
        let body = format!("content {number}").into_bytes();
        let impatient = tokio::time::timeout(Duration::from_millis(50), test.put("a", 1, &body));
        assert!(impatient.await.is_err());
        drop(permit);
    }
    assert_eq!(test.engine.gauges().requests, 0);
    test.blob_faults.set(Fault::None);
    test.put("b", 1, b"still works").await.unwrap();
    let all_left = async {
        while test.engine.gauges().locks > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), all_left).await.expect("a lock outlived its caller");
}

#[actix_rt::test]
async fn one_wrong_answer_amid_a_large_read_says_nothing_of_the_object() {
    let test = TestEngine::start();
    let content = noise(1, 300_000);
    test.put("a", 1, &content).await.unwrap();
    test.blob_faults.set(Fault::WrongOnce);
    assert_eq!(test.get("a").await.unwrap_err().kind(), Kind::Corrupt, "wrong bytes never pass");
    assert_eq!((test.is_noted("a").await, test.engine.damage_seen()), (false, 0));
    let puts = test.blob_faults.puts();
    test.put("b", 1, &content).await.unwrap();
    assert_eq!(test.blob_faults.puts(), puts, "it is known and needs no upload");
    assert_eq!(test.get("a").await.unwrap(), Some((1, content)));
    test.stop().await;
}

#[actix_rt::test]
async fn an_object_that_is_wrong_when_it_is_read_again_is_noted_before_its_client_is_told() {
    let test = TestEngine::start();
    let content = noise(1, 300_000);
    test.put("a", 1, &content).await.unwrap();
    test.blob_faults.set(Fault::Wrong);
    assert_eq!(test.get("a").await.unwrap_err().kind(), Kind::Corrupt);
    assert!(test.is_noted("a").await);
    test.blob_faults.set(Fault::None);
    let puts = test.blob_faults.puts();
    test.put("a", 2, &content).await.unwrap();
    assert_eq!(test.blob_faults.puts(), puts + 1, "it is stored anew");
    assert_eq!(test.get("a").await.unwrap(), Some((2, content)));
    assert!(!test.is_noted("a").await);
    test.stop().await;
}

#[actix_rt::test]
async fn many_wrong_reads_of_an_object_have_it_read_again_once() {
    let test = TestEngine::start();
    let content = noise(1, 300_000);
    test.put("a", 1, &content).await.unwrap();
    // They have the beginning, and the rest is wrong; reading again begins and never ends.
    test.blob_faults.set(Fault::Wrong);
    let name = key("a");
    let downloads = join_all((0..8).map(|_| test.engine.open(&name))).await;
    let opens = test.blob_faults.opens();
    test.blob_faults.set(Fault::Stall);
    let reads = downloads.into_iter().map(|download| download.unwrap().unwrap().stored().try_collect::<Vec<_>>());
    let reads = tokio::time::timeout(Duration::from_secs(2), join_all(reads)).await;
    assert!(reads.is_err(), "they wait until it is known what is wrong");
    assert_eq!(test.blob_faults.opens(), opens + 1);
    test.blob_faults.set(Fault::None);
    test.stop().await;
}

#[actix_rt::test]
async fn an_upload_that_a_store_never_takes_in_ends_and_leaves_the_uploader_to_others() {
    let test = TestEngine::start_with(|settings| {
        settings.uploaders = 1;
        settings.upload_time_min = Duration::from_millis(300);
    });
    test.blob_faults.set(Fault::Hang);
    let put = tokio::time::timeout(Duration::from_secs(20), test.put("a", 1, b"hello")).await;
    assert_eq!(put.expect("no answer").unwrap_err().kind(), Kind::Unavailable);
    assert!(test.list("").await.is_empty());
    test.blob_faults.set(Fault::None);
    let stored = async {
        while test.put("a", 1, b"hello").await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), stored).await.expect("the uploader is lost");
    assert_eq!(test.get("a").await.unwrap(), Some((1, b"hello".to_vec())));
    test.stop().await;
}
