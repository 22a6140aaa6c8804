//! What every [`MetaCare`](crate::store::meta::MetaCare) must do. Each check gets an empty store.

use super::meta_contract::{
    FAR_FUTURE, Store, begin, commit, condemn, delete, digest, get, key, ok, put, stored, totals,
};
use crate::model::{BlobKey, KeyLayout, Recipe, Stamp, StoredBlob};
use crate::store::meta::{
    Audit, AuditTotals, DeleteOutcome, NewIntent, Origin, PlanPut, PutCommit, PutPlan, SetBlob, SetOutcome, UnusedPage,
};

fn object(byte: u8, generation: u64) -> BlobKey {
    BlobKey { digest: digest(byte), generation, layout: KeyLayout::new(2) }
}

fn set(blob: StoredBlob, expected: Option<BlobKey>) -> SetBlob {
    let logical_size = u64::from(blob.key.digest.as_bytes()[0]) * 10;
    SetBlob { blob, logical_size, expected, intent: None, references: 0, reason: "a test".into() }
}

fn intent() -> NewIntent {
    NewIntent { instance: "test".into(), layout: KeyLayout::new(2) }
}

/// Nothing contradicts itself.
async fn assert_whole(store: &Store) {
    let Audit { findings, left_off, unreadable, is_cut, noted, counted } = ok(store.audit(100).await);
    assert_eq!((findings, left_off), (Vec::new(), 0));
    assert_eq!((unreadable, is_cut), (Vec::new(), false));
    assert_eq!(noted, counted);
    assert_eq!(noted, AuditTotals::from(ok(store.totals().await)));
}

pub(super) async fn a_store_that_only_served_is_whole(store: Store) {
    assert_whole(&store).await;
    for (name, byte) in [("a", 1), ("b", 1), ("c/d", 2), ("c/e", 3), ("f", 3), ("a", 2)] {
        put(&store, name, 5, byte).await;
    }
    assert_eq!(delete(&store, "c/e", 9).await, DeleteOutcome::Deleted);
    assert_eq!(delete(&store, "b", 9).await, DeleteOutcome::Deleted);
    assert!(condemn(&store, 1, FAR_FUTURE).await.is_some());
    begin(&store, "g", 5, 9).await;
    assert_whole(&store).await;
    let before = totals(&store).await;
    ok(store.recount(vec![digest(2), digest(3), digest(99)]).await);
    ok(store.recount_totals().await);
    assert_eq!(totals(&store).await, before);
    assert_whole(&store).await;
}

pub(super) async fn names_are_paged_with_what_they_hold(store: Store) {
    let long = format!("z/{}", "ż".repeat(2000));
    let names = ["a", "a/b", "a0", "c", &long, &format!("{long}a")];
    for (number, name) in names.iter().enumerate() {
        put(&store, name, number as i64, 1 + number as u8 / 3).await;
    }
    for rows in [1, 2, 3, 100] {
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = ok(store.names(after, rows).await);
            let Some(last) = page.last() else { break };
            after = Some(last.key.clone());
            seen.extend(page);
        }
        let seen: Vec<_> = seen
            .iter()
            .map(|named| (named.key.name(), named.stamp.seconds(), named.digest.as_bytes()[0], named.logical_size))
            .collect();
        let size = |byte: u8| Some(u64::from(byte) * 10);
        let want = names.iter().enumerate().map(|(number, name)| {
            let byte = 1 + number as u8 / 3;
            (*name, number as i64, byte, size(byte))
        });
        let want: Vec<_> = want.collect();
        assert_eq!(seen, want, "{rows}");
    }
    let mut holders = ok(store.holders(vec![digest(1), digest(7)], 10).await);
    holders.sort();
    let want: Vec<_> = ["a", "a/b", "a0"].iter().map(|name| (digest(1), key(name))).collect();
    assert_eq!(holders, want);
    assert_eq!(ok(store.holders(vec![digest(1)], 2).await).len(), 2);
}

