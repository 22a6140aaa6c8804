//! The full scan.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering::SeqCst;

use s3dedup_actors::cleaner::{CleanOptions, CleanerLimits, ScanReport};
use s3dedup_actors::model::{BlobKey, KeyLayout, Kind, Recipe};
use s3dedup_actors::store::blob::BlobStore;

use crate::support::{Stores, at_once, key};

const SCAN: CleanOptions = CleanOptions { dry_run: false, full_scan: true, delete_orphans: false };
const DELETE: CleanOptions = CleanOptions { dry_run: false, full_scan: true, delete_orphans: true };
const DRY_DELETE: CleanOptions = CleanOptions { dry_run: true, full_scan: true, delete_orphans: true };

async fn blob_key(stores: &Stores, name: &str) -> BlobKey {
    let Recipe::Whole(blob) = stores.metadata.lookup(key(name)).await.unwrap().unwrap().recipe else { panic!() };
    blob.key
}

async fn scan(stores: &Stores) -> ScanReport {
    stores.clean_with(CleanerLimits::default(), SCAN).await.scan.unwrap()
}

#[tokio::test]
async fn made_up_names_are_strangers() {
    for stores in [Stores::sqlite(), Stores::postgres().await] {
        stores.fill(3).await;
        let hex = "ab".repeat(32);
        for number in ["9999999999999999999", "9223372036854775806", "1099511627777"] {
            stores.memory.insert_raw(&format!("{hex}.{number}"), b"x");
        }
        let run = stores.clean_with(CleanerLimits::default(), DELETE).await;
        let found = run.scan.unwrap();
        assert_eq!((found.strangers.count, found.orphans.count, found.is_whole()), (3, 0, true));
        stores.put("new", 1, b"new").await;
        assert!(blob_key(&stores, "new").await.generation < 1000);
    }
}

async fn what_differs_is_found(stores: Stores) {
    stores.fill(20).await;
    let upload = stores.upload("going on", 1, b"going on").await.unwrap();
    let whole = scan(&stores).await;
    assert!(whole.is_whole());
    assert_eq!((whole.objects, whole.contents, whole.orphans.count), (41, 40, 0));
    assert_eq!(stores.contents.stats.load(SeqCst), 0, "one layout is compared by the listings alone");

    let (lost, cut) = (blob_key(&stores, "used3").await, blob_key(&stores, "used4").await);
    stores.memory.delete(&[lost]).await.unwrap();
    stores.memory.insert_raw(&cut.to_string(), b"x");
    stores.memory.insert_raw("README.txt", b"somebody's");
    let whole = blob_key(&stores, "used5").await;
    let orphan = BlobKey { generation: 3, ..whole };
    stores.memory.insert_raw(&orphan.to_string(), b"12345");
    let flat = BlobKey { layout: KeyLayout::new(0), generation: 9, ..whole };
    stores.memory.insert_raw(&flat.to_string(), b"1");
    let found = scan(&stores).await;
    assert_eq!(found.missing.first, [lost.to_string()]);
    assert_eq!(found.wrong_size.first, [cut.to_string()]);
    assert_eq!(found.strangers.first, ["README.txt"]);
    assert_eq!((found.orphans.count, found.orphans.bytes, found.orphans_deleted.planned), (2, 6, 0));
    assert!(!found.is_whole());

    // They go only when asked for, and nothing else does.
    let dry = stores.clean_with(CleanerLimits::default(), DRY_DELETE).await;
    let run = stores.clean_with(CleanerLimits::default(), DELETE).await;
    assert_eq!((dry.plan(), run.deleted()), (run.plan(), 2));
    let contents = stores.metadata.survey(Vec::new(), 100).await.unwrap().contents;
    let noted: BTreeSet<_> =
        contents.iter().filter(|content| content.is_suspect).map(|content| content.digest).collect();
    assert_eq!(noted, BTreeSet::from([lost.digest, cut.digest]), "the next uploads bring them back");
    let after = scan(&stores).await;
    assert_eq!((after.orphans.count, after.strangers.count, after.objects), (0, 1, 40));
    assert!(matches!(stores.metadata.commit_put(upload).await, Ok(s3dedup_actors::store::meta::PutCommit::Committed)));
    assert_eq!(stores.get("going on").await.unwrap(), b"going on");
    // The names of orphans are spent.
    stores.delete("used3", 1).await;
    stores.clean(at_once()).await;
    stores.put("used3", 1, b"used 3").await;
    assert!(blob_key(&stores, "used3").await.generation > 9);
}

