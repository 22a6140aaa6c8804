//! Every metadata store does what the contract says: the same checks on each.
#![allow(missing_docs, reason = "a test")]
#![allow(clippy::expect_used, reason = "a test that cannot be set up fails")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use s3dedup_actors::store::meta::{PostgresStore, SqliteSettings, SqliteStore};
use s3dedup_actors::store::postgres::PostgresSettings;
use s3dedup_actors::testkit::meta_contract::{self, Spoil, Store};
use s3dedup_actors::testkit::pgbouncer::PgBouncer;
use s3dedup_actors::testkit::postgres::PostgresServer;

fn open_sqlite() -> (Store, Spoil<'static>) {
    let dir = tempfile::tempdir().expect("a folder");
    let settings = SqliteSettings { path: dir.path().join("kv.db"), connections: 3, backlog: 64 };
    let store = Arc::new(SqliteStore::open(&settings).expect("a database"));
    let spoil = move |sql: &str| {
        let database = rusqlite::Connection::open(dir.path().join("kv.db")).expect("the database");
        database.execute_batch("PRAGMA ignore_check_constraints = 1").expect("no checks");
        let changed = database.execute(sql, []).expect("damage");
        assert!(changed > 0, "{sql}");
    };
    (store, Box::new(spoil))
}

#[tokio::test]
async fn sqlite() {
    meta_contract::run(&|| Box::pin(async { open_sqlite() })).await;
}

/// Rows may hold what they could not be written with.
const WITHOUT_CHECKS: &str = "ALTER TABLE s3dedup.contents DROP CONSTRAINT IF EXISTS contents_logical_size_check;
    ALTER TABLE s3dedup.representations DROP CONSTRAINT IF EXISTS representations_kind_check,
        DROP CONSTRAINT IF EXISTS representations_generation_check,
        DROP CONSTRAINT IF EXISTS representations_stored_size_check,
        DROP CONSTRAINT IF EXISTS representations_stored_hash_check;
    SET search_path = s3dedup;";

/// Each check gets a database of its own.
async fn run_on_postgres(server: &PostgresServer, change: impl Fn(&mut PostgresSettings)) {
    let made = AtomicU32::new(0);
    let open = async || {
        let mut settings = server.access();
        settings.database = format!("check_{}", made.fetch_add(1, Ordering::Relaxed));
        server.sql(&format!("CREATE DATABASE {}", settings.database));
        let database = settings.database.clone();
        change(&mut settings);
        let store = PostgresStore::open(&settings, 6, 64).await.expect("a database");
        let spoil = move |sql: &str| {
            server.sql_in(&database, &format!("{WITHOUT_CHECKS} {sql}"));
        };
        (Arc::new(store) as Store, Box::new(spoil) as Spoil<'_>)
    };
    meta_contract::run(&|| Box::pin(open())).await;
}

#[tokio::test]
async fn postgres() {
    run_on_postgres(&PostgresServer::start(), |_| ()).await;
}

#[tokio::test]
async fn postgres_with_nothing_kept_in_sessions() {
    run_on_postgres(&PostgresServer::start(), |settings| settings.is_pooled = true).await;
}

#[tokio::test]
async fn postgres_behind_a_proxy_that_pools_transactions() {
    let server = PostgresServer::start();
    // Fewer connections than the store has, so that each transaction may get another one.
    let proxy = PgBouncer::start(&server, 3);
    run_on_postgres(&server, |settings| {
        let database = settings.database.clone();
        *settings = PostgresSettings { database, ..proxy.access(&server) };
    })
    .await;
}
