//! Every metadata store does what the contract says: the same checks on each.
#![allow(missing_docs, reason = "a test")]
#![allow(clippy::expect_used, reason = "a test that cannot be set up fails")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use s3dedup_actors::store::meta::{PostgresStore, SqliteSettings, SqliteStore};
use s3dedup_actors::store::postgres::PostgresSettings;
use s3dedup_actors::testkit::meta_contract::{self, Store};
use s3dedup_actors::testkit::pgbouncer::PgBouncer;
use s3dedup_actors::testkit::postgres::PostgresServer;

#[tokio::test]
async fn sqlite() {
    let open = || {
        let dir = tempfile::tempdir().expect("a folder");
        let settings = SqliteSettings { path: dir.path().join("kv.db"), connections: 3, backlog: 64 };
        (Arc::new(SqliteStore::open(&settings).expect("a database")) as Store, dir)
    };
    meta_contract::run(&|| Box::pin(async { open() })).await;
}

/// Each check gets a database of its own.
async fn run_on_postgres(server: &PostgresServer, change: impl Fn(&mut PostgresSettings)) {
    let made = AtomicU32::new(0);
    let open = async || {
        let mut settings = server.access();
        settings.database = format!("check_{}", made.fetch_add(1, Ordering::Relaxed));
        server.sql(&format!("CREATE DATABASE {}", settings.database));
        change(&mut settings);
        let store = PostgresStore::open(&settings, 6, 64).await.expect("a database");
        (Arc::new(store) as Store, ())
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
