//! Do the database and the content store belong together?
//!
//! An empty database over an old store would give new objects the names of old ones; a database
//! over an empty store (a volume that is not mounted, say) would put new contents in the wrong
//! place. Both are found by one look at each, before any client is served.

use std::time::Duration;

use s3dedup_actors::store::blob::{BlobPage, BlobStore};
use s3dedup_actors::store::instances::InstanceRegistry;
use s3dedup_actors::store::meta::MetaStore;

use super::{StartError, membership};
use crate::config::Config;

/// What a rebuild does alone (see [`MetaStore::lead`]).
pub const REBUILD: &str = "rebuild";

/// Names looked at: objects of other programs may come before the first of ours.
const LOOK_AT: usize = 1000;

/// Refuses a database that instances share when it is not that of these contents, or when it is being rebuilt. With
/// [`check`] all that `server` and the commands that write ask about before they touch anything.
pub async fn check_place(
    config: &Config,
    metadata: &dyn MetaStore,
    registry: &dyn InstanceRegistry,
) -> Result<(), StartError> {
    membership::check_contents(config, registry).await?;
    // To give up what one does not have changes nothing, and is refused while somebody else has it.
    let asked = metadata.lead(REBUILD, "(nobody)", Duration::ZERO).await;
    match asked.map_err(|error| StartError::new(format!("cannot read the database error=\"{error}\"")))? {
        true => Ok(()),
        false => {
            Err(StartError::new("the database is being rebuilt (s3dedup repair --rebuild): wait until that is done"))
        }
    }
}

/// Refuses stores that cannot belong together. A content store that does not answer is let pass:
/// clients are told 503 until it does.
pub async fn check(metadata: &dyn MetaStore, contents: &dyn BlobStore) -> Result<(), StartError> {
    let failed = |error| StartError::new(format!("cannot read the database error=\"{error}\""));
    let totals = metadata.totals().await.map_err(failed)?;
    let page = match contents.list(None, LOOK_AT).await {
        Ok(page) => page,
        Err(error) => {
            log::warn!("cannot see whether the contents are those of the database error=\"{error}\"");
            return Ok(());
        }
    };
    let BlobPage { blobs, next, .. } = page;
    // Another instance may have begun to upload in between. Its intent is committed before its object is there, so
    // a second look sees the one if the first saw the other.
    // One that was rebuilt from the objects knows contents without an upload.
    let is_new = totals.uploads_begun == 0 && totals.contents == 0 && !blobs.is_empty();
    if is_new && metadata.totals().await.map_err(failed)?.uploads_begun == 0 {
        return Err(StartError::new(
            "the database is new but the content store already holds contents: \
             restore the database that belongs to them, rebuild it (s3dedup repair --rebuild), \
             or use an empty folder or bucket",
        ));
    }
    if totals.contents > 0 && blobs.is_empty() && next.is_none() {
        return Err(StartError::new(format!(
            "the database knows {} contents but the content store is empty: \
             is its volume mounted, is it the right bucket?",
            totals.contents
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use s3dedup_actors::store::blob::{FolderSettings, FolderStore};
    use s3dedup_actors::store::meta::{SqliteSettings, SqliteStore};

    use super::*;

    fn database(dir: &std::path::Path) -> SqliteStore {
        let settings = SqliteSettings { path: dir.join("kv.db"), connections: 2, backlog: 16 };
        SqliteStore::open(&settings).unwrap()
    }

    fn folder(dir: &std::path::Path) -> FolderStore {
        FolderStore::open(&FolderSettings { root: dir.join("blobs"), write_threads: 1, read_threads: 1 }).unwrap()
    }

    #[actix_rt::test]
    async fn new_stores_match_and_an_old_store_needs_its_database() {
        let dir = tempfile::tempdir().unwrap();
        let (metadata, contents) = (database(dir.path()), folder(dir.path()));
        check(&metadata, &contents).await.unwrap();
        let hex = "ab".repeat(32);
        let parent = dir.path().join("blobs/ab/ab");
        std::fs::create_dir_all(&parent).unwrap();
        std::fs::write(parent.join("somebody-elses"), b"x").unwrap();
        check(&metadata, &contents).await.unwrap();
        std::fs::write(parent.join(&hex), b"x").unwrap();
        let refusal = check(&metadata, &contents).await.unwrap_err().to_string();
        assert!(refusal.contains("the database is new"), "{refusal}");
    }
}
