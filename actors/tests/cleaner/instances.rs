//! Several cleaners on one database, and the one that runs by itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use s3dedup_actors::cleaner::{CleanOptions, Cleaner, CleanerLimits, CleanerStats};
use s3dedup_actors::model::KeyLayout;
use s3dedup_actors::store::meta::{PostgresStore, PutCommit};
use s3dedup_actors::{CleanerSettings, Engine, EngineSettings, EngineTree, SpoolLimits};

use crate::support::{Deletions, Stores, at_once};

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn engine(
    stores: &Stores,
    instance: &str,
    metadata: Arc<dyn s3dedup_actors::store::meta::MetaStore>,
) -> (Engine, EngineTree) {
    let settings = EngineSettings {
        instance: instance.into(),
        layout: KeyLayout::new(2),
        spool: SpoolLimits {
            memory_bytes_max: 1 << 20,
            temp_dir: stores.dir.path().to_owned(),
            files_are_kept: false,
            logical_bytes_max: 64 << 20,
            compression_level: 6,
        },
        spool_memory_bytes_max: 16 << 20,
        cache_bytes: 0,
        request_slots_max: 64,
        metadata_actors: 1,
        uploaders: 2,
        upload_backlog_max: 64,
        compute_threads: 1,
        upload_time_min: s3dedup_actors::UPLOAD_TIME_MIN,
        stuck_after: std::time::Duration::from_secs(30),
        distributed_locks: None,
        cleaner: Some(CleanerSettings { interval: Duration::from_millis(200), full_scan: None, limits: at_once() }),
    };
    let on_fatal = Box::new(|why| panic!("{why}"));
    Engine::start(settings, metadata, Arc::clone(&stores.contents) as _, on_fatal).expect("an engine")
}

#[tokio::test]
async fn a_run_keeps_others_out_until_it_ends() {
    let stores = Stores::postgres().await;
    stores.fill(5).await;
    let other = PostgresStore::open(&stores.postgres.as_ref().unwrap().access(), 2, 64).await.unwrap();
    let other = Cleaner::new(Arc::new(other), Arc::clone(&stores.contents) as _, at_once(), "other".into());
    stores.contents.set(Deletions::StuckBefore);
    let cleaner = stores.cleaner(at_once());
    let run = cleaner.run(CleanOptions::default());
    let stuck = tokio::time::timeout(Duration::from_millis(500), run);
    let refused = async {
        tokio::time::sleep(Duration::from_millis(250)).await;
        other.run(CleanOptions::default()).await.is_none()
    };
    let (stuck, refused) = tokio::join!(stuck, refused);
    assert!(stuck.is_err() && refused);
    // The one that was cut off may go on at once; when it is done, so may the others.
    stores.contents.set(Deletions::Done);
    assert_eq!(stores.clean(at_once()).await.condemned.done, 5);
    assert!(other.run(CleanOptions::default()).await.is_some());
}

#[tokio::test]
async fn a_run_that_takes_long_keeps_its_turn_and_one_that_was_cut_off_soon_loses_it() {
    let stores = Stores::postgres().await;
    stores.fill(5).await;
    let other = PostgresStore::open(&stores.postgres.as_ref().unwrap().access(), 2, 64).await.unwrap();
    let other = Cleaner::new(Arc::new(other), Arc::clone(&stores.contents) as _, at_once(), "other".into());
    stores.contents.set(Deletions::StuckBefore);
    let cleaner = stores.cleaner(at_once());
    let refused = async {
        // Longer than a turn lasts unless it is kept.
        for _ in 0..18 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert!(other.run(CleanOptions::default()).await.is_none());
        }
    };
    tokio::select! {
        ended = cleaner.run(CleanOptions::default()) => panic!("{ended:?}"),
        () = refused => {}
    }
    stores.contents.set(Deletions::Done);
    let begun = Instant::now();
    let report = loop {
        match other.run(CleanOptions::default()).await {
            Some(report) => break report,
            None => assert!(begun.elapsed() < Duration::from_secs(60), "it is kept out for ever"),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    assert_eq!(report.condemned.done, 5, "{report:?}");
}

#[tokio::test]
async fn ages_are_told_by_the_clock_of_the_database() {
    let stores = Stores::postgres().await;
    // Two hours behind ours: by our clock everything were old.
    stores.postgres.as_ref().unwrap().sql(
        "CREATE OR REPLACE FUNCTION s3dedup.seconds_now() RETURNS BIGINT LANGUAGE sql AS
            'SELECT floor(extract(epoch FROM clock_timestamp()))::bigint - 7200'",
    );
    stores.fill(3).await;
    let limits = CleanerLimits { intent_age: Duration::from_secs(3600), ..CleanerLimits::default() };
    let upload = stores.upload("going on", 1, b"going on").await.unwrap();
    assert_eq!(stores.clean(limits).await.planned(), 0);
    assert_eq!(stores.metadata.commit_put(upload).await.unwrap(), PutCommit::Committed);
    assert_eq!(stores.clean(at_once()).await.unused.done, 3);
}

#[actix_rt::test]
async fn one_instance_cleans_and_another_one_follows() {
    let stores = Stores::postgres().await;
    let other = PostgresStore::open(&stores.postgres.as_ref().unwrap().access(), 4, 64).await.unwrap();
    let first = engine(&stores, "a", Arc::clone(&stores.metadata));
    let second = engine(&stores, "b", Arc::new(other));
    let stats = [first.0.cleaner_stats().clone(), second.0.cleaner_stats().clone()];
    stores.fill(10).await;
    let deleted = |stats: &[CleanerStats; 2]| stats[0].deleted() + stats[1].deleted();
    until("garbage is gone", || deleted(&stats) == 10).await;
    stores.assert_used_is_there(10).await;
    let leads = |stats: &CleanerStats| stats.is_leader();
    assert_eq!(stats.iter().filter(|stats| leads(stats)).count(), 1);
    let (leader, follower) = if leads(&stats[0]) { (first, second) } else { (second, first) };
    let follower_stats = follower.0.cleaner_stats().clone();
    assert_eq!(follower_stats.runs(), 0);
    leader.1.stop(Duration::from_secs(5)).await;
    until("another one leads", || follower_stats.is_leader() && follower_stats.runs() > 0).await;
    follower.1.stop(Duration::from_secs(5)).await;
}

#[actix_rt::test]
async fn the_cleaner_survives_a_store_that_is_away_and_ends_with_the_engine() {
    let stores = Stores::sqlite();
    stores.fill(10).await;
    stores.contents.set(Deletions::Down);
    let (engine, tree) = engine(&stores, "a", Arc::clone(&stores.metadata));
    let stats = engine.cleaner_stats().clone();
    until("runs fail", || stats.errors() > 1).await;
    assert_eq!(stats.deleted(), 0);
    stores.contents.set(Deletions::Done);
    until("garbage is gone", || stats.deleted() == 10 && !stats.is_running()).await;
    assert!(stats.last_run().is_some() && stats.freed_bytes() > 0);
    drop(engine);
    let begun = Instant::now();
    assert!(tree.stop(Duration::from_secs(5)).await);
    assert!(begun.elapsed() < Duration::from_secs(3));
    let runs = stats.runs();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(stats.runs(), runs);
}