async fn what_a_repair_may_need_is_no_garbage(stores: Stores) {
    stores.fill(6).await;
    let [lost, cut, whole] =
        [blob_key(&stores, "used1").await, blob_key(&stores, "used2").await, blob_key(&stores, "used3").await];
    stores.memory.delete(&[lost]).await.unwrap();
    stores.memory.insert_raw(&cut.to_string(), b"x");
    for key in [lost, cut, whole] {
        stores.memory.insert_raw(&BlobKey { generation: 7, ..key }.to_string(), b"perhaps all that is left");
    }
    let dry = stores.clean_with(CleanerLimits::default(), DRY_DELETE).await;
    let run = stores.clean_with(CleanerLimits::default(), DELETE).await;
    assert_eq!((dry.plan(), run.deleted(), run.is_partial), (run.plan(), 1, false));
    let scan = run.scan.unwrap();
    assert_eq!((scan.orphans.count, scan.orphans_kept.count), (3, 2));
    let mut kept = [lost, cut].map(|key| BlobKey { generation: 7, ..key }.to_string());
    kept.sort();
    assert_eq!(scan.orphans_kept.first, kept);
    assert!(kept.iter().all(|name| stores.memory.names().contains(name)));
}

#[tokio::test]
async fn an_orphan_of_a_content_that_lacks_its_own_object_stays() {
    what_a_repair_may_need_is_no_garbage(Stores::sqlite()).await;
    what_a_repair_may_need_is_no_garbage(Stores::postgres().await).await;
}

#[tokio::test]
async fn what_differs_is_found_on_sqlite() {
    what_differs_is_found(Stores::sqlite()).await;
}

#[tokio::test]
async fn what_differs_is_found_on_postgres() {
    what_differs_is_found(Stores::postgres().await).await;
}

#[tokio::test]
async fn layouts_may_be_mixed() {
    let mut stores = Stores::sqlite();
    for (depth, from) in [(2, 0), (0, 100), (1, 200), (2, 300)] {
        stores.layout = KeyLayout::new(depth);
        for number in from..from + 60 {
            stores.put(&format!("n{number}"), 1, format!("content {number}").as_bytes()).await;
        }
    }
    let found = scan(&stores).await;
    assert!(found.is_whole(), "{found:?}");
    assert_eq!((found.objects, found.contents, found.orphans.count), (240, 240, 0));
    let lost = blob_key(&stores, "n110").await;
    stores.memory.delete(&[lost]).await.unwrap();
    assert_eq!(scan(&stores).await.missing.first, [lost.to_string()]);
}

#[tokio::test]
async fn pages_of_a_large_store_fit_together() {
    let stores = Stores::sqlite();
    stores.fill(600).await;
    let found = scan(&stores).await;
    assert_eq!((found.objects, found.contents, found.missing.count, found.orphans.count), (1200, 1200, 0, 0));
    assert_eq!(stores.contents.stats.load(SeqCst), 0);
}

#[tokio::test]
async fn orphans_stay_when_the_database_knows_nothing_and_within_the_limit() {
    let stores = Stores::sqlite();
    for number in 0..5_u8 {
        stores.memory.insert_raw(&hex(number), b"x");
    }
    let report = stores.cleaner(at_once()).run(DELETE).await.unwrap();
    assert_eq!(report.first_error.unwrap().kind(), Kind::Invalid);
    assert_eq!(stores.memory.names().len(), 5);
    stores.put("used", 1, b"used").await;
    let report = stores.clean_with(CleanerLimits { deletes_max: 2, ..at_once() }, DELETE).await;
    assert_eq!((report.deleted(), report.is_partial), (2, true));
    assert_eq!(stores.memory.names().len(), 4);
}

