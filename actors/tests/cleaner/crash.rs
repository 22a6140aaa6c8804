//! Runs that are cut off between their steps.

use std::time::Duration;

use s3dedup_actors::cleaner::CleanOptions;

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
