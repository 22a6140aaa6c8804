//! What only the store in PostgreSQL has to do: take turns with others, and bear what a server does.
#![allow(missing_docs, reason = "a test")]
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot be set up fails")]

use std::time::{Duration, Instant};

use s3dedup_actors::model::{EntryKey, Kind, Namespace, Stamp};
use s3dedup_actors::store::instances::{Instance, InstanceRegistry};
use s3dedup_actors::store::meta::{DeleteOutcome, MetaStore, PostgresStore, UnusedPage};
use s3dedup_actors::store::postgres::{PostgresSettings, TlsMode};
use s3dedup_actors::testkit::postgres::{DATABASE, PASSWORD, PostgresServer};

/// A client is to get its refusal within five seconds.
const REFUSAL_MAX: Duration = Duration::from_secs(5);

async fn open(server: &PostgresServer) -> PostgresStore {
    PostgresStore::open(&server.access(), 4, 16).await.expect("a database")
}

async fn refusal(settings: &PostgresSettings) -> String {
    let error = PostgresStore::open(settings, 4, 16).await.err().expect("a refusal");
    let text = format!("{error:?}");
    assert!(!text.contains(PASSWORD), "the password is in an error");
    text
}

fn key(name: &str) -> EntryKey {
    EntryKey::parse(Namespace::FILETRACKER, name.as_bytes()).expect("a name")
}

#[tokio::test]
async fn instances_that_start_at_once_migrate_once() {
    let server = PostgresServer::start();
    let opened = futures_util::future::join_all((0..8).map(|_| open(&server))).await;
    for store in &opened {
        store.probe().await.unwrap();
    }
    assert_eq!(server.sql("SELECT count(*), max(version) FROM s3dedup.schema_versions"), "1|13");
    assert_eq!(server.sql("SELECT count(*) FROM s3dedup.totals"), "64");
}

#[tokio::test]
async fn a_newer_schema_and_another_encoding_are_refused() {
    let server = PostgresServer::start();
    drop(open(&server).await);
    server.sql("INSERT INTO s3dedup.schema_versions VALUES (999, now())");
    assert!(refusal(&server.access()).await.contains("use a newer program"));
    server.sql("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0");
    let latin = PostgresSettings { database: "latin".into(), ..server.access() };
    assert!(refusal(&latin).await.contains("has encoding LATIN1"));
    assert_eq!(server.sql_in("latin", "SELECT to_regnamespace('s3dedup') IS NULL"), "t");
}

#[tokio::test]
async fn a_wrong_password_or_database_is_named() {
    let server = PostgresServer::start();
    let wrong = PostgresSettings { password: Some("wrong".into()), ..server.access() };
    assert!(refusal(&wrong).await.contains("password authentication failed"));
    let wrong = PostgresSettings { database: "nowhere".into(), ..server.access() };
    assert!(refusal(&wrong).await.contains("\"nowhere\" does not exist"));
}

#[tokio::test]
async fn a_role_that_may_only_use_the_tables_is_enough_afterwards() {
    let server = PostgresServer::start();
    drop(open(&server).await);
    server.sql(
        "CREATE ROLE clerk LOGIN PASSWORD 'clerk'; GRANT USAGE ON SCHEMA s3dedup TO clerk;
        GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA s3dedup TO clerk;
        GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA s3dedup TO clerk",
    );
    let settings = PostgresSettings { user: "clerk".into(), password: Some("clerk".into()), ..server.access() };
    let store = PostgresStore::open(&settings, 4, 16).await.unwrap();
    assert_eq!(store.delete(key("a"), Stamp::from_seconds(1)).await.unwrap(), DeleteOutcome::Absent);
}

