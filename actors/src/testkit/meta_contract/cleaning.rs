//! Steps of cleaning, and what it looks at.

use super::{
    FAR_FUTURE, Store, begin, commit, condemn, condemn_intent, delete, digest, get, ok, plan, put, stored, totals,
};
use crate::model::{BlobKey, KeyLayout, Recipe, Stamp};
use crate::store::meta::{DeleteOutcome, PutCommit, PutPlan, UnusedPage};

pub(super) async fn condemned_content_comes_back_under_a_new_generation(store: Store) {
    put(&store, "a", 5, 1).await;
    let old = BlobKey { digest: digest(1), generation: 0, layout: KeyLayout::new(2) };
    assert_eq!(delete(&store, "a", 5).await, DeleteOutcome::Deleted);
    assert_eq!(condemn(&store, 1, FAR_FUTURE).await, Some(Recipe::Whole(stored(old, 1))));
    assert_eq!(condemn(&store, 1, FAR_FUTURE).await, None);
    // Between condemning and forgetting, and ever after, the old object's name is not used again.
    let during = begin(&store, "a", 5, 1).await;
    assert!(during.1.generation > 0);
    assert_eq!(ok(store.commit_put(commit("a", 5, 1, during)).await), PutCommit::Committed);
    ok(store.forget(vec![old]).await);
    ok(store.forget(vec![old]).await);
    assert_eq!(get(&store, "a").await, Some((5, 1)));
    assert_eq!(delete(&store, "a", 5).await, DeleteOutcome::Deleted);
    assert!(condemn(&store, 1, FAR_FUTURE).await.is_some());
    ok(store.forget(vec![during.1]).await);
    assert!(begin(&store, "a", 5, 1).await.1.generation > during.1.generation);
    assert_eq!(totals(&store).await, [0, 0, 0, 0]);
}

pub(super) async fn used_or_young_content_is_not_condemned(store: Store) {
    put(&store, "a", 5, 1).await;
    assert_eq!(condemn(&store, 1, FAR_FUTURE).await, None, "it has a name");
    assert_eq!(delete(&store, "a", 5).await, DeleteOutcome::Deleted);
    let before = Stamp::from_seconds(Stamp::now().seconds() - 1000);
    assert_eq!(condemn(&store, 1, before).await, None, "it lost its name just now");
    assert_eq!(ok(store.plan_put(plan("b", 1, 1, false)).await), PutPlan::Committed);
    assert_eq!(condemn(&store, 1, FAR_FUTURE).await, None, "it has a name again");
    assert_eq!(condemn(&store, 9, FAR_FUTURE).await, None, "it is unknown");
}

pub(super) async fn a_condemned_intent_cannot_be_committed(store: Store) {
    let upload = begin(&store, "a", 5, 1).await;
    let before = Stamp::from_seconds(Stamp::now().seconds() - 1000);
    assert_eq!(condemn_intent(&store, upload.0, before).await, None, "it is young");
    assert_eq!(condemn_intent(&store, upload.0, FAR_FUTURE).await, Some(upload.1));
    assert_eq!(ok(store.commit_put(commit("a", 5, 1, upload)).await), PutCommit::IntentLost);
    assert_eq!(get(&store, "a").await, None);
    let again = begin(&store, "a", 5, 1).await;
    assert!(again.1.generation > upload.1.generation);
    ok(store.forget(vec![upload.1]).await);
    assert_eq!(ok(store.commit_put(commit("a", 5, 1, again)).await), PutCommit::Committed);
}

/// Everything on the list of unused contents, in pages of `rows`.
async fn unused(store: &Store, since: Stamp, rows: usize) -> Vec<u8> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = ok(store.list_unused(UnusedPage { unused_since: since, after, rows, settle: true }).await);
        assert!(page.len() <= rows);
        found.extend(page.iter().map(|unused| {
            let byte = unused.digest.as_bytes()[0];
            assert_eq!(unused.stored_size, u64::from(byte));
            byte
        }));
        after = page.last().map(|last| (last.unused_since, last.digest));
        if page.len() < rows {
            found.sort_unstable();
            return found;
        }
    }
}

