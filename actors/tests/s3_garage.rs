//! What only a real server shows: refusals in its own words, names of others, uploads left behind.
#![allow(missing_docs, reason = "a test")]
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod support;

use std::time::{Duration, Instant};

use s3::creds::Credentials;
use s3::{Bucket, Region};
use s3dedup_actors::model::{BlobKey, KeyLayout, Kind, Stamp};
use s3dedup_actors::store::blob::{BlobStore, S3Settings, S3Store, StaleUploads};
use s3dedup_actors::store::blocking::BlockingPool;
use s3dedup_actors::testkit::{Place, key_of, noise, spooled};
use support::garage::{ACCESS_KEY, BUCKET, Garage, REGION, SECRET_KEY};

fn store(garage: &Garage, bucket: &str, access_key: &str, secret_key: &str, region: &str) -> S3Store {
    let pool = BlockingPool::start("blocking", 2, 64).expect("threads");
    let settings = S3Settings::new(&garage.endpoint, bucket, access_key, secret_key, region);
    S3Store::new(S3Settings { part_size: 5 << 20, ..settings }, pool).expect("settings")
}

/// The bucket without our store in between.
fn raw(garage: &Garage) -> Box<Bucket> {
    let region = Region::Custom { region: REGION.into(), endpoint: garage.endpoint.clone() };
    let keys = Credentials::new(Some(ACCESS_KEY), Some(SECRET_KEY), None, None, None).unwrap();
    Bucket::new(BUCKET, region, keys).unwrap().with_path_style()
}

#[tokio::test]
async fn refusals_are_unavailable_say_what_to_check_and_tell_no_key() {
    let garage = Garage::start();
    let other_key = "GKffffffffffffffffffffffff";
    for (bucket, access_key, secret_key, region, hint) in [
        ("missing", ACCESS_KEY, SECRET_KEY, REGION, "BUCKET_NAME"),
        (BUCKET, ACCESS_KEY, &*SECRET_KEY.replace('0', "1"), REGION, "S3_SECRET_KEY"),
        (BUCKET, other_key, SECRET_KEY, REGION, "S3_ACCESS_KEY"),
        (BUCKET, ACCESS_KEY, SECRET_KEY, "elsewhere", "S3_REGION"),
    ] {
        let store = store(&garage, bucket, access_key, secret_key, region);
        let body = spooled(b"bytes", Place::Memory);
        let key = key_of(&body.info());
        for (call, outcome) in [
            ("put", store.put(&key, &body.bytes, &body.info()).await),
            ("open", store.open(&key, None).await.map(drop)),
            ("stat", store.stat(&key).await.map(drop)),
            ("delete", store.delete(&[key]).await),
            ("list", store.list(None, 10).await.map(drop)),
            ("probe", store.probe().await),
        ] {
            let error = outcome.expect_err(call);
            assert_eq!(error.kind(), Kind::Unavailable, "{call}: {error}");
            // HEAD has no body to tell a wrong region from a wrong request.
            assert!(call == "stat" || error.context().contains(hint), "{call} {hint}: {error}");
            let printed = format!("{error} {error:?}");
            assert!(!printed.contains(access_key) && !printed.contains(secret_key), "{printed}");
        }
    }
}

