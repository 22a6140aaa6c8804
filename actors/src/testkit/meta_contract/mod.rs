//! What every [`MetaStore`](crate::store::meta::MetaStore) must do. Each check gets an empty store.
//!
//! The list of checks and what they are made of is here; the checks are in the modules below.

mod cleaning;
mod damage;
mod names;
mod races;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::model::{BlobHash, BlobKey, Digest, Encoding, EntryKey, KeyLayout, Namespace, Recipe, Stamp, StoredBlob};
use crate::store::meta::{
    CommitPut, DeleteOutcome, IntentId, MetaBrowser, MetaCare, MigrationJournal, MirrorJournal, NewIntent, Origin,
    PlanPut, PutCommit, PutPlan, Totals,
};

/// All that a store can do.
pub trait AnyStore: MetaCare + MigrationJournal + MirrorJournal + MetaBrowser {}

impl<S: MetaCare + MigrationJournal + MirrorJournal + MetaBrowser> AnyStore for S {}

/// The store under test.
pub type Store = Arc<dyn AnyStore>;

/// Runs SQL on the tables of a store without the store, as damage would, whatever rows are allowed to hold.
pub type Spoil<'a> = Box<dyn Fn(&str) + 'a>;

/// What makes an empty store; the second value also keeps its server or folder alive.
pub type Factory<'a> = &'a dyn Fn() -> Pin<Box<dyn Future<Output = (Store, Spoil<'a>)> + 'a>>;

/// Later than every upload and deletion of a check.
pub(super) const FAR_FUTURE: Stamp = Stamp::from_seconds(1 << 40);

/// Runs every check, each on a store of its own, and names the one that fails.
pub async fn run(factory: Factory<'_>) {
    macro_rules! checks {
        ($($check:ident)*) => {$(
            let (store, spoil) = factory().await;
            eprintln!("meta contract: {} on {}", stringify!($check), store.kind());
            $check(store).await;
            drop(spoil);
        )*};
    }
    use self::{cleaning::*, names::*, races::*};
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
        the_time_is_that_of_now
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
        an_object_that_proves_to_be_good_leaves_quarantine
        a_made_up_generation_uses_up_no_numbers
        a_content_that_becomes_known_under_its_names_has_them_counted
        quarantine_is_lifted_or_left_for_the_cleaner_when_another_object_is_there
        an_upload_takes_the_place_of_an_object_that_is_noted_to_be_damaged
        of_two_uploads_that_heal_the_first_commit_stays
        what_is_noted_of_an_object_is_taken_back_when_it_proves_to_be_good
        an_intent_whose_object_is_in_quarantine_is_not_condemned
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
        marks_and_tombstones_are_given_up_bit_by_bit
    }
    use super::browse_contract::*;
    checks! {
        names_are_shown_by_prefix_in_pages
        a_shown_name_tells_what_it_holds_and_who_shares_it
    }
    use super::journal_contract::*;
    checks! {
        an_unfinished_migration_goes_on_and_a_finished_one_begins_anew
        names_are_pending_once_however_often_they_are_listed
        names_count_once_when_they_are_settled
        names_that_cannot_be_copied_are_kept_with_the_reason
        what_was_deleted_during_a_migration_is_not_copied_again
        former_migrations_are_forgotten_bit_by_bit
        unfinished_migrations_are_abandoned_with_what_is_remembered_for_them
    }
    damage::run(factory).await;
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
