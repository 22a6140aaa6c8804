//! What every [`MetaStore`](crate::store::meta::MetaStore) must do. Each check gets an empty store.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::model::{BlobHash, BlobKey, Digest, Encoding, EntryKey, KeyLayout, Namespace, Recipe, Stamp, StoredBlob};
use crate::store::meta::{
    CommitPut, DeleteOutcome, IntentId, ListPage, MetaCare, MigrationJournal, MirrorJournal, NewIntent, Origin,
    PlanPut, PutCommit, PutPlan, Totals, UnusedPage,
};

/// All that a store can do.
pub trait AnyStore: MetaCare + MigrationJournal + MirrorJournal {}

impl<S: MetaCare + MigrationJournal + MirrorJournal> AnyStore for S {}

/// The store under test.
pub type Store = Arc<dyn AnyStore>;

/// What makes an empty store; the second value keeps its server or folder alive.
pub type Factory<'a, G> = &'a dyn Fn() -> Pin<Box<dyn Future<Output = (Store, G)> + 'a>>;

/// Later than every upload and deletion of a check.
pub(super) const FAR_FUTURE: Stamp = Stamp::from_seconds(1 << 40);

/// Runs every check, each on a store of its own, and names the one that fails.
pub async fn run<G>(factory: Factory<'_, G>) {
    macro_rules! checks {
        ($($check:ident)*) => {$(
            let (store, keep) = factory().await;
            eprintln!("meta contract: {} on {}", stringify!($check), store.kind());
            $check(store).await;
            drop(keep);
        )*};
    }
    checks! {
        an_upload_becomes_an_entry
        known_content_is_shared_without_an_upload
        the_newest_version_wins
        equal_versions_replace
        overwriting_moves_the_references
        repeated_writes_change_nothing
        of_two_uploads_the_first_commit_stays
        a_stale_commit_keeps_the_content_for_others
        condemned_content_comes_back_under_a_new_generation
        used_or_young_content_is_not_condemned
        a_condemned_intent_cannot_be_committed
        listings_are_ordered_paged_and_bounded_by_directory
        listings_hide_newer_versions
        the_longest_names_are_kept_and_listed_in_order
        concurrent_writers_keep_the_counts
        names_that_swap_contents_do_not_block_each_other
        a_generation_is_never_given_twice
        unused_contents_are_listed_and_condemned_in_batches
        intents_and_condemned_objects_are_listed_until_they_are_gone
        stored_contents_are_listed_and_objects_are_known
        only_unknown_objects_are_condemned_as_such
        only_one_leads_at_a_time
        a_local_reader_sees_what_was_committed
    }
    use super::care_contract::*;
    checks! {
        a_store_that_only_served_is_whole
        names_are_paged_with_what_they_hold
        an_adopted_object_is_a_content_without_names
        an_adopted_content_is_not_cleaned_before_it_had_a_name_or_is_released
        a_replaced_object_is_kept_in_quarantine
        an_intent_that_was_condemned_replaces_nothing
        an_object_of_an_intent_can_be_adopted_and_is_not_condemned_then
        a_content_whose_object_is_in_quarantine_is_not_cleaned
        a_content_that_becomes_known_under_its_names_has_them_counted
        quarantine_is_lifted_or_left_for_the_cleaner_when_another_object_is_there
    }
    use super::mirror_contract::*;
    checks! {
        a_mirrored_write_marks_its_name_and_others_do_not
        a_deletion_is_remembered_and_no_copy_brings_the_name_back
        a_copy_never_replaces_what_is_as_new
        a_mark_stays_until_its_last_write_is_settled
        a_claim_keeps_others_away_until_it_runs_out
        marks_that_failed_come_back_after_their_pause
        what_is_here_and_what_was_deleted_is_told
    }
    use super::journal_contract::*;
    checks! {
        an_unfinished_migration_goes_on_and_a_finished_one_begins_anew
        names_are_pending_once_however_often_they_are_listed
        names_count_once_when_they_are_settled
        names_that_cannot_be_copied_are_kept_with_the_reason
        what_was_deleted_during_a_migration_is_not_copied_again
        former_migrations_are_forgotten_bit_by_bit
    }
}