pub(super) async fn an_adopted_object_is_a_content_without_names(store: Store) {
    let blob = stored(object(5, 7), 5);
    for _ in 0..3 {
        assert_eq!(ok(store.set_blob(set(blob, None)).await), SetOutcome::Set);
        assert_eq!(totals(&store).await, [0, 1, 0, 5]);
    }
    assert_whole(&store).await;
    // Another object of the content does not take its place unasked.
    assert_eq!(ok(store.set_blob(set(stored(object(5, 8), 5), None)).await), SetOutcome::Moved);
    let plan = PlanPut {
        key: key("a"),
        stamp: Stamp::from_seconds(1),
        digest: digest(5),
        logical_size: 50,
        intent: None,
        origin: Origin::Client,
    };
    assert_eq!(ok(store.plan_put(plan).await), PutPlan::Committed);
    assert_eq!(get(&store, "a").await, Some((1, 5)));
    assert_whole(&store).await;
    // Its generation is spent, for all contents.
    assert!(begin(&store, "b", 1, 6).await.1.generation > 7);
    ok(store.spend_generation(20).await);
    ok(store.spend_generation(3).await);
    assert_eq!(begin(&store, "c", 1, 7).await.1.generation, 21);
}

pub(super) async fn an_adopted_content_is_not_cleaned_before_it_had_a_name_or_is_released(store: Store) {
    for byte in 1..=4 {
        assert_eq!(ok(store.set_blob(set(stored(object(byte, 0), byte), None)).await), SetOutcome::Set);
    }
    let unused = async || {
        let page = UnusedPage { unused_since: FAR_FUTURE, after: None, rows: 10, settle: true };
        ok(store.list_unused(page).await).iter().map(|unused| unused.digest).collect::<Vec<_>>()
    };
    ok(store.recount((1..=4).map(digest).collect()).await);
    assert_eq!(unused().await, []);
    for byte in 1..=4 {
        assert_eq!(condemn(&store, byte, FAR_FUTURE).await, None);
    }
    assert_whole(&store).await;
    // One gets a name and keeps it, another one loses it.
    put(&store, "kept", 1, 1).await;
    put(&store, "lost", 1, 2).await;
    assert_eq!(delete(&store, "lost", 1).await, DeleteOutcome::Deleted);
    assert_eq!(unused().await, [digest(2)]);
    assert_eq!(condemn(&store, 1, FAR_FUTURE).await, None);
    assert!(condemn(&store, 2, FAR_FUTURE).await.is_some());
    // The others are given up.
    let mut released = 0;
    while let count @ 1.. = ok(store.release_held(1).await) {
        released += count;
    }
    assert!((2..=3).contains(&released), "{released}");
    assert_eq!(condemn(&store, 1, FAR_FUTURE).await, None);
    assert!(condemn(&store, 3, FAR_FUTURE).await.is_some());
    assert!(condemn(&store, 4, FAR_FUTURE).await.is_some());
    assert_whole(&store).await;
}

pub(super) async fn a_replaced_object_is_kept_in_quarantine(store: Store) {
    put(&store, "a", 1, 1).await;
    let old = object(1, 0);
    let (intent, new) = ok(store.begin_replacement(digest(1), intent()).await);
    assert!(new.generation > 0, "a generation is used again");
    let replace = SetBlob { intent: Some(intent), ..set(stored(new, 1), Some(old)) };
    let moved = SetBlob { expected: None, ..replace.clone() };
    assert_eq!(ok(store.set_blob(moved).await), SetOutcome::Moved);
    for _ in 0..2 {
        assert_eq!(ok(store.set_blob(replace.clone()).await), SetOutcome::Set);
    }
    assert_eq!(get(&store, "a").await, Some((1, 1)));
    assert_eq!(ok(store.are_known(vec![old, new, object(1, 77)]).await), [true, true, false]);
    let quarantined = ok(store.list_quarantined(None, 10).await);
    assert_eq!(
        quarantined.iter().map(|object| (object.key, object.reason.as_str())).collect::<Vec<_>>(),
        [(old, "a test")]
    );
    assert_eq!(ok(store.list_quarantined(Some(old), 10).await), []);
    // It does not come back.
    assert_eq!(ok(store.set_blob(set(stored(old, 1), Some(new))).await), SetOutcome::Refused);
    assert_whole(&store).await;
    // The good one is cleaned as any other.
    assert_eq!(delete(&store, "a", 1).await, DeleteOutcome::Deleted);
    assert!(condemn(&store, 1, FAR_FUTURE).await.is_some());
    assert!(begin(&store, "a", 1, 1).await.1.generation > new.generation);
}

pub(super) async fn an_intent_that_was_condemned_replaces_nothing(store: Store) {
    put(&store, "a", 1, 1).await;
    let (intent, new) = ok(store.begin_replacement(digest(1), intent()).await);
    assert_eq!(ok(store.condemn_intents(vec![intent], FAR_FUTURE).await), [new]);
    let replace = SetBlob { intent: Some(intent), ..set(stored(new, 1), Some(object(1, 0))) };
    assert_eq!(ok(store.set_blob(replace.clone()).await), SetOutcome::Refused);
    assert_eq!(ok(store.set_blob(SetBlob { intent: None, ..replace }).await), SetOutcome::Refused);
    assert!(ok(store.list_quarantined(None, 10).await).is_empty());
}

