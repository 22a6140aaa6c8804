//! Uploads, deletions and cleaning without grace at the same time: nothing acknowledged is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use s3dedup_actors::cleaner::{CleanOptions, CleanerLimits};

use crate::support::{Stores, at_once};

const WRITERS: u64 = 6;
const CONTENTS: u64 = 12;

fn content(number: u64) -> Vec<u8> {
    format!("content {number}").into_bytes()
}

/// Writes and deletes names of its own with contents of all; returns what they must hold.
async fn write(stores: Arc<Stores>, writer: u64, rounds: u64) -> Vec<(String, Option<u64>)> {
    let mut state = writer + 1;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    };
    let mut names: Vec<_> = (0..3).map(|name| (format!("{writer}-{name}"), None)).collect();
    for round in 0..rounds {
        let place = (random() % 3) as usize;
        let (name, held) = &mut names[place];
        if random().is_multiple_of(2) {
            let number = random() % CONTENTS;
            stores.put(name, round as i64, &content(number)).await;
            *held = Some(number);
            assert_eq!(
                stores.metadata.lookup(crate::support::key(name)).await.unwrap().unwrap().stamp.seconds(),
                round as i64
            );
        } else {
            stores.delete(name, round as i64).await;
            *held = None;
        }
    }
    names
}

async fn nothing_is_lost(stores: Stores, rounds: u64) {
    let stores = Arc::new(stores);
    let is_over = Arc::new(AtomicBool::new(false));
    let cleaning = {
        let (stores, is_over) = (Arc::clone(&stores), Arc::clone(&is_over));
        tokio::spawn(async move {
            let (mut deleted, mut runs) = (0, 0);
            while !is_over.load(SeqCst) {
                // Now and then uploads that are going on are taken for abandoned, too.
                let intent_age = if runs % 3 == 0 { Duration::ZERO } else { Duration::from_secs(3600) };
                let limits = CleanerLimits { intent_age, batch_size: 3, ..at_once() };
                let report = stores.cleaner(limits).run(CleanOptions::default()).await.expect("nobody else cleans");
                assert!(report.first_error.is_none(), "{report:?}");
                deleted += report.deleted();
                runs += 1;
                tokio::task::yield_now().await;
            }
            deleted
        })
    };
    let writers: Vec<_> = (0..WRITERS).map(|writer| tokio::spawn(write(Arc::clone(&stores), writer, rounds))).collect();
    let mut names = Vec::new();
    for writer in writers {
        names.extend(writer.await.unwrap());
    }
    is_over.store(true, SeqCst);
    let deleted = cleaning.await.unwrap();
    assert!(deleted >= 10, "cleaning took part: {deleted}");
    for clean in [false, true] {
        if clean {
            let limits = CleanerLimits { intent_age: Duration::ZERO, ..at_once() };
            let options = CleanOptions { full_scan: true, delete_orphans: true, dry_run: false };
            let any = stores.metadata.totals().await.unwrap().contents > 0;
            let scan = stores.clean_with(limits, CleanOptions { delete_orphans: any, ..options }).await.scan.unwrap();
            assert!(scan.is_whole(), "{scan:?}");
        }
        for (name, held) in &names {
            assert_eq!(stores.get(name).await, held.map(content), "{name}");
        }
    }
    let held: std::collections::BTreeSet<_> = names.iter().filter_map(|(_, held)| *held).collect();
    assert_eq!(stores.contents.inner_names().await, held.len(), "and nothing else is left");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_acknowledged_is_lost_on_sqlite() {
    nothing_is_lost(Stores::sqlite(), 400).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_acknowledged_is_lost_in_a_folder() {
    nothing_is_lost(Stores::sqlite_and_folder(), 200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_acknowledged_is_lost_on_postgres() {
    nothing_is_lost(Stores::postgres().await, 200).await;
}