/// The content whose digest is 32 times `byte`.
pub(super) fn digest(byte: u8) -> Digest {
    Digest::from_bytes([byte; 32])
}

pub(super) fn key(name: &str) -> EntryKey {
    match EntryKey::parse(Namespace::FILETRACKER, name.as_bytes()) {
        Ok(key) => key,
        Err(error) => panic!("{name}: {error}"),
    }
}

/// Content `byte` has `byte * 10` logical and `byte` stored bytes.
pub(super) fn plan(name: &str, stamp: i64, byte: u8, with_intent: bool) -> PlanPut {
    let intent = with_intent.then(|| NewIntent { instance: "test".into(), layout: KeyLayout::new(2) });
    let logical_size = u64::from(byte) * 10;
    PlanPut {
        key: key(name),
        stamp: Stamp::from_seconds(stamp),
        digest: digest(byte),
        logical_size,
        intent,
        origin: Origin::Client,
    }
}

pub(super) fn stored(key: BlobKey, byte: u8) -> StoredBlob {
    let stored_hash = BlobHash::from_bytes([byte ^ 0xff; 32]);
    StoredBlob { key, encoding: Encoding::Gzip, stored_size: u64::from(byte), stored_hash }
}

pub(super) fn commit(name: &str, stamp: i64, byte: u8, upload: (IntentId, BlobKey)) -> CommitPut {
    let (intent, blob) = (upload.0, stored(upload.1, byte));
    CommitPut {
        key: key(name),
        stamp: Stamp::from_seconds(stamp),
        logical_size: u64::from(byte) * 10,
        intent,
        blob,
        origin: Origin::Client,
    }
}

#[track_caller]
pub(super) fn ok<T>(result: crate::model::Result<T>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{error}"),
    }
}

/// Plans the upload of a content that must be unknown.
pub(super) async fn begin(store: &Store, name: &str, stamp: i64, byte: u8) -> (IntentId, BlobKey) {
    match ok(store.plan_put(plan(name, stamp, byte, true)).await) {
        PutPlan::Upload { intent, key } => (intent, key),
        other => panic!("expected an upload, got {other:?}"),
    }
}

/// A whole put, as the engine does it.
pub(super) async fn put(store: &Store, name: &str, stamp: i64, byte: u8) {
    match ok(store.plan_put(plan(name, stamp, byte, true)).await) {
        PutPlan::Committed => {}
        PutPlan::Upload { intent, key } => {
            let committed = ok(store.commit_put(commit(name, stamp, byte, (intent, key))).await);
            assert_eq!(committed, PutCommit::Committed);
        }
        other => panic!("expected to store, got {other:?}"),
    }
}

/// Version and content byte of a name.
pub(super) async fn get(store: &Store, name: &str) -> Option<(i64, u8)> {
    let entry = ok(store.lookup(key(name)).await)?;
    let byte = entry.digest.as_bytes()[0];
    let Recipe::Whole(blob) = &entry.recipe;
    assert_eq!(entry.logical_size, u64::from(byte) * 10);
    assert_eq!(*blob, stored(blob.key, byte));
    assert_eq!(blob.key.digest, entry.digest);
    Some((entry.stamp.seconds(), byte))
}

pub(super) async fn delete(store: &Store, name: &str, stamp: i64) -> DeleteOutcome {
    ok(store.delete(key(name), Stamp::from_seconds(stamp)).await)
}

pub(super) async fn totals(store: &Store) -> [u64; 4] {
    let Totals { entries, contents, logical_bytes, stored_bytes, .. } = ok(store.totals().await);
    [entries, contents, logical_bytes, stored_bytes]
}

pub(super) async fn condemn(store: &Store, byte: u8, unused_since: Stamp) -> Option<Recipe> {
    let condemned = ok(store.condemn(vec![digest(byte)], unused_since).await);
    assert!(condemned.len() <= 1);
    condemned.first().copied().map(Recipe::Whole)
}

async fn condemn_intent(store: &Store, intent: IntentId, made_before: Stamp) -> Option<BlobKey> {
    let condemned = ok(store.condemn_intents(vec![intent], made_before).await);
    assert!(condemned.len() <= 1);
    condemned.first().copied()
}