pub(super) async fn an_object_of_an_intent_can_be_adopted_and_is_not_condemned_then(store: Store) {
    let first = begin(&store, "a", 5, 1).await;
    assert_eq!(ok(store.set_blob(set(stored(first.1, 1), None)).await), SetOutcome::Set);
    assert!(ok(store.condemn_intents(vec![first.0], FAR_FUTURE).await).is_empty());
    assert_eq!(ok(store.commit_put(commit("a", 5, 1, first)).await), PutCommit::Committed);
    assert_eq!(get(&store, "a").await, Some((5, 1)));
    assert_whole(&store).await;
}

pub(super) async fn a_content_whose_object_is_in_quarantine_is_not_cleaned(store: Store) {
    put(&store, "a", 1, 1).await;
    for _ in 0..2 {
        ok(store.quarantine(object(1, 0), "broken".into()).await);
    }
    assert_eq!(get(&store, "a").await, Some((1, 1)), "it stays the content's object");
    assert_eq!(delete(&store, "a", 1).await, DeleteOutcome::Deleted);
    let page = UnusedPage { unused_since: FAR_FUTURE, after: None, rows: 10, settle: true };
    assert_eq!(ok(store.list_unused(page).await), [], "nobody plans to clean it");
    assert_eq!(condemn(&store, 1, FAR_FUTURE).await, None);
    // It was good after all: the same object with the description that it proved to have.
    let other = StoredBlob { stored_size: 9, ..stored(object(1, 0), 1) };
    assert_eq!(ok(store.set_blob(set(other, Some(object(1, 0)))).await), SetOutcome::Set);
    assert_eq!(totals(&store).await, [0, 1, 0, 9]);
    assert!(ok(store.list_quarantined(None, 10).await).is_empty());
    assert!(condemn(&store, 1, FAR_FUTURE).await.is_some());
}

pub(super) async fn a_content_that_becomes_known_under_its_names_has_them_counted(store: Store) {
    for (name, byte) in [("a", 1), ("b", 1), ("c", 2)] {
        put(&store, name, 1, byte).await;
    }
    assert_eq!(ok(store.references(vec![digest(2), digest(9), digest(1)]).await), [1, 0, 2]);
    // As if names held it: a name more that comes and goes leaves the number.
    let unknown = SetBlob { references: 2, ..set(stored(object(6, 0), 6), None) };
    assert_eq!(ok(store.set_blob(unknown).await), SetOutcome::Set);
    assert_eq!(condemn(&store, 6, FAR_FUTURE).await, None);
    ok(store.recount(vec![digest(6)]).await);
    assert_whole(&store).await;
}

pub(super) async fn quarantine_is_lifted_or_left_for_the_cleaner_when_another_object_is_there(store: Store) {
    put(&store, "a", 1, 1).await;
    let old = object(1, 0);
    ok(store.quarantine(old, "broken".into()).await);
    let listed = ok(store.list_quarantined(None, 10).await);
    assert!(listed[0].since.seconds() > Stamp::now().seconds() - 600);
    // The last copy of a content is never given up.
    for instead in [old, object(1, 1), object(2, 1)] {
        assert!(!ok(store.condemn_quarantined(old, instead).await));
    }
    assert!(ok(store.lift_quarantine(old).await));
    assert!(!ok(store.lift_quarantine(old).await));
    assert!(ok(store.list_quarantined(None, 10).await).is_empty());
    let (intent, new) = ok(store.begin_replacement(digest(1), intent()).await);
    let replace = SetBlob { intent: Some(intent), ..set(stored(new, 1), Some(old)) };
    assert_eq!(ok(store.set_blob(replace).await), SetOutcome::Set);
    ok(store.quarantine(new, "broken, too".into()).await);
    assert!(!ok(store.condemn_quarantined(old, new).await), "neither is good");
    assert!(ok(store.lift_quarantine(new).await));
    assert!(ok(store.condemn_quarantined(old, new).await));
    assert!(!ok(store.condemn_quarantined(old, new).await));
    assert!(ok(store.list_quarantined(None, 10).await).is_empty());
    assert_eq!(ok(store.list_condemned(None, 10).await), [old]);
    assert_eq!(get(&store, "a").await, Some((1, 1)));
    assert_whole(&store).await;
}