pub(super) async fn unused_contents_are_listed_and_condemned_in_batches(store: Store) {
    for byte in 1..=250 {
        put(&store, &format!("n{byte}"), 1, byte).await;
    }
    assert!(unused(&store, FAR_FUTURE, 1000).await.is_empty());
    for byte in 1..=240 {
        assert_eq!(delete(&store, &format!("n{byte}"), 1).await, DeleteOutcome::Deleted);
    }
    for byte in 1..=10 {
        put(&store, &format!("again{byte}"), 1, byte).await;
    }
    // One that lost a name and still has another one is in use.
    put(&store, "second", 1, 250).await;
    assert_eq!(delete(&store, "second", 1).await, DeleteOutcome::Deleted);
    let before = Stamp::from_seconds(Stamp::now().seconds() - 1000);
    assert!(unused(&store, before, 1000).await.is_empty());
    let expected: Vec<u8> = (11..=240).collect();
    for rows in [1000, 100, 7] {
        assert_eq!(unused(&store, FAR_FUTURE, rows).await, expected);
    }
    // In no order, with some that are in use, unknown or named twice.
    let wanted = (1..=255).rev().chain([11]).map(digest).collect();
    let mut condemned = ok(store.condemn(wanted, FAR_FUTURE).await);
    condemned.sort_unstable_by_key(|blob| blob.key.digest);
    let blob = |byte| stored(BlobKey { digest: digest(byte), generation: 0, layout: KeyLayout::new(2) }, byte);
    assert_eq!(condemned, expected.iter().map(|byte| blob(*byte)).collect::<Vec<_>>());
    assert!(unused(&store, FAR_FUTURE, 1000).await.is_empty());
    assert_eq!(totals(&store).await[..2], [20, 20]);
    assert_eq!(get(&store, "n250").await, Some((1, 250)));
}

pub(super) async fn intents_and_condemned_objects_are_listed_until_they_are_gone(store: Store) {
    let mut intents = Vec::new();
    for byte in 1..=120 {
        intents.push(begin(&store, "a", 1, byte).await);
    }
    let before = Stamp::from_seconds(Stamp::now().seconds() - 1000);
    assert!(ok(store.list_intents(before, None, 10).await).is_empty());
    let (mut listed, mut after) = (Vec::new(), None);
    loop {
        let page = ok(store.list_intents(FAR_FUTURE, after, 50).await);
        listed.extend(page.iter().map(|intent| (intent.id, intent.key)));
        after = page.last().map(|intent| intent.id);
        if page.len() < 50 {
            break;
        }
    }
    assert_eq!(listed, intents);
    assert!(ok(store.condemn_intents(vec![intents[0].0], before).await).is_empty());
    let (kept, given_up) = intents.split_at(20);
    let given_up_ids = given_up.iter().map(|intent| intent.0).collect();
    let mut condemned = ok(store.condemn_intents(given_up_ids, FAR_FUTURE).await);
    condemned.sort_unstable_by_key(|key| key.digest);
    let mut keys: Vec<_> = given_up.iter().map(|intent| intent.1).collect();
    keys.sort_unstable_by_key(|key| key.digest);
    assert_eq!(condemned, keys);
    assert_eq!(ok(store.list_intents(FAR_FUTURE, None, 1000).await).len(), kept.len());
    let (mut listed, mut after) = (Vec::new(), None);
    loop {
        let page = ok(store.list_condemned(after, 30).await);
        listed.extend_from_slice(&page);
        after = page.last().copied();
        if page.len() < 30 {
            break;
        }
    }
    assert_eq!(listed, keys);
    ok(store.forget(listed.clone()).await);
    ok(store.forget(listed).await);
    assert!(ok(store.list_condemned(None, 10).await).is_empty());
    assert!(begin(&store, "a", 1, 200).await.1.generation > 0, "the floor is raised");
}

