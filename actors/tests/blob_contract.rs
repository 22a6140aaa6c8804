//! Every content store does what the contract says: the same checks on each.
#![allow(missing_docs, reason = "a test")]
#![allow(clippy::expect_used, reason = "a test that cannot be set up fails")]

mod support;

use std::sync::Arc;

use s3dedup_actors::store::blob::{MemoryStore, S3Settings, S3Store};
use s3dedup_actors::store::blocking::BlockingPool;
use s3dedup_actors::testkit::blob_contract::{self, Store};
use support::{garage, s3_server};

fn s3_store(settings: S3Settings) -> Store {
    let pool = BlockingPool::start("blocking", 2, 64).expect("threads");
    Arc::new(S3Store::new(settings, pool).expect("settings"))
}

/// Small parts, so that the sizes of the suite cover uploads in parts.
fn settings(endpoint: &str, bucket: &str, access_key: &str, secret_key: &str, region: &str) -> S3Settings {
    S3Settings { part_size: 5 << 20, ..S3Settings::new(endpoint, bucket, access_key, secret_key, region) }
}

#[tokio::test]
async fn memory() {
    blob_contract::run(&|| Box::pin(async { (Arc::new(MemoryStore::new()) as Store, ()) })).await;
}

#[tokio::test]
async fn s3_over_s3s_fs() {
    use s3_server::{ACCESS_KEY, BUCKET, S3Server, SECRET_KEY};
    let start = || {
        let server = S3Server::start();
        (s3_store(settings(&server.endpoint, BUCKET, ACCESS_KEY, SECRET_KEY, "us-east-1")), server)
    };
    blob_contract::run(&|| Box::pin(async move { start() })).await;
}

#[tokio::test]
async fn s3_over_garage() {
    use garage::{ACCESS_KEY, BUCKET, Garage, REGION, SECRET_KEY};
    let start = || {
        let server = Garage::start();
        (s3_store(settings(&server.endpoint, BUCKET, ACCESS_KEY, SECRET_KEY, REGION)), server)
    };
    blob_contract::run(&|| Box::pin(async move { start() })).await;
}