pub(super) async fn an_object_that_proves_to_be_good_leaves_quarantine(store: Store) {
    put(&store, "a", 1, 1).await;
    assert_eq!(delete(&store, "a", 1).await, DeleteOutcome::Deleted);
    ok(store.quarantine(object(1, 0), "it could not be read".into()).await);
    let same = stored(object(1, 0), 1);
    // Nobody has looked at this very object: what is noted of it is the same, and no more is said.
    assert_eq!(ok(store.set_blob(set(same, None)).await), SetOutcome::Set);
    assert_eq!(ok(store.list_quarantined(None, 10).await).len(), 1);
    assert_eq!(ok(store.set_blob(set(same, Some(object(1, 0)))).await), SetOutcome::Set);
    assert!(ok(store.list_quarantined(None, 10).await).is_empty());
    assert!(condemn(&store, 1, FAR_FUTURE).await.is_some());
}

pub(super) async fn a_made_up_generation_uses_up_no_numbers(store: Store) {
    for generation in [BlobKey::GENERATION_MAX, BlobKey::GENERATION_MAX / 2 + 1, i64::MAX.cast_unsigned()] {
        let made_up = object(1, generation);
        assert_eq!(ok(store.set_blob(set(stored(made_up, 1), None)).await), SetOutcome::Refused);
        ok(store.quarantine(made_up, "broken".into()).await);
        ok(store.spend_generation(generation).await);
    }
    put(&store, "a", 1, 1).await;
    let (_, key) = begin(&store, "b", 1, 2).await;
    assert!(key.to_string().parse() == Ok(key), "the name of {key} is a stranger's");
    assert!(key.generation <= BlobKey::GENERATION_MAX / 2 + 1);
}

async fn is_suspect(store: &Store, byte: u8) -> bool {
    let contents = ok(store.survey(Vec::new(), 100).await).contents;
    contents.iter().any(|content| content.digest == digest(byte) && content.is_suspect)
}

pub(super) async fn an_upload_takes_the_place_of_an_object_that_is_noted_to_be_damaged(store: Store) {
    for name in ["a", "b"] {
        put(&store, name, 5, 1).await;
    }
    put(&store, "other", 5, 2).await;
    let old = object(1, 0);
    // What is not the content's object is nobody's business.
    ok(store.note_damaged(object(1, 7)).await);
    ok(store.note_damaged(object(9, 0)).await);
    assert!(!is_suspect(&store, 1).await);
    for _ in 0..2 {
        ok(store.note_damaged(old).await);
    }
    assert!(is_suspect(&store, 1).await && !is_suspect(&store, 2).await);
    assert_eq!(get(&store, "a").await, Some((5, 1)), "a name is not lost");
    assert_whole(&store).await;
    // Nothing is acknowledged on the strength of that object: under the same name, a new one, or in place of another content.
    for name in ["a", "c", "other"] {
        let asked = PlanPut { intent: None, ..super::meta_contract::plan(name, 6, 1, false) };
        assert_eq!(ok(store.plan_put(asked).await), PutPlan::Missing, "{name}");
    }
    let upload = begin(&store, "a", 6, 1).await;
    assert!(upload.1.generation > old.generation);
    for _ in 0..2 {
        assert_eq!(ok(store.commit_put(commit("a", 6, 1, upload)).await), PutCommit::Committed);
    }
    assert!(!is_suspect(&store, 1).await);
    assert_eq!(totals(&store).await, [3, 2, 40, 3]);
    assert_whole(&store).await;
    // All names read the new one; the former one is kept.
    for (name, stamp) in [("a", 6), ("b", 5)] {
        let entry = ok(store.lookup(key(name)).await);
        let entry = entry.unwrap_or_else(|| panic!("{name} is lost"));
        assert_eq!((entry.stamp.seconds(), entry.recipe), (stamp, Recipe::Whole(stored(upload.1, 1))));
    }
    let quarantined = ok(store.list_quarantined(None, 10).await);
    assert_eq!(quarantined.iter().map(|object| object.key).collect::<Vec<_>>(), [old]);
    // A late find of the former one changes nothing.
    ok(store.note_damaged(old).await);
    put(&store, "c", 6, 1).await;
    assert_eq!(totals(&store).await, [4, 2, 50, 3]);
    // It can be damaged again, is cleaned as any other, and its note goes with it.
    ok(store.note_damaged(upload.1).await);
    for name in ["a", "b", "c"] {
        assert_eq!(delete(&store, name, 9).await, DeleteOutcome::Deleted);
    }
    assert!(condemn(&store, 1, FAR_FUTURE).await.is_some());
    put(&store, "a", 10, 1).await;
    assert!(!is_suspect(&store, 1).await);
    assert_whole(&store).await;
}

