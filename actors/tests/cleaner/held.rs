//! Objects that the content store would not delete. Method: a folder in which directories are in the place of files.

use std::path::PathBuf;
use std::sync::Arc;

use s3dedup_actors::cleaner::{CleanOptions, CleanReport, Cleaner, CleanerLimits};
use s3dedup_actors::model::BlobKey;
use s3dedup_actors::store::blob::{BlobStore, FolderSettings, FolderStore};

use crate::support::{Stores, at_once};

struct Held {
    stores: Stores,
    folder: Arc<FolderStore>,
}

impl Held {
    fn new() -> Self {
        let stores = Stores::sqlite();
        let root = stores.dir.path().join("blobs");
        let folder = FolderStore::open(&FolderSettings { root, write_threads: 2, read_threads: 2 });
        Self { folder: Arc::new(folder.unwrap()), stores }
    }

    /// Garbage, as an upload and a deletion leave it.
    async fn garbage(&self, number: u32) -> BlobKey {
        let name = format!("n{number}");
        let body = format!("garbage {number}");
        let commit = self.stores.upload(&name, 1, body.as_bytes()).await.unwrap();
        let key = commit.blob.key;
        let spooled = s3dedup_actors::testkit::spooled(body.as_bytes(), s3dedup_actors::testkit::Place::Memory);
        self.folder.put(&key, &spooled.bytes, &spooled.info()).await.unwrap();
        self.stores.metadata.commit_put(commit).await.unwrap();
        self.stores.delete(&name, 1).await;
        key
    }

    fn path(&self, key: &BlobKey) -> PathBuf {
        self.stores.dir.path().join("blobs").join(key.to_string())
    }

    fn hold(&self, key: &BlobKey) {
        std::fs::remove_file(self.path(key)).unwrap();
        std::fs::create_dir(self.path(key)).unwrap();
    }

    fn release(&self, key: &BlobKey) {
        std::fs::remove_dir(self.path(key)).unwrap();
    }

    async fn clean(&self, limits: CleanerLimits) -> CleanReport {
        let metadata = Arc::clone(&self.stores.metadata);
        let cleaner = Cleaner::new(metadata, Arc::clone(&self.folder) as _, limits, "test".into());
        cleaner.run(CleanOptions::default()).await.unwrap()
    }

    async fn condemned(&self) -> Vec<BlobKey> {
        self.stores.metadata.list_condemned(None, 1000).await.unwrap()
    }
}

#[tokio::test]
async fn an_object_that_cannot_be_deleted_keeps_no_other_one() {
    let held = Held::new();
    let mut keys = Vec::new();
    for number in 0..30 {
        keys.push(held.garbage(number).await);
    }
    keys.sort_unstable_by_key(|key| key.digest);
    held.hold(&keys[3]);
    let report = held.clean(at_once()).await;
    assert_eq!((report.unused.done, report.kept, report.errors, report.is_partial), (29, 1, 0, true));
    assert!(report.first_error.is_some());
    assert_eq!(held.condemned().await, [keys[3]]);
    // It is tried again, and counts against no limit.
    let more = held.garbage(100).await;
    let report = held.clean(CleanerLimits { deletes_max: 1, batch_size: 1, ..at_once() }).await;
    assert_eq!((report.condemned.done, report.unused.done, report.kept), (0, 1, 1));
    assert!(!held.path(&more).exists());
    held.release(&keys[3]);
    let report = held.clean(at_once()).await;
    assert_eq!((report.condemned.done, report.kept, report.is_partial), (1, 0, false));
    assert!(held.condemned().await.is_empty());
}

#[tokio::test]
async fn many_objects_that_cannot_be_deleted_hold_up_only_their_kind() {
    let held = Held::new();
    let mut keys = Vec::new();
    for number in 0..20 {
        keys.push(held.garbage(number).await);
    }
    keys.iter().for_each(|key| held.hold(key));
    let limits = CleanerLimits { batch_size: 2, concurrency: 1, ..at_once() };
    // Three batches in vain are enough to see that it is no use.
    let report = held.clean(limits).await;
    assert!(report.kept >= 6 && report.kept < 20, "{report:?}");
    assert_eq!((report.unused.done, report.errors), (0, 0));
    // What was condemned is in the way of nothing.
    let report = held.clean(CleanerLimits { batch_size: 20, ..limits }).await;
    assert!(report.errors == 0 && held.condemned().await.len() == 20, "{report:?}");
    let more = held.garbage(100).await;
    let report = held.clean(limits).await;
    assert_eq!((report.unused.done, report.errors), (1, 0));
    assert!(!held.path(&more).exists());
}
