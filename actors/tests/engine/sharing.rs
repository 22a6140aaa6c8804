//! Goal: every content is stored once, whoever brings it and however many bring it at once.

use futures_util::future::join_all;
use s3dedup_actors::PutOutcome;

use crate::support::TestEngine;

#[actix_rt::test]
async fn concurrent_uploads_of_one_new_content_make_one_object() {
    let test = TestEngine::start();
    for round in 0..20u8 {
        let body = vec![round; 50_000];
        let names: Vec<_> = (0..16).map(|number| format!("{round}/{number}")).collect();
        let outcomes = join_all(names.iter().map(|name| test.put(name, 1, &body))).await;
        assert!(outcomes.into_iter().all(|outcome| outcome.unwrap() == PutOutcome::Stored));
        assert_eq!(test.blob_faults.puts(), usize::from(round) + 1);
        for name in &names {
            assert_eq!(test.get(name).await.unwrap(), Some((1, body.clone())));
        }
    }
    let totals = test.engine.totals().await.unwrap();
    assert_eq!((totals.entries, totals.contents), (20 * 16, 20));
    test.stop().await;
}

#[actix_rt::test]
async fn a_known_content_never_touches_the_content_store() {
    let test = TestEngine::start();
    test.put("a", 1, b"hello").await.unwrap();
    test.blob_faults.set(s3dedup_actors::testkit::faulty::Fault::Down);
    for number in 0..10 {
        let outcome = test.put(&format!("b/{number}"), 1, b"hello").await.unwrap();
        assert_eq!(outcome, PutOutcome::Stored);
    }
    assert_eq!(test.blob_faults.puts(), 1);
    test.stop().await;
}

#[actix_rt::test]
async fn many_writers_of_one_name_leave_the_newest_version() {
    let test = TestEngine::start();
    let bodies: Vec<_> = (0..40i64).map(|stamp| (stamp, vec![stamp as u8; 5000])).collect();
    let puts = bodies.iter().rev().chain(&bodies).map(|(stamp, body)| test.put("a", *stamp, body));
    for outcome in join_all(puts).await {
        outcome.unwrap();
    }
    assert_eq!(test.get("a").await.unwrap(), Some((39, vec![39; 5000])));
    assert_eq!(test.engine.totals().await.unwrap().entries, 1);
    test.stop().await;
}