#[tokio::test]
async fn names_of_others_are_strangers_and_hide_nothing() {
    let garage = Garage::start();
    let (store, raw) = (store(&garage, BUCKET, ACCESS_KEY, SECRET_KEY, REGION), raw(&garage));
    let mut strangers = vec![
        " leading",
        "trailing ",
        "a b+c%25&d=e",
        "x<y>&amp;",
        "żółć/ü",
        "quote\"'",
        "0",
        "~",
        "tab\tinside",
        "new\nline",
        "control\u{1}",
    ];
    let mut ours = Vec::new();
    for n in 0..5 {
        let body = spooled(&noise(n, 100), Place::Memory);
        let key = BlobKey { layout: KeyLayout::new(0), ..key_of(&body.info()) };
        store.put(&key, &body.bytes, &body.info()).await.unwrap();
        ours.push(key.to_string());
    }
    for name in &strangers {
        raw.put_object(name, b"not ours").await.unwrap();
    }
    strangers.sort_unstable();
    ours.sort_unstable();
    for limit in [1, 2, 1000] {
        let (mut blobs, mut others, mut after) = (Vec::new(), Vec::new(), None::<String>);
        loop {
            let page = store.list(after.as_deref(), limit).await.unwrap();
            blobs.extend(page.blobs.iter().map(|(key, _)| key.to_string()));
            others.extend(page.strangers);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(blobs, ours, "pages of {limit}");
        assert_eq!(others, strangers, "pages of {limit}");
    }
}

#[tokio::test]
async fn an_object_without_our_description_is_corrupt() {
    let garage = Garage::start();
    let (store, raw) = (store(&garage, BUCKET, ACCESS_KEY, SECRET_KEY, REGION), raw(&garage));
    let key = key_of(&spooled(b"x", Place::Memory).info());
    raw.put_object(key.to_string(), b"x").await.unwrap();
    assert_eq!(store.stat(&key).await.unwrap_err().kind(), Kind::Corrupt);
    assert_eq!(store.open(&key, None).await.unwrap().unwrap().size, 1);
}

#[tokio::test]
async fn bodies_can_go_unsigned() {
    let garage = Garage::start();
    let pool = BlockingPool::start("blocking", 2, 64).expect("threads");
    let settings = S3Settings::new(&garage.endpoint, BUCKET, ACCESS_KEY, SECRET_KEY, REGION);
    let store = S3Store::new(S3Settings { part_size: 5 << 20, sign_payloads: false, ..settings }, pool).unwrap();
    for len in [0, 1000, 12 << 20] {
        let body = spooled(&noise(1, len), Place::File);
        let key = key_of(&body.info());
        store.put(&key, &body.bytes, &body.info()).await.unwrap();
        assert_eq!(store.stat(&key).await.unwrap(), Some(body.info()));
    }
}

#[tokio::test]
async fn dropped_uploads_leave_no_parts_behind() {
    let garage = Garage::start();
    let (store, raw) = (store(&garage, BUCKET, ACCESS_KEY, SECRET_KEY, REGION), raw(&garage));
    let body = spooled(&noise(1, 40 << 20), Place::File);
    let (key, info) = (key_of(&body.info()), body.info());
    for millis in [1, 2, 3, 5, 10, 20, 40, 60] {
        let put = store.put(&key, &body.bytes, &info);
        assert!(tokio::time::timeout(Duration::from_millis(millis), put).await.is_err(), "it was too quick");
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let deadline = Instant::now() + Duration::from_secs(10);
    while uploads(&raw).await > 0 {
        assert!(Instant::now() < deadline, "an upload was not aborted");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(store.stat(&key).await.unwrap().is_none());
    store.put(&key, &body.bytes, &info).await.unwrap();
    assert_eq!(uploads(&raw).await, 0);
}

async fn uploads(bucket: &Bucket) -> usize {
    let pages = bucket.list_multiparts_uploads(None, None).await.unwrap();
    pages.iter().map(|page| page.uploads.len()).sum()
}

#[tokio::test]
async fn abandoned_uploads_are_aborted_and_others_go_on() {
    let garage = Garage::start();
    let store = store(&garage, BUCKET, ACCESS_KEY, SECRET_KEY, REGION);
    let raw = raw(&garage);
    let ours = key_of(&spooled(b"bytes", Place::Memory).info()).to_string();
    for key in [ours.as_str(), "backup.tar"] {
        raw.initiate_multipart_upload(key, "text/plain").await.unwrap();
    }
    let at = |offset| {
        let begun_before = Stamp::from_seconds(Stamp::now().seconds() + offset);
        StaleUploads { begun_before, dry_run: false, concurrency: 3, is_stopped: &|| false }
    };
    assert_eq!(store.abort_stale_uploads(at(-600)).await.unwrap(), 0, "they are young");
    assert_eq!(store.abort_stale_uploads(at(600)).await.unwrap(), 1);
    assert_eq!(store.abort_stale_uploads(at(600)).await.unwrap(), 0);
    let left = raw.list_multiparts_uploads(None, None).await.unwrap();
    let keys: Vec<_> = left.iter().flat_map(|page| &page.uploads).map(|upload| upload.key.as_str()).collect();
    assert_eq!(keys, ["backup.tar"]);
}
