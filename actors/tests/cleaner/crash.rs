//! Runs that are cut off between their steps.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use s3dedup_actors::cleaner::{CleanOptions, CleanerLimits};
use s3dedup_actors::store::meta::PutCommit;

use crate::support::{Deletions, Stores, at_once};

/// A run that is cut off in its deletions; then the garbage is condemned and no name is lost.
async fn is_cut_off(stores: &Stores, deletions: Deletions) {
    stores.contents.set(deletions);
    let cleaner = stores.cleaner(at_once());
    let run = tokio::time::timeout(Duration::from_millis(500), cleaner.run(CleanOptions::default()));
    match run.await {
        Ok(report) => assert!(report.unwrap().first_error.is_some()),
        Err(_) => assert!(matches!(deletions, Deletions::Stuck | Deletions::StuckBefore)),
    }
    stores.contents.set(Deletions::Done);
    assert_eq!(stores.metadata.list_condemned(None, 1000).await.unwrap().len(), 20);
    assert_eq!(stores.metadata.totals().await.unwrap().contents, 20);
}

async fn every_cut_is_repaired_by_the_next_run(stores: Stores) {
    stores.fill(20).await;
    for deletions in [Deletions::Refused, Deletions::StuckBefore, Deletions::Unanswered, Deletions::Stuck] {
        is_cut_off(&stores, deletions).await;
        // A condemned content that is stored again meanwhile is a new object, which the next run must not hit.
        for number in 0..20 {
            stores.put(&format!("garbage{number}"), 2, format!("garbage {number}").as_bytes()).await;
        }
        let report = stores.clean(at_once()).await;
        assert_eq!((report.condemned.done, report.unused.done), (20, 0));
        stores.assert_used_is_there(20).await;
        for number in 0..20 {
            let name = format!("garbage{number}");
            assert_eq!(stores.get(&name).await.unwrap(), format!("garbage {number}").as_bytes());
            stores.delete(&name, 2).await;
        }
        assert!(stores.metadata.list_condemned(None, 1000).await.unwrap().is_empty());
    }
    let scan = CleanOptions { full_scan: true, ..CleanOptions::default() };
    let scanned = stores.clean_with(at_once(), scan).await.scan.unwrap();
    assert!(scanned.is_whole());
    assert_eq!((scanned.orphans.count, scanned.objects), (0, 20));
}

/// Uploads that stored their objects and never came to their commits are cut off between their condemning and their
/// deletion; some of them go on all the same.
async fn a_cut_among_abandoned_uploads_is_repaired(stores: Stores, cuts: &[Deletions]) {
    const UPLOADS: usize = 10;
    stores.put("used", 1, b"used").await;
    let limits = CleanerLimits { intent_age: Duration::ZERO, ..at_once() };
    for (round, &deletions) in cuts.iter().enumerate() {
        let mut commits = Vec::new();
        for number in 0..UPLOADS {
            let content = format!("abandoned {round} {number}");
            commits.push(stores.upload(&content, 1, content.as_bytes()).await.unwrap());
        }
        stores.contents.set(deletions);
        let cleaner = stores.cleaner(limits);
        let before = stores.contents.delete_requests.load(SeqCst);
        let deletion_is_on = async {
            while stores.contents.delete_requests.load(SeqCst) == before {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        };
        tokio::select! {
            report = cleaner.run(CleanOptions::default()) => {
                let report = report.unwrap();
                assert!(report.first_error.is_some() && report.intents.done == 0, "{deletions:?}: {report:?}");
            }
            () = deletion_is_on => {}
        }
        stores.contents.set(Deletions::Done);
        // Their intents are gone, and what was condemned is remembered until it is gone, too.
        assert_eq!(stores.metadata.list_condemned(None, 1000).await.unwrap().len(), UPLOADS);
        let now = stores.metadata.now().await.unwrap();
        assert!(stores.metadata.list_intents(now, None, 1000).await.unwrap().is_empty());
        // One that was only slow is not acknowledged for an object that goes, and is done again under another name.
        let late = commits.remove(3);
        let (name, condemned) = (format!("abandoned {round} 3"), late.blob.key);
        assert_eq!(stores.metadata.commit_put(late).await.unwrap(), PutCommit::IntentLost);
        stores.put(&name, 1, name.as_bytes()).await;
        let report = stores.clean(limits).await;
        assert_eq!((report.condemned.done, report.intents.planned, report.unused.planned), (UPLOADS as u64, 0, 0));
        assert!(stores.contents.inner.stat(&condemned).await.unwrap().is_none());
        assert_eq!(stores.get(&name).await.unwrap(), name.as_bytes());
        assert_eq!(stores.get("used").await.unwrap(), b"used");
        assert!(stores.metadata.list_condemned(None, 1000).await.unwrap().is_empty());
        assert_eq!(stores.contents.inner_names().await, 2 + round, "nothing is left of the others");
    }
}

const CUTS: [Deletions; 4] = [Deletions::Refused, Deletions::StuckBefore, Deletions::Unanswered, Deletions::Stuck];

#[tokio::test]
async fn a_cut_between_condemning_and_deleting_abandoned_uploads_is_repaired() {
    a_cut_among_abandoned_uploads_is_repaired(Stores::sqlite(), &CUTS).await;
    a_cut_among_abandoned_uploads_is_repaired(Stores::sqlite_and_folder(), &CUTS).await;
}

#[tokio::test]
async fn a_cut_among_abandoned_uploads_is_repaired_on_postgres() {
    a_cut_among_abandoned_uploads_is_repaired(Stores::postgres().await, &CUTS).await;
}

#[tokio::test]
async fn a_cut_between_condemning_deleting_and_forgetting_is_repaired() {
    every_cut_is_repaired_by_the_next_run(Stores::sqlite()).await;
}

#[tokio::test]
async fn a_cut_is_repaired_in_a_folder() {
    every_cut_is_repaired_by_the_next_run(Stores::sqlite_and_folder()).await;
}

#[tokio::test]
async fn a_cut_is_repaired_on_postgres() {
    let stores = Stores::postgres().await;
    stores.fill(20).await;
    for deletions in [Deletions::Refused, Deletions::Unanswered] {
        is_cut_off(&stores, deletions).await;
        for number in 0..20 {
            stores.put(&format!("garbage{number}"), 2, format!("garbage {number}").as_bytes()).await;
            stores.delete(&format!("garbage{number}"), 2).await;
        }
        assert_eq!(stores.clean(at_once()).await.condemned.done, 20);
        stores.fill(20).await;
    }
    stores.assert_used_is_there(20).await;
}
