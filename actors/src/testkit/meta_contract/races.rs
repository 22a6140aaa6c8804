//! Many at once.

use std::sync::Arc;

use super::names::list;
use super::{FAR_FUTURE, Store, commit, condemn, condemn_intent, delete, get, ok, plan, put, totals};
use crate::model::Recipe;
use crate::store::meta::{DeleteOutcome, PutPlan};

/// Overwrites in opposite directions: what one transaction lets go of, the other one takes.
pub(super) async fn names_that_swap_contents_do_not_block_each_other(store: Store) {
    put(&store, "one", 0, 1).await;
    put(&store, "two", 0, 2).await;
    let writers = (0..6u8).map(|writer| {
        let store = Arc::clone(&store);
        async move {
            for round in 1..60u8 {
                let name = if writer % 2 == 0 { "one" } else { "two" };
                let byte = (round + writer) % 2 + 1;
                let planned = ok(store.plan_put(plan(name, i64::from(round), byte, false)).await);
                assert!(matches!(planned, PutPlan::Committed | PutPlan::Stale { .. }), "{planned:?}");
            }
        }
    });
    futures_util::future::join_all(writers).await;
    let (Some((_, one)), Some((_, two))) = (get(&store, "one").await, get(&store, "two").await) else {
        panic!("a name is gone");
    };
    assert_eq!(totals(&store).await, [2, 2, u64::from(one + two) * 10, 3]);
}

/// Uploads, deletions and cleaning of one content at once, without any lock outside.
pub(super) async fn a_generation_is_never_given_twice(store: Store) {
    let given = std::sync::Mutex::new(std::collections::BTreeSet::new());
    let workers = (0..6u8).map(|worker| {
        let (store, given) = (Arc::clone(&store), &given);
        async move {
            let name = format!("n{worker}");
            for round in 0..40 {
                if let PutPlan::Upload { intent, key } = ok(store.plan_put(plan(&name, round, 1, true)).await) {
                    let is_new = given.lock().is_ok_and(|mut given| given.insert(key.generation));
                    assert!(is_new, "generation {} was given twice", key.generation);
                    if worker % 3 == 2 {
                        if let Some(key) = condemn_intent(&store, intent, FAR_FUTURE).await {
                            ok(store.forget(vec![key]).await);
                        }
                    } else {
                        ok(store.commit_put(commit(&name, round, 1, (intent, key))).await);
                    }
                }
                delete(&store, &name, round).await;
                if let Some(Recipe::Whole(blob)) = condemn(&store, 1, FAR_FUTURE).await {
                    ok(store.forget(vec![blob.key]).await);
                }
            }
        }
    });
    futures_util::future::join_all(workers).await;
    assert_eq!(totals(&store).await[0], 0);
    assert!(given.into_inner().is_ok_and(|given| given.len() > 1));
}

pub(super) async fn concurrent_writers_keep_the_counts(store: Store) {
    let writers = (0..8u8).map(|writer| {
        let store = Arc::clone(&store);
        async move {
            for round in 0..40u8 {
                let name = format!("n{}", (round.wrapping_mul(7) ^ writer) % 10);
                let byte = (round.wrapping_mul(writer + 1) % 6) + 1;
                let stamp = i64::from(round);
                match ok(store.plan_put(plan(&name, stamp, byte, true)).await) {
                    PutPlan::Upload { intent, key } => {
                        ok(store.commit_put(commit(&name, stamp, byte, (intent, key))).await);
                    }
                    PutPlan::Committed | PutPlan::Stale { .. } => {}
                    PutPlan::Missing | PutPlan::Deleted => panic!("an intent was asked for"),
                }
                if round % 5 == 0 {
                    delete(&store, &name, stamp).await;
                }
            }
        }
    });
    futures_util::future::join_all(writers).await;
    let mut logical = 0;
    let (names, _) = list(&store, "", i64::MAX, 100).await;
    for name in &names {
        let (_, byte) = get(&store, name).await.unwrap_or_else(|| panic!("{name} is gone"));
        logical += u64::from(byte) * 10;
    }
    let counted = totals(&store).await;
    assert_eq!((counted[0], counted[2]), (names.len() as u64, logical));
    // Without names every content must have exactly no references left.
    for name in &names {
        assert_eq!(delete(&store, name, i64::MAX).await, DeleteOutcome::Deleted);
    }
    let mut condemned = 0;
    for byte in 1..=6 {
        condemned += u64::from(condemn(&store, byte, FAR_FUTURE).await.is_some());
    }
    assert_eq!(condemned, counted[1]);
    assert_eq!(totals(&store).await, [0, 0, 0, 0]);
}