async fn an_upload_becomes_an_entry(store: Store) {
    assert_eq!(ok(store.totals().await), Totals::default());
    assert_eq!(get(&store, "a").await, None);
    assert_eq!(ok(store.plan_put(plan("a", 5, 1, false)).await), PutPlan::Missing);
    let upload = begin(&store, "a", 5, 1).await;
    assert_eq!(upload.1, BlobKey { digest: digest(1), generation: 0, layout: KeyLayout::new(2) });
    assert_eq!(get(&store, "a").await, None, "an intent is not an entry");
    assert_eq!(ok(store.commit_put(commit("a", 5, 1, upload)).await), PutCommit::Committed);
    assert_eq!(get(&store, "a").await, Some((5, 1)));
    assert_eq!(totals(&store).await, [1, 1, 10, 1]);
    assert_eq!(ok(store.totals().await).uploads_begun, 1);
    ok(store.probe().await);
}

async fn known_content_is_shared_without_an_upload(store: Store) {
    put(&store, "a", 5, 1).await;
    for with_intent in [false, true] {
        assert_eq!(ok(store.plan_put(plan("b/c", 7, 1, with_intent)).await), PutPlan::Committed);
    }
    assert_eq!(get(&store, "b/c").await, Some((7, 1)));
    assert_eq!(totals(&store).await, [2, 1, 20, 1]);
}

async fn the_newest_version_wins(store: Store) {
    put(&store, "a", 5, 1).await;
    put(&store, "known", 5, 2).await;
    let stale = PutPlan::Stale { current: Stamp::from_seconds(5) };
    for byte in [1, 2, 3] {
        for with_intent in [false, true] {
            assert_eq!(ok(store.plan_put(plan("a", 4, byte, with_intent)).await), stale);
        }
    }
    assert_eq!(delete(&store, "a", 4).await, DeleteOutcome::Stale { current: Stamp::from_seconds(5) });
    assert_eq!(get(&store, "a").await, Some((5, 1)));
    assert_eq!(delete(&store, "a", 5).await, DeleteOutcome::Deleted);
    assert_eq!(get(&store, "a").await, None);
    put(&store, "a", -4, 1).await;
    assert_eq!(get(&store, "a").await, Some((-4, 1)), "a deletion leaves nothing that is newer");
}

async fn equal_versions_replace(store: Store) {
    put(&store, "a", 5, 1).await;
    put(&store, "a", 5, 2).await;
    assert_eq!(get(&store, "a").await, Some((5, 2)));
}

async fn overwriting_moves_the_references(store: Store) {
    put(&store, "a", 1, 1).await;
    put(&store, "b", 1, 1).await;
    put(&store, "a", 2, 2).await;
    assert_eq!(totals(&store).await, [2, 2, 30, 3]);
    put(&store, "a", 3, 2).await;
    assert_eq!(totals(&store).await, [2, 2, 30, 3], "the same content in a newer version");
    put(&store, "b", 2, 2).await;
    assert_eq!(totals(&store).await, [2, 2, 40, 3]);
    assert!(condemn(&store, 1, FAR_FUTURE).await.is_some());
    assert_eq!(totals(&store).await, [2, 1, 40, 2]);
    assert!(condemn(&store, 2, FAR_FUTURE).await.is_none());
}

async fn repeated_writes_change_nothing(store: Store) {
    let upload = begin(&store, "a", 5, 1).await;
    for _ in 0..3 {
        assert_eq!(ok(store.commit_put(commit("a", 5, 1, upload)).await), PutCommit::Committed);
        assert_eq!(totals(&store).await, [1, 1, 10, 1]);
    }
    for _ in 0..3 {
        assert_eq!(ok(store.plan_put(plan("b", 5, 1, false)).await), PutPlan::Committed);
        assert_eq!(totals(&store).await, [2, 1, 20, 1]);
    }
    assert_eq!(delete(&store, "a", 5).await, DeleteOutcome::Deleted);
    assert_eq!(delete(&store, "a", 5).await, DeleteOutcome::Absent);
    assert_eq!(totals(&store).await, [1, 1, 10, 1]);
}

