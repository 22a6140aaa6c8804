//! Every metadata store does what the contract says: the same checks on each.
#![allow(missing_docs, reason = "a test")]
#![allow(clippy::expect_used, reason = "a test that cannot be set up fails")]

use std::sync::Arc;

use s3dedup_actors::store::meta::{SqliteSettings, SqliteStore};
use s3dedup_actors::testkit::meta_contract::{self, Store};

#[tokio::test]
async fn sqlite() {
    let open = || {
        let dir = tempfile::tempdir().expect("a folder");
        let settings = SqliteSettings { path: dir.path().join("kv.db"), connections: 3, backlog: 64 };
        (Arc::new(SqliteStore::open(&settings).expect("a database")) as Store, dir)
    };
    meta_contract::run(&|| Box::pin(async { open() })).await;
}
