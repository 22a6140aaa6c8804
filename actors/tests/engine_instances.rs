//! Several engines on the same stores, as instances are: they share what they upload, and a lost lock
//! session costs nothing but work.
#![allow(missing_docs, reason = "a test")]
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot be set up fails")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use s3dedup_actors::model::{EntryKey, KeyLayout, Kind, Namespace, Result, Stamp};
use s3dedup_actors::store::blob::MemoryStore;
use s3dedup_actors::store::meta::{SqliteSettings, SqliteStore};
use s3dedup_actors::testkit::faulty::{Fault, Faults, FaultyBlobs};
use s3dedup_actors::testkit::postgres::PostgresServer;
use s3dedup_actors::{
    BodyEncoding, DistributedLockSettings, Engine, EngineSettings, EngineTree, PutOutcome, SpoolLimits,
};

struct Instances {
    engines: Vec<(Engine, EngineTree)>,
    faults: Faults,
    _folder: tempfile::TempDir,
}

impl Instances {
    fn start(server: &PostgresServer, count: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let sqlite = SqliteSettings { path: folder.path().join("kv.db"), connections: 3, backlog: 256 };
        let metadata = Arc::new(SqliteStore::open(&sqlite).unwrap());
        let faults = Faults::default();
        let contents = Arc::new(FaultyBlobs { inner: Arc::new(MemoryStore::new()), faults: faults.clone() });
        let start = |number| {
            let settings = EngineSettings {
                instance: format!("test-{number}"),
                layout: KeyLayout::new(2),
                spool: SpoolLimits {
                    memory_bytes_max: 1 << 20,
                    temp_dir: folder.path().to_owned(),
                    files_are_kept: false,
                    logical_bytes_max: 64 << 20,
                    compression_level: 1,
                },
                spool_memory_bytes_max: 16 << 20,
                cache_bytes: 0,
                request_slots_max: 64,
                metadata_actors: 1,
                uploaders: 4,
                upload_backlog_max: 64,
                compute_threads: 1,
                upload_time_min: s3dedup_actors::UPLOAD_TIME_MIN,
                stuck_after: Duration::from_secs(30),
                cleaner: None,
                distributed_locks: Some(DistributedLockSettings::new(server.access(), "bucket")),
            };
            let on_fatal = Box::new(|why| panic!("{why}"));
            Engine::start(settings, metadata.clone(), contents.clone(), on_fatal).unwrap()
        };
        Self { engines: (0..count).map(start).collect(), faults, _folder: folder }
    }

    async fn put(&self, instance: usize, name: &str, body: &[u8]) -> Result<PutOutcome> {
        let engine = &self.engines[instance].0;
        let mut spooler = engine.spooler(BodyEncoding::Plain);
        spooler.write(Bytes::copy_from_slice(body)).await.unwrap();
        let key = EntryKey::parse(Namespace::FILETRACKER, name.as_bytes()).unwrap();
        engine.put(key, Stamp::from_seconds(1), spooler.finish().await.unwrap()).await
    }

    async fn stop(self, server: &PostgresServer) {
        for (engine, tree) in self.engines {
            let quiet = async {
                let inside = || {
                    let gauges = engine.gauges();
                    (gauges.requests, gauges.locks, gauges.keys_held, gauges.keys_waiting, gauges.spool_bytes)
                };
                while inside() != (0, 0, 0, 0, 0) {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            let is_quiet = tokio::time::timeout(Duration::from_secs(30), quiet).await.is_ok();
            assert!(is_quiet, "left behind: {:?}", engine.gauges());
            drop(engine);
            assert!(tree.stop(Duration::from_secs(20)).await);
        }
        assert_eq!(server.sql("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"), "0");
    }
}

#[actix_rt::test]
async fn a_new_content_is_uploaded_once_by_all_instances() {
    let server = PostgresServer::start();
    let instances = Instances::start(&server, 3);
    for round in 0..10_u8 {
        let body = vec![round; 20_000];
        let names: Vec<_> = (0..12).map(|number| format!("{round}/{number}")).collect();
        let puts = names.iter().enumerate().map(|(at, name)| instances.put(at % 3, name, &body));
        assert!(join_all(puts).await.into_iter().all(|outcome| outcome.unwrap() == PutOutcome::Stored));
        assert_eq!(instances.faults.puts(), usize::from(round) + 1);
    }
    let totals = instances.engines[0].0.totals().await.unwrap();
    assert_eq!((totals.entries, totals.contents), (120, 10));
    instances.stop(&server).await;
}

#[actix_rt::test]
async fn a_lock_session_lost_amid_uploads_does_no_harm() {
    let server = PostgresServer::start();
    let instances = Instances::start(&server, 2);
    let names: Vec<_> = (0..200).map(|number| format!("file/{number}")).collect();
    let puts = names.iter().enumerate().map(|(at, name)| {
        let (body, instances) = (vec![(at % 50) as u8; 5_000], &instances);
        async move {
            tokio::time::sleep(Duration::from_millis(at as u64 * 3)).await;
            instances.put(at % 2, name, &body).await.unwrap();
        }
    });
    let kill = async {
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_millis(80)).await;
            server
                .sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 's3dedup-test'");
        }
    };
    tokio::join!(join_all(puts), kill);
    let totals = instances.engines[0].0.totals().await.unwrap();
    assert_eq!((totals.entries, totals.contents), (200, 50));
    instances.stop(&server).await;
}

#[actix_rt::test]
async fn who_waited_for_another_instance_that_failed_does_not_try_a_store_that_is_away() {
    let server = PostgresServer::start();
    let instances = Instances::start(&server, 2);
    instances.faults.set(Fault::Late);
    let second = async {
        // The first one has the lock by now.
        while instances.faults.puts() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        instances.put(1, "b", b"new").await
    };
    let (first, second) = tokio::join!(instances.put(0, "a", b"new"), second);
    assert_eq!(first.unwrap_err().kind(), Kind::Unavailable);
    assert_eq!(second.unwrap_err().kind(), Kind::Unavailable);
    assert_eq!(instances.faults.puts(), 1);
    instances.faults.set(Fault::None);
    assert_eq!(instances.put(1, "b", b"new").await.unwrap(), PutOutcome::Stored);
    instances.stop(&server).await;
}

#[actix_rt::test]
async fn without_the_lock_database_new_contents_wait_and_are_refused_while_known_ones_are_served() {
    let mut server = PostgresServer::start();
    let instances = Instances::start(&server, 1);
    instances.put(0, "a", b"known").await.unwrap();
    server.stop();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(instances.put(0, "b", b"known").await.unwrap(), PutOutcome::Stored);
    // All who want the same new content share one refusal.
    let refused = join_all((0..10).map(|_| instances.put(0, "c", b"new"))).await;
    assert!(refused.into_iter().all(|refused| refused.unwrap_err().kind() == Kind::Unavailable));
    assert_eq!(instances.faults.puts(), 1);
    server.start_again();
    let stored = async { while instances.put(0, "c", b"new").await.is_err() {} };
    tokio::time::timeout(Duration::from_secs(60), stored).await.expect("it comes back");
    // A failing store is no reason to keep a key.
    instances.faults.set(Fault::Down);
    instances.put(0, "d", b"newer").await.unwrap_err();
    instances.stop(&server).await;
}