async fn of_two_uploads_the_first_commit_stays(store: Store) {
    let first = begin(&store, "a", 5, 1).await;
    let second = begin(&store, "b", 5, 1).await;
    assert_ne!(first.1, second.1, "two uploads under one name");
    assert_eq!(ok(store.commit_put(commit("b", 5, 1, second)).await), PutCommit::Committed);
    assert_eq!(ok(store.commit_put(commit("a", 5, 1, first)).await), PutCommit::Committed);
    let entry = ok(store.lookup(key("a")).await);
    assert_eq!(entry.map(|entry| entry.recipe), Some(Recipe::Whole(stored(second.1, 1))));
    assert_eq!(totals(&store).await, [2, 1, 20, 1]);
    // The losing upload's object is found by its intent.
    assert_eq!(condemn_intent(&store, first.0, FAR_FUTURE).await, Some(first.1));
    assert_eq!(condemn_intent(&store, second.0, FAR_FUTURE).await, None);
}

async fn a_stale_commit_keeps_the_content_for_others(store: Store) {
    let upload = begin(&store, "a", 5, 1).await;
    put(&store, "a", 6, 2).await;
    let outcome = ok(store.commit_put(commit("a", 5, 1, upload)).await);
    assert_eq!(outcome, PutCommit::Stale { current: Stamp::from_seconds(6) });
    assert_eq!(get(&store, "a").await, Some((6, 2)));
    assert_eq!(totals(&store).await, [1, 2, 20, 3]);
    assert_eq!(ok(store.plan_put(plan("b", 1, 1, false)).await), PutPlan::Committed);
    assert_eq!(get(&store, "b").await, Some((1, 1)));
}

