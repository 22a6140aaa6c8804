//! A content folder whose volume vanishes while it is used: nothing reads as missing, nothing is written in its place.
#![allow(missing_docs, reason = "a test")]
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot be set up fails")]

use s3dedup_actors::model::Kind;
use s3dedup_actors::store::blob::{BlobStore, FolderSettings, FolderStore};
use s3dedup_actors::testkit::{Place, key_of, noise, spooled};

#[tokio::test]
async fn a_folder_that_is_gone_is_an_outage_until_it_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let (root, away) = (dir.path().join("blobs"), dir.path().join("away"));
    let store = FolderStore::open(&FolderSettings { root: root.clone(), write_threads: 1, read_threads: 1 }).unwrap();
    let [old, new] = [1, 2].map(|seed| spooled(&noise(seed, 100), Place::Memory));
    let [old_key, new_key] = [&old, &new].map(|body| key_of(&body.info()));
    store.put(&old_key, &old.bytes, &old.info()).await.unwrap();
    std::fs::rename(&root, &away).unwrap();
    for is_empty in [false, true] {
        if is_empty {
            // The mount point is left.
            std::fs::create_dir(&root).unwrap();
        }
        let answers = [
            store.open(&old_key, None).await.map(drop),
            store.stat(&old_key).await.map(drop),
            store.put(&new_key, &new.bytes, &new.info()).await,
            store.delete(&[old_key]).await,
            store.list(None, 10).await.map(drop),
            store.probe().await,
        ];
        for (number, answer) in answers.into_iter().enumerate() {
            assert_eq!(answer.map_err(|error| error.kind()), Err(Kind::Unavailable), "{number}, empty: {is_empty}");
        }
    }
    assert_eq!(std::fs::read_dir(&root).unwrap().count(), 0, "something was written below the mount point");
    std::fs::remove_dir(&root).unwrap();
    std::fs::rename(&away, &root).unwrap();
    assert!(store.open(&old_key, None).await.unwrap().is_some());
    assert!(store.open(&new_key, None).await.unwrap().is_none());
    store.put(&new_key, &new.bytes, &new.info()).await.unwrap();
}
