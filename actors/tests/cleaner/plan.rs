//! What a run does, and that a dry run tells the same.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use s3dedup_actors::cleaner::{CleanOptions, CleanerLimits};
use s3dedup_actors::store::meta::PutCommit;

use crate::support::{Deletions, Stores, at_once};

const DRY: CleanOptions = CleanOptions { dry_run: true, full_scan: false, delete_orphans: false };

async fn garbage_goes_after_the_grace(stores: Stores) {
    stores.fill(30).await;
    let report = stores.clean(CleanerLimits::default()).await;
    assert_eq!((report.planned(), report.deleted()), (0, 0), "the grace is not over");
    let report = stores.clean(at_once()).await;
    assert_eq!((report.unused.done, report.is_partial), (30, false));
    assert!(report.freed_bytes() > 30 * 9);
    stores.assert_used_is_there(30).await;
    assert_eq!(stores.contents.inner_names().await, 30);
    assert_eq!(stores.metadata.totals().await.unwrap().contents, 30);
    // What was cleaned away can be stored again.
    stores.put("again", 1, b"garbage 7").await;
    assert_eq!(stores.get("again").await.unwrap(), b"garbage 7");
    let report = stores.clean(at_once()).await;
    assert_eq!(report.planned(), 0);
}

#[tokio::test]
async fn garbage_goes_after_the_grace_and_what_is_used_stays() {
    garbage_goes_after_the_grace(Stores::sqlite()).await;
    garbage_goes_after_the_grace(Stores::sqlite_and_folder()).await;
    garbage_goes_after_the_grace(Stores::postgres().await).await;
}

async fn a_dry_run_plans_what_the_run_does(stores: Stores) {
    stores.fill(50).await;
    for number in 0..5 {
        drop(stores.upload("abandoned", 1, format!("abandoned {number}").as_bytes()).await.unwrap());
    }
    // Leaves some that are condemned.
    stores.contents.set(Deletions::Refused);
    let cut = CleanerLimits { batch_size: 7, deletes_max: 7, ..at_once() };
    let report = stores.cleaner(cut).run(CleanOptions::default()).await.unwrap();
    assert_eq!((report.errors, report.is_partial, report.deleted()), (1, true, 0));
    stores.contents.set(Deletions::Done);

    let limits = CleanerLimits { batch_size: 10, deletes_max: 40, intent_age: Duration::ZERO, ..at_once() };
    for (kinds, is_partial) in [([7, 5, 28], true), ([0, 0, 15], false), ([0, 0, 0], false)] {
        let dry = stores.clean_with(limits, DRY).await;
        assert_eq!(dry.deleted(), 0);
        let run = stores.clean(limits).await;
        assert_eq!((dry.plan(), dry.is_partial), (run.plan(), run.is_partial));
        assert_eq!([run.condemned.done, run.intents.done, run.unused.done], kinds);
        assert_eq!(run.planned(), run.deleted());
        assert_eq!(run.is_partial, is_partial);
    }
    stores.assert_used_is_there(50).await;
    assert_eq!(stores.contents.inner_names().await, 50);
}

#[tokio::test]
async fn a_dry_run_plans_what_the_run_does_within_its_limits() {
    a_dry_run_plans_what_the_run_does(Stores::sqlite()).await;
    a_dry_run_plans_what_the_run_does(Stores::postgres().await).await;
}

#[tokio::test]
async fn abandoned_uploads_go_when_they_are_old() {
    let stores = Stores::sqlite();
    stores.put("used", 1, b"used").await;
    let commit = stores.upload("late", 1, b"late").await.unwrap();
    assert_eq!(stores.clean(at_once()).await.planned(), 0, "it may still be going on");
    let old = CleanerLimits { intent_age: Duration::ZERO, ..at_once() };
    assert_eq!(stores.clean(old).await.intents.done, 1);
    assert_eq!(stores.memory.names().len(), 1);
    // The upload that took too long is told so, and is done again under another name.
    assert_eq!(stores.metadata.commit_put(commit).await.unwrap(), PutCommit::IntentLost);
    stores.put("late", 1, b"late").await;
    assert_eq!(stores.get("late").await.unwrap(), b"late");
}

#[tokio::test]
async fn a_thousand_deletions_are_one_request() {
    let stores = Stores::sqlite();
    stores.fill(1200).await;
    let report = stores.clean(at_once()).await;
    assert_eq!(report.deleted(), 1200);
    assert_eq!(stores.contents.delete_requests.load(SeqCst), 2);
}

#[tokio::test]
async fn nothing_is_condemned_for_a_store_that_is_away() {
    let stores = Stores::sqlite();
    stores.fill(5).await;
    stores.contents.set(Deletions::Down);
    let report = stores.cleaner(at_once()).run(CleanOptions::default()).await.unwrap();
    assert!(report.first_error.is_some() && report.is_partial);
    assert!(stores.metadata.list_condemned(None, 10).await.unwrap().is_empty());
    stores.contents.set(Deletions::Done);
    assert_eq!(stores.clean(at_once()).await.unused.done, 5);
}

#[tokio::test]
async fn a_stopped_cleaner_begins_nothing() {
    let stores = Stores::sqlite();
    stores.fill(5).await;
    let cleaner = stores.cleaner(at_once());
    cleaner.stop();
    let report = cleaner.run(CleanOptions::default()).await.unwrap();
    assert_eq!((report.planned(), report.is_partial), (0, true));
}