pub(super) async fn stored_contents_are_listed_and_objects_are_known(store: Store) {
    for byte in [3, 1, 2] {
        put(&store, &format!("n{byte}"), 1, byte).await;
    }
    put(&store, "again", 1, 2).await;
    let intent = begin(&store, "a", 1, 4).await.1;
    let key = |byte, generation| BlobKey { digest: digest(byte), generation, layout: KeyLayout::new(2) };
    let page = ok(store.survey(Vec::new(), 2).await);
    let next = page.next.unwrap_or_else(|| panic!("there is no second page"));
    let rest = ok(store.survey(next, 2).await);
    assert_eq!(rest.next, None);
    let all: Vec<_> = page.contents.iter().chain(&rest.contents).collect();
    assert_eq!(all.len(), 3);
    for (content, (byte, references)) in all.into_iter().zip([(1, 1), (2, 2), (3, 1)]) {
        assert_eq!((content.digest, content.logical_size), (digest(byte), u64::from(byte) * 10));
        assert_eq!(content.recipe, Recipe::Whole(stored(key(byte, 0), byte)));
        assert!(content.references.is_none_or(|counted| counted == references));
    }
    assert_eq!(delete(&store, "n3", 1).await, DeleteOutcome::Deleted);
    assert!(condemn(&store, 3, FAR_FUTURE).await.is_some());
    let flat = BlobKey { layout: KeyLayout::new(0), ..key(1, 0) };
    let asked = vec![key(9, 0), key(1, 0), flat, intent, key(1, 1), key(3, 0), key(2, 0)];
    assert_eq!(ok(store.are_known(asked).await), [false, true, false, true, false, true, true]);
    assert!(ok(store.are_known(Vec::new()).await).is_empty());
}

pub(super) async fn only_unknown_objects_are_condemned_as_such(store: Store) {
    put(&store, "used", 1, 1).await;
    put(&store, "given up", 1, 2).await;
    assert_eq!(delete(&store, "given up", 1).await, DeleteOutcome::Deleted);
    assert!(condemn(&store, 2, FAR_FUTURE).await.is_some());
    let intent = begin(&store, "a", 1, 3).await.1;
    let key = |byte, generation| BlobKey { digest: digest(byte), generation, layout: KeyLayout::new(2) };
    let flat = BlobKey { layout: KeyLayout::new(0), ..key(1, 0) };
    let asked = vec![key(9, 0), key(1, 0), key(8, u64::MAX >> 2), flat, intent, key(1, 5), key(2, 0), key(8, 3)];
    let mut condemned = ok(store.condemn_unknown(asked.clone()).await);
    condemned.sort_unstable_by_key(|key| key.digest);
    assert_eq!(condemned, [key(1, 5), key(8, 3), key(9, 0)]);
    assert!(ok(store.condemn_unknown(asked).await).is_empty(), "they are known now");
    assert_eq!(get(&store, "used").await, Some((1, 1)));
    // A new upload gets another name as long as the object may be there, and afterwards.
    assert_eq!(begin(&store, "b", 1, 9).await.1, key(9, 1));
    ok(store.forget(condemned).await);
    assert!(begin(&store, "b", 1, 8).await.1.generation > 5);
}

pub(super) async fn only_one_leads_at_a_time(store: Store) {
    let minute = std::time::Duration::from_secs(60);
    assert!(ok(store.lead("clean", "a", minute).await));
    assert!(ok(store.lead("clean", "a", minute).await));
    assert!(ok(store.lead("other", "b", minute).await));
    // A store that one process alone has needs no leader.
    if store.kind() != "sqlite" {
        assert!(!ok(store.lead("clean", "b", minute).await));
    }
    assert!(ok(store.lead("clean", "a", std::time::Duration::ZERO).await));
    assert!(ok(store.lead("clean", "b", minute).await));
}

/// Here the clocks are of one machine.
pub(super) async fn the_time_is_that_of_now(store: Store) {
    let away = ok(store.now().await).seconds() - Stamp::now().seconds();
    assert!(away.abs() <= 60, "{away} s");
}