pub(super) async fn of_two_uploads_that_heal_the_first_commit_stays(store: Store) {
    put(&store, "a", 5, 1).await;
    ok(store.note_damaged(object(1, 0)).await);
    let (one, two) = (begin(&store, "a", 6, 1).await, begin(&store, "b", 6, 1).await);
    assert_ne!(one.1, two.1);
    assert_eq!(ok(store.commit_put(commit("b", 6, 1, two)).await), PutCommit::Committed);
    assert_eq!(ok(store.commit_put(commit("a", 6, 1, one)).await), PutCommit::Committed);
    for name in ["a", "b"] {
        let recipe = ok(store.lookup(key(name)).await).map(|entry| entry.recipe);
        assert_eq!(recipe, Some(Recipe::Whole(stored(two.1, 1))));
    }
    assert_eq!(ok(store.condemn_intents(vec![one.0, two.0], FAR_FUTURE).await), [one.1]);
    // An upload that was withdrawn heals nothing.
    ok(store.note_damaged(two.1).await);
    let three = begin(&store, "c", 6, 1).await;
    assert_eq!(ok(store.condemn_intents(vec![three.0], FAR_FUTURE).await), [three.1]);
    assert_eq!(ok(store.commit_put(commit("c", 6, 1, three)).await), PutCommit::IntentLost);
    // One whose name got a newer version meanwhile does, for the other names.
    let four = begin(&store, "a", 7, 1).await;
    put(&store, "a", 8, 3).await;
    let stale = PutCommit::Stale { current: Stamp::from_seconds(8) };
    assert_eq!(ok(store.commit_put(commit("a", 7, 1, four)).await), stale);
    let recipe = ok(store.lookup(key("b")).await).map(|entry| entry.recipe);
    assert_eq!(recipe, Some(Recipe::Whole(stored(four.1, 1))));
    assert_whole(&store).await;
}

pub(super) async fn what_is_noted_of_an_object_is_taken_back_when_it_proves_to_be_good(store: Store) {
    let (old, same) = (object(1, 0), stored(object(1, 0), 1));
    put(&store, "a", 1, 1).await;
    ok(store.note_damaged(old).await);
    assert_eq!(ok(store.set_blob(set(same, Some(old))).await), SetOutcome::Set);
    assert!(!is_suspect(&store, 1).await);
    // Quarantine of a content's object is as good as a note.
    ok(store.quarantine(old, "broken".into()).await);
    assert!(is_suspect(&store, 1).await);
    assert!(ok(store.lift_quarantine(old).await));
    assert!(!is_suspect(&store, 1).await);
    ok(store.note_damaged(old).await);
    assert!(!ok(store.lift_quarantine(old).await), "it was in none");
    assert!(!is_suspect(&store, 1).await);
    // So is another object of the content.
    ok(store.note_damaged(old).await);
    let (intent, new) = ok(store.begin_replacement(digest(1), intent()).await);
    let replace = SetBlob { intent: Some(intent), ..set(stored(new, 1), Some(old)) };
    assert_eq!(ok(store.set_blob(replace).await), SetOutcome::Set);
    assert!(!is_suspect(&store, 1).await);
    put(&store, "b", 1, 1).await;
    assert_eq!(totals(&store).await, [2, 1, 20, 1]);
    assert_whole(&store).await;
}

pub(super) async fn an_intent_whose_object_is_in_quarantine_is_not_condemned(store: Store) {
    let (kept, other) = (begin(&store, "a", 5, 1).await, begin(&store, "b", 5, 2).await);
    ok(store.quarantine(kept.1, "broken".into()).await);
    let listed = ok(store.list_intents(FAR_FUTURE, None, 10).await);
    assert_eq!(listed.iter().map(|intent| intent.id).collect::<Vec<_>>(), [other.0]);
    assert_eq!(ok(store.condemn_intents(vec![kept.0, other.0], FAR_FUTURE).await), [other.1]);
    assert_eq!(ok(store.list_condemned(None, 10).await), [other.1]);
    // Out of quarantine it is what it was: an upload that was given up.
    assert!(ok(store.lift_quarantine(kept.1).await));
    assert_eq!(ok(store.condemn_intents(vec![kept.0], FAR_FUTURE).await), [kept.1]);
}