async fn condemned_content_comes_back_under_a_new_generation(store: Store) {
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

async fn used_or_young_content_is_not_condemned(store: Store) {
    put(&store, "a", 5, 1).await;
    assert_eq!(condemn(&store, 1, FAR_FUTURE).await, None, "it has a name");
    assert_eq!(delete(&store, "a", 5).await, DeleteOutcome::Deleted);
    let before = Stamp::from_seconds(Stamp::now().seconds() - 1000);
    assert_eq!(condemn(&store, 1, before).await, None, "it lost its name just now");
    assert_eq!(ok(store.plan_put(plan("b", 1, 1, false)).await), PutPlan::Committed);
    assert_eq!(condemn(&store, 1, FAR_FUTURE).await, None, "it has a name again");
    assert_eq!(condemn(&store, 9, FAR_FUTURE).await, None, "it is unknown");
}

async fn a_condemned_intent_cannot_be_committed(store: Store) {
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

/// All names below a directory, read in pages of `rows`.
async fn list(store: &Store, directory: &str, not_after: i64, rows: usize) -> (Vec<String>, bool) {
    let (mut names, mut any, mut after) = (Vec::new(), false, None);
    loop {
        let page = ListPage {
            namespace: Namespace::FILETRACKER,
            directory: directory.to_owned(),
            after,
            not_after: Stamp::from_seconds(not_after),
            rows,
        };
        let page = ok(store.list(page).await);
        assert!(page.names.len() <= rows);
        names.extend(page.names);
        any |= page.any;
        after = page.next;
        if after.is_none() {
            return (names, any);
        }
    }
}

async fn listings_are_ordered_paged_and_bounded_by_directory(store: Store) {
    let inside = ["d/a", "d/a/b", "d/a.b", "d/ź", "d/%41", "d/~", "d/\u{10ffff}"];
    let outside = ["d", "d.", "d0", "d-/x", "D/a", "e/d/a", "dd/a"];
    for name in inside.iter().chain(&outside) {
        put(&store, name, 1, 1).await;
    }
    let mut expected: Vec<String> = inside.iter().map(|name| name["d/".len()..].to_owned()).collect();
    expected.sort();
    let mut everything: Vec<String> = inside.iter().chain(&outside).map(|name| (*name).to_owned()).collect();
    everything.sort();
    for rows in [1, 2, 3, 7, 100] {
        assert_eq!(list(&store, "d", 1, rows).await, (expected.clone(), true));
        assert_eq!(list(&store, "", 1, rows).await, (everything.clone(), true));
    }
    assert_eq!(list(&store, "d/a", 1, 10).await, (vec!["b".to_owned()], true));
    assert_eq!(list(&store, "dd/a", 1, 10).await, (vec![], false), "a name is no directory");
    assert_eq!(list(&store, "nowhere", 1, 10).await, (vec![], false));
}

async fn listings_hide_newer_versions(store: Store) {
    for number in 0..20 {
        put(&store, &format!("d/{number:02}"), number, 1).await;
    }
    for rows in [1, 3, 100] {
        assert_eq!(list(&store, "d", 4, rows).await.0, ["00", "01", "02", "03", "04"]);
        assert_eq!(list(&store, "d", -1, rows).await, (vec![], true));
    }
}

async fn the_longest_names_are_kept_and_listed_in_order(store: Store) {
    use crate::model::NAME_BYTES_MAX;
    // The same 3,990 bytes at the beginning, ends that differ late; letters of one to four bytes.
    let mut expected = Vec::new();
    for letter in ["a", "ź", "\u{10ffff}"] {
        let start = format!("d/{}", letter.repeat(3988 / letter.len()));
        for end in ["", "a", "b", "ź", "źz", "\u{10ffff}", "/x", "/y/z"] {
            expected.push(format!("{start}{end}"));
        }
        expected.push(format!("{start}{}", "z".repeat(NAME_BYTES_MAX - start.len())));
    }
    for (number, name) in (1..).zip(&expected) {
        put(&store, name, number, 1).await;
    }
    for (number, name) in (1..).zip(&expected) {
        assert_eq!(get(&store, name).await, Some((number, 1)));
    }
    expected.sort();
    for rows in [1, 4, 100] {
        assert_eq!(list(&store, "", 99, rows).await.0, expected);
    }
    let directory = format!("d/{}", "ź".repeat(1994));
    assert_eq!(list(&store, &directory, 99, 10).await.0, ["x", "y/z"]);
    for name in &expected {
        assert_eq!(delete(&store, name, 99).await, DeleteOutcome::Deleted);
    }
    assert_eq!(totals(&store).await[0], 0);
}

/// Overwrites in opposite directions: what one transaction lets go of, the other one takes.
async fn names_that_swap_contents_do_not_block_each_other(store: Store) {
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

/// Everything on the list of unused contents, in pages of `rows`.
async fn unused(store: &Store, since: Stamp, rows: usize) -> Vec<u8> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = ok(store.list_unused(UnusedPage { unused_since: since, after, rows }).await);
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

async fn unused_contents_are_listed_and_condemned_in_batches(store: Store) {
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

async fn intents_and_condemned_objects_are_listed_until_they_are_gone(store: Store) {
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

async fn stored_contents_are_listed_and_objects_are_known(store: Store) {
    for byte in [3, 1, 2] {
        put(&store, &format!("n{byte}"), 1, byte).await;
    }
    put(&store, "again", 1, 2).await;
    let intent = begin(&store, "a", 1, 4).await.1;
    let key = |byte, generation| BlobKey { digest: digest(byte), generation, layout: KeyLayout::new(2) };
    let page = ok(store.list_contents(None, 2).await);
    let rest = ok(store.list_contents(page.last().map(|content| content.digest), 2).await);
    let all: Vec<_> = page.iter().chain(&rest).collect();
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

async fn only_unknown_objects_are_condemned_as_such(store: Store) {
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

async fn only_one_leads_at_a_time(store: Store) {
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

/// Uploads, deletions and cleaning of one content at once, without any lock outside.
async fn a_generation_is_never_given_twice(store: Store) {
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

async fn concurrent_writers_keep_the_counts(store: Store) {
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

async fn a_local_reader_sees_what_was_committed(store: Store) {
    let Some(reader) = ok(store.local_reader()) else { return };
    assert_eq!(ok(reader.lookup(&key("a"))), None);
    put(&store, "a", 5, 1).await;
    assert_eq!(ok(reader.lookup(&key("a"))), ok(store.lookup(key("a")).await));
    assert_eq!(delete(&store, "a", 5).await, DeleteOutcome::Deleted);
    assert_eq!(ok(reader.lookup(&key("a"))), None);
}