#[tokio::test]
async fn defaults_of_the_server_that_would_break_transactions_are_overruled_or_refused() {
    let server = PostgresServer::start();
    let store = open(&server).await;
    server.sql(&format!("ALTER DATABASE {DATABASE} SET default_transaction_isolation = 'repeatable read'"));
    server.sql(&format!("ALTER DATABASE {DATABASE} SET statement_timeout = '1ms'"));
    assert_eq!(open(&server).await.delete(key("a"), Stamp::from_seconds(1)).await.unwrap(), DeleteOutcome::Absent);
    server.sql(&format!("ALTER DATABASE {DATABASE} RESET statement_timeout"));
    // Nothing can be set for a session behind a proxy.
    let behind = PostgresSettings { is_pooled: true, ..server.access() };
    let behind = PostgresStore::open(&behind, 4, 16).await.unwrap();
    let error = behind.delete(key("a"), Stamp::from_seconds(1)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.context().contains("default_transaction_isolation must be read committed"), "{error}");
    drop(store);
}

#[tokio::test]
async fn a_write_that_comes_too_late_is_not_carried_out() {
    let server = PostgresServer::start();
    drop(open(&server).await);
    server.sql(
        "INSERT INTO s3dedup.contents VALUES (decode(repeat('ab', 32), 'hex'), 1, NULL);
        INSERT INTO s3dedup.entries VALUES (1, 'a', '', '', 5, decode(repeat('ab', 32), 'hex'))",
    );
    let delete = |valid: &str| {
        format!(
            "DO $$ BEGIN PERFORM s3dedup.delete_entry(now() {valid} interval '1 second', 1, 'a', '', 9);
            RAISE NOTICE 'done'; EXCEPTION WHEN SQLSTATE 'S3D01' THEN NULL; END $$;
            SELECT count(*) FROM s3dedup.entries"
        )
    };
    assert_eq!(server.sql(&delete("-")), "1");
    assert_eq!(server.sql(&delete("+")), "0");
}