fn hex(number: u8) -> String {
    format!("{number:02x}").repeat(32)
}

/// One row that cannot be read hides nothing else, and takes nothing away that a repair may need.
async fn rows_that_cannot_be_read_are_told_and_passed_over(stores: Stores) {
    stores.fill(5).await;
    let (bad, lost) = (blob_key(&stores, "used1").await, blob_key(&stores, "used2").await);
    let garbage = stores.memory.names().len();
    stores.spoil(
        "UPDATE @representations SET encoding = 'rot13' WHERE digest IN
        (SELECT digest FROM @entries WHERE name = 'used1')",
    );
    stores.memory.delete(&[lost]).await.unwrap();
    let another = BlobKey { generation: 3, ..bad };
    stores.memory.insert_raw(&another.to_string(), b"what a repair may need");
    let run = stores.clean_with(CleanerLimits::default(), DELETE).await;
    let found = run.scan.unwrap();
    assert!(!found.is_whole());
    assert_eq!((found.unreadable.count, found.contents, found.objects), (1, 9, garbage as u64));
    assert!(found.unreadable.first[0].contains(&bad.digest.to_string()), "{:?}", found.unreadable);
    assert_eq!(found.missing.first, [lost.to_string()], "what is behind it is compared");
    assert_eq!(found.orphans_kept.first, [another.to_string()]);
    assert_eq!(found.orphans_deleted.done, 0);
    // Cleaning goes on, too.
    assert_eq!(stores.clean(at_once()).await.deleted(), 5);
    let names = stores.memory.names();
    assert!(names.contains(&bad.to_string()) && names.contains(&another.to_string()), "{names:?}");
}

#[tokio::test]
async fn rows_that_cannot_be_read_are_told_and_passed_over_on_sqlite() {
    rows_that_cannot_be_read_are_told_and_passed_over(Stores::sqlite()).await;
}

#[tokio::test]
async fn rows_that_cannot_be_read_are_told_and_passed_over_on_postgres() {
    rows_that_cannot_be_read_are_told_and_passed_over(Stores::postgres().await).await;
}

/// Names or a row without an object of their own: whatever object there is may be the last one.
async fn an_orphan_that_may_be_the_last_of_a_content_stays(stores: Stores) {
    stores.fill(4).await;
    let mut kept = Vec::new();
    for (name, sql) in [
        ("used1", "DELETE FROM @representations WHERE digest IN (SELECT digest FROM @entries WHERE name = 'used1')"),
        (
            "used2",
            "DELETE FROM @contents WHERE digest IN (SELECT digest FROM @entries WHERE name = 'used2');
            DELETE FROM @representations WHERE digest IN (SELECT digest FROM @entries WHERE name = 'used2')",
        ),
    ] {
        kept.push(blob_key(&stores, name).await.to_string());
        stores.spoil(sql);
    }
    let damaged = blob_key(&stores, "used3").await;
    stores.metadata.note_damaged(damaged).await.unwrap();
    let spare = BlobKey { generation: 5, ..damaged };
    stores.memory.insert_raw(&spare.to_string(), b"perhaps it is whole");
    kept.push(spare.to_string());
    let run = stores.clean_with(CleanerLimits::default(), DELETE).await;
    assert_eq!(run.scan.unwrap().orphans_deleted.done, 0);
    let names = stores.memory.names();
    assert!(kept.iter().all(|name| names.contains(name)), "{kept:?} {names:?}");
}

#[tokio::test]
async fn an_orphan_that_may_be_the_last_of_a_content_stays_on_both_databases() {
    for stores in [Stores::sqlite(), Stores::postgres().await] {
        an_orphan_that_may_be_the_last_of_a_content_stays(stores).await;
    }
}