#[tokio::test]
async fn a_restart_of_the_server_is_refused_in_time_and_passes() {
    let mut server = PostgresServer::start();
    let store = open(&server).await;
    assert_eq!(store.lookup(key("a")).await.unwrap(), None);
    for crash in [false, true] {
        if crash {
            server.crash();
        } else {
            server.stop();
        }
        let begun = Instant::now();
        let refused = futures_util::future::join3(
            store.lookup(key("a")),
            store.delete(key("a"), Stamp::from_seconds(1)),
            store.totals(),
        );
        let refused = refused.await;
        assert_eq!(refused.0.unwrap_err().kind(), Kind::Unavailable);
        assert_eq!(refused.1.unwrap_err().kind(), Kind::Unavailable);
        assert_eq!(refused.2.unwrap_err().kind(), Kind::Unavailable);
        assert!(begun.elapsed() < REFUSAL_MAX);
        server.start_again();
        let deadline = Instant::now() + Duration::from_secs(10);
        while let Err(error) = store.delete(key("a"), Stamp::from_seconds(1)).await {
            assert!(Instant::now() < deadline, "{error:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test]
async fn sessions_that_were_cut_off_are_not_noticed_by_callers() {
    let server = PostgresServer::start();
    let store = open(&server).await;
    for _ in 0..5 {
        store.totals().await.unwrap();
        server.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 's3dedup-test'");
        assert_eq!(store.lookup(key("a")).await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_thread_that_is_kept_does_not_keep_the_connections_it_opened() {
    let server = PostgresServer::start();
    let store = std::sync::Arc::new(open(&server).await);
    let (opened, all_opened) = tokio::sync::oneshot::channel();
    let (release, gate) = std::sync::mpsc::channel::<()>();
    let theirs = std::sync::Arc::clone(&store);
    let kept = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            futures_util::future::join_all((0..4).map(|_| theirs.totals())).await;
            opened.send(()).unwrap();
            // Keeps the thread.
            let _ = gate.recv();
        });
    });
    all_opened.await.unwrap();
    assert!(store.connections().is_some_and(|it| it.open > 1), "{:?}", store.connections());
    for _ in 0..20 {
        store.lookup(key("a")).await.unwrap();
    }
    drop(release);
    kept.join().unwrap();
}

#[tokio::test]
async fn a_dry_run_lists_what_is_unused_and_writes_nothing() {
    let server = PostgresServer::start();
    let store = open(&server).await;
    // Most of what looks unused has a name.
    server.sql(
        "INSERT INTO s3dedup.contents SELECT sha256(n::text::bytea), 1, 1 + n % 7 FROM generate_series(1, 5000) n;
        INSERT INTO s3dedup.representations
            SELECT digest, 'whole', 0, 2, 'gzip', 1, digest FROM s3dedup.contents;
        INSERT INTO s3dedup.entries SELECT 1, n::text, '', '', 5, sha256(n::text::bytea) FROM generate_series(1, 4500) n",
    );
    let listed = async |settle| {
        let (mut count, mut after) = (0, None);
        loop {
            let page = UnusedPage { unused_since: Stamp::from_seconds(100), after, rows: 64, settle };
            let page = store.list_unused(page).await.unwrap();
            let Some(last) = page.last() else { return count };
            after = Some((last.unused_since, last.digest));
            count += page.len();
        }
    };
    let marked = || server.sql("SELECT count(*) FROM s3dedup.contents WHERE unused_since IS NOT NULL");
    assert_eq!((listed(false).await, marked()), (500, "5000".to_owned()));
    assert_eq!((listed(true).await, marked()), (500, "500".to_owned()));
}

#[tokio::test]
async fn a_row_that_somebody_else_keeps_locked_is_given_up_in_time() {
    let server = PostgresServer::start();
    let store = open(&server).await;
    server.sql(
        "INSERT INTO s3dedup.contents VALUES (decode(repeat('ab', 32), 'hex'), 1, NULL);
        INSERT INTO s3dedup.entries VALUES (1, 'a', '', '', 5, decode(repeat('ab', 32), 'hex'))",
    );
    std::thread::scope(|scope| {
        scope.spawn(|| server.sql("BEGIN; SELECT FROM s3dedup.entries FOR UPDATE; SELECT pg_sleep(8); COMMIT"));
        std::thread::sleep(Duration::from_millis(500));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        scope.spawn(move || {
            runtime.block_on(async {
                let begun = Instant::now();
                let store = store;
                let refused = store.delete(key("a"), Stamp::from_seconds(9)).await.unwrap_err();
                assert_eq!(refused.kind(), Kind::Overloaded, "the database itself is well: {refused:?}");
                assert!(begun.elapsed() < REFUSAL_MAX);
                // A read is not in the way of it.
                store.totals().await.unwrap();
            });
        });
    });
}

#[tokio::test]
async fn more_operations_than_may_wait_are_refused_at_once() {
    let server = PostgresServer::start();
    let store = PostgresStore::open(&server.access(), 1, 3).await.unwrap();
    let all = futures_util::future::join_all((0..50).map(|_| store.lookup(key("a")))).await;
    let refused: Vec<_> = all.iter().filter_map(|answer| answer.as_ref().err()).collect();
    assert_eq!(refused.len(), 50 - 4);
    assert!(refused.iter().all(|error| error.kind() == Kind::Overloaded));
    store.lookup(key("a")).await.unwrap();
}

#[tokio::test]
async fn instances_know_of_each_other() {
    let server = PostgresServer::start();
    let store = open(&server).await;
    let me = |id: &str| Instance {
        id: id.into(),
        address: "here:1".into(),
        version: "1".into(),
        contents: "s3 bucket x".into(),
        locks: "memory".into(),
    };
    assert!(store.beat(&me("a"), 1).await.unwrap().live.is_empty());
    let peers = store.beat(&me("b"), 2).await.unwrap();
    assert_eq!((peers.live.len(), peers.live[0].instance.id.as_str(), peers.is_name_taken), (1, "a", false));
    // It is started again, under the same name.
    assert!(!store.beat(&me("b"), 3).await.unwrap().is_name_taken);
    assert!(!store.beat(&me("b"), 3).await.unwrap().is_name_taken);
    // The old one lives after all.
    assert!(store.beat(&me("b"), 2).await.unwrap().is_name_taken);
    assert!(store.beat(&me("b"), 3).await.unwrap().is_name_taken);
    store.leave("b", 2).await.unwrap();
    let ids = async || -> Vec<_> {
        store.instances().await.unwrap().into_iter().map(|known| (known.instance.id.clone(), known.is_live())).collect()
    };
    assert_eq!(ids().await, [("a".to_owned(), true), ("b".to_owned(), true)]);
    store.leave("b", 3).await.unwrap();
    server.sql("UPDATE s3dedup.instances SET seen_at = seen_at - interval '1 minute'");
    assert_eq!(ids().await, [("a".to_owned(), false)]);
    assert_eq!(store.tie_to_contents("s3 bucket x").await.unwrap(), "s3 bucket x");
    assert_eq!(store.tie_to_contents("s3 bucket y").await.unwrap(), "s3 bucket x");
}

/// A certificate for `name` and its key, both PEM.
fn certificate(name: &str) -> (String, String) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
    (made.cert.pem(), made.signing_key.serialize_pem())
}

#[tokio::test]
async fn tls_is_used_and_checked_as_the_mode_says() {
    let (cert, key) = certificate("localhost");
    let server = PostgresServer::start_with_tls(&cert, &key);
    let folder = tempfile::tempdir().unwrap();
    let [right, wrong, empty] = ["right", "wrong", "empty"].map(|name| folder.path().join(name));
    std::fs::write(&right, &cert).unwrap();
    std::fs::write(&wrong, certificate("localhost").0).unwrap();
    std::fs::write(&empty, "").unwrap();
    let access = |tls, host: &str, roots: Option<&std::path::PathBuf>| PostgresSettings {
        tls,
        host: host.into(),
        root_certificates: roots.cloned(),
        ..server.access()
    };
    let is_encrypted = async |settings: PostgresSettings| {
        let store = PostgresStore::open(&settings, 1, 1).await.map_err(|error| format!("{error:?}"))?;
        store.probe().await.unwrap();
        let count = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
            WHERE ssl AND application_name = 's3dedup-test'";
        let is_encrypted = server.sql(count) != "0";
        drop(store);
        // The sessions are to be gone before the next count.
        while server.sql("SELECT count(*) FROM pg_stat_activity WHERE application_name = 's3dedup-test'") != "0" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok::<_, String>(is_encrypted)
    };
    assert_eq!(is_encrypted(access(TlsMode::Disable, "127.0.0.1", None)).await, Ok(false));
    assert_eq!(is_encrypted(access(TlsMode::Prefer, "127.0.0.1", None)).await, Ok(true));
    assert_eq!(is_encrypted(access(TlsMode::Require, "127.0.0.1", None)).await, Ok(true));
    assert_eq!(is_encrypted(access(TlsMode::Require, "127.0.0.1", Some(&right))).await, Ok(true));
    assert_eq!(is_encrypted(access(TlsMode::VerifyFull, "localhost", Some(&right))).await, Ok(true));
    for (mode, host, roots) in [
        (TlsMode::Require, "127.0.0.1", Some(&wrong)),
        (TlsMode::VerifyFull, "127.0.0.1", Some(&right)),
        (TlsMode::VerifyFull, "localhost", Some(&wrong)),
        (TlsMode::VerifyFull, "localhost", None),
    ] {
        let refused = is_encrypted(access(mode, host, roots)).await.unwrap_err();
        assert!(refused.contains("certificate"), "{mode:?} {host}: {refused}");
    }
    let refused = is_encrypted(access(TlsMode::Require, "localhost", Some(&empty))).await.unwrap_err();
    assert!(refused.contains("there is none in it"), "{refused}");
}

#[tokio::test]
async fn tls_is_required_or_only_preferred_of_a_server_without_it() {
    let server = PostgresServer::start();
    let access = |tls| PostgresSettings { tls, ..server.access() };
    PostgresStore::open(&access(TlsMode::Prefer), 1, 1).await.unwrap();
    for mode in [TlsMode::Require, TlsMode::VerifyFull] {
        assert!(refusal(&access(mode)).await.contains("TLS"), "{mode:?}");
    }
}
