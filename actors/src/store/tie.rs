//! Do the database and the contents belong together?
//!
//! Two databases over one store would give the same names to different uploads, and each would take the other's
//! contents for garbage; a database over the wrong or an empty store (a volume that is not mounted, say) would put
//! new contents in the wrong place. So every database has a number of its own, and the store bears it as a mark.
//!
//! Making a mark is no compare and swap, which not every store has. Who finds none makes its own and looks again: of
//! two that do so at the same time, at least the later one sees both marks, takes its own back and gives up.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Mutex;

use super::blob::{BlobPage, BlobReader, BlobStore, Deletion, SpooledBytes, StaleUploads};
use super::meta::{MetaStore, Totals};
use crate::model::{BlobInfo, BlobKey, Error, Kind, Result};

/// Names looked at: objects of other programs may come before the first of ours.
const LOOK_AT: usize = 1000;

/// Why a database and contents are not used together.
#[derive(Debug)]
pub enum Untied {
    /// They do not belong together; says why and what to do.
    Strangers(String),
    /// The database knows contents and the store is empty: it lost them, or it is the wrong one. Says what to do.
    Emptied(String),
    /// The database cannot tell.
    Metadata(Error),
    /// The content store cannot tell.
    Contents(Error),
}

impl fmt::Display for Untied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Strangers(why) | Self::Emptied(why) => f.write_str(why),
            Self::Metadata(error) => write!(f, "cannot read the database error=\"{error}\""),
            Self::Contents(error) => write!(f, "the content store does not answer error=\"{error}\""),
        }
    }
}

/// Refuses contents of another database; changes nothing. Contents without a mark are judged by what is in them.
pub async fn look(metadata: &dyn MetaStore, contents: &dyn BlobStore) -> Result<(), Untied> {
    find(metadata, contents).await.map(drop)
}

/// The same, and marks contents without a mark.
pub async fn tie(metadata: &dyn MetaStore, contents: &dyn BlobStore) -> Result<(), Untied> {
    let (me, is_marked) = find(metadata, contents).await?;
    if is_marked {
        return Ok(());
    }
    contents.add_owner(&me).await.map_err(Untied::Contents)?;
    let owners = contents.owners().await.map_err(Untied::Contents)?;
    if owners == [me.as_str()] {
        log::info!("the contents are marked as those of this database identity={me}");
        return Ok(());
    }
    contents.remove_owner(&me).await.map_err(Untied::Contents)?;
    Err(strangers(&me, &owners))
}

/// Makes the database the only owner, whoever was it before.
pub async fn take_over(metadata: &dyn MetaStore, contents: &dyn BlobStore) -> Result<()> {
    let me = metadata.identity().await?;
    // Its own first: without any mark, another database could take the contents meanwhile.
    contents.add_owner(&me).await?;
    for owner in contents.owners().await? {
        if owner != me {
            contents.remove_owner(&owner).await?;
            log::warn!("the contents were those of another database former={owner} identity={me}");
        }
    }
    Ok(())
}

/// Marks contents that lost everything, their mark included, as those of the database. Refuses those of another one.
pub async fn mark_emptied(metadata: &dyn MetaStore, contents: &dyn BlobStore) -> Result<(), Untied> {
    let me = metadata.identity().await.map_err(Untied::Metadata)?;
    let owners = contents.owners().await.map_err(Untied::Contents)?;
    if owners.iter().any(|owner| *owner != me) {
        return Err(strangers(&me, &owners));
    }
    contents.add_owner(&me).await.map_err(Untied::Contents)
}

/// The database's number, and whether the contents bear it.
async fn find(metadata: &dyn MetaStore, contents: &dyn BlobStore) -> Result<(String, bool), Untied> {
    let me = metadata.identity().await.map_err(Untied::Metadata)?;
    let totals = metadata.totals().await.map_err(Untied::Metadata)?;
    let owners = contents.owners().await.map_err(Untied::Contents)?;
    if owners.iter().any(|owner| *owner != me) {
        return Err(strangers(&me, &owners));
    }
    let is_marked = !owners.is_empty();
    let BlobPage { blobs, next, .. } = contents.list(None, LOOK_AT).await.map_err(Untied::Contents)?;
    if totals.contents > 0
        && blobs.is_empty()
        && next.is_none()
        && expects_objects(metadata).await.map_err(Untied::Metadata)?
    {
        return Err(Untied::Emptied(format!(
            "the database knows {} contents but the content store is empty: is its volume mounted, is it the right \
             bucket? If it lost its objects: s3dedup verify tells what is lost, and s3dedup repair --accept-empty-store \
             fetches what the fallbacks have and lets servers start, so that clients can upload the rest again",
            totals.contents
        )));
    }
    // Another instance may have begun to upload in between. Its intent is committed before its object is there, so
    // a second look sees the one if the first saw the other.
    // One that was rebuilt from the objects knows contents without an upload.
    let is_new = |totals: Totals| totals.uploads_begun == 0 && totals.contents == 0;
    if !is_marked && !blobs.is_empty() && is_new(totals) && is_new(metadata.totals().await.map_err(Untied::Metadata)?) {
        return Err(Untied::Strangers(
            "the database is new but the content store already holds contents: \
             restore the database that belongs to them, rebuild it (s3dedup repair --rebuild), \
             or use an empty folder or bucket"
                .to_owned(),
        ));
    }
    Ok((me, is_marked))
}

/// Whether there is a content whose object is not known to be missing already.
async fn expects_objects(metadata: &dyn MetaStore) -> Result<bool> {
    let (mut next, mut is_any) = (Some(Vec::new()), false);
    while let Some(after) = next {
        // Rows that cannot be read name no object.
        let page = metadata.survey(after, LOOK_AT).await?;
        if page.contents.iter().any(|content| !content.is_suspect) {
            return Ok(true);
        }
        is_any |= !page.contents.is_empty();
        next = page.next;
    }
    // With no row to be read nothing is known of any object.
    Ok(!is_any)
}

fn strangers(me: &str, owners: &[String]) -> Untied {
    let others: Vec<_> = owners.iter().filter(|owner| *owner != me).map(String::as_str).collect();
    Untied::Strangers(format!(
        "the contents belong to another database (identity {}; this one is {me}): use that database, \
         or an empty folder or bucket; if that one is lost, s3dedup repair --rebuild takes the contents over",
        others.join(", ")
    ))
}

/// A content store that takes and deletes objects only once it is known to belong to the database. Reading is free: what
/// is read is proven by its hash.
pub struct TiedStore {
    contents: Arc<dyn BlobStore>,
    metadata: Arc<dyn MetaStore>,
    is_tied: AtomicBool,
    turn: Mutex<()>,
}

impl TiedStore {
    /// Nothing is asked yet.
    pub fn new(contents: Arc<dyn BlobStore>, metadata: Arc<dyn MetaStore>) -> Self {
        Self { contents, metadata, is_tied: AtomicBool::new(false), turn: Mutex::new(()) }
    }

    /// Ties the stores, unless they are.
    pub async fn tie(&self) -> Result<(), Untied> {
        if self.is_tied.load(Ordering::Acquire) {
            return Ok(());
        }
        let _turn = self.turn.lock().await;
        if self.is_tied.load(Ordering::Acquire) {
            return Ok(());
        }
        tie(self.metadata.as_ref(), self.contents.as_ref()).await?;
        self.is_tied.store(true, Ordering::Release);
        Ok(())
    }

    async fn expect_tied(&self) -> Result<()> {
        self.tie().await.map_err(|untied| match untied {
            Untied::Strangers(why) => {
                log::error!("nothing is stored: {why}");
                let told = "the content store belongs to another database";
                Error::new(Kind::Unavailable, told).with_source(why)
            }
            Untied::Emptied(why) => {
                log::error!("nothing is stored: {why}");
                Error::new(Kind::Unavailable, "the content store is empty").with_source(why)
            }
            Untied::Metadata(error) | Untied::Contents(error) => error,
        })
    }
}

#[async_trait]
impl BlobStore for TiedStore {
    fn kind(&self) -> &'static str {
        self.contents.kind()
    }

    async fn put(&self, key: &BlobKey, body: &SpooledBytes, info: &BlobInfo) -> Result<()> {
        self.expect_tied().await?;
        self.contents.put(key, body, info).await
    }

    async fn put_late(&self, waited: Duration, key: &BlobKey, body: &SpooledBytes, info: &BlobInfo) -> Result<()> {
        self.expect_tied().await?;
        self.contents.put_late(waited, key, body, info).await
    }

    async fn open(&self, key: &BlobKey, range: Option<Range<u64>>) -> Result<Option<BlobReader>> {
        self.contents.open(key, range).await
    }

    async fn stat(&self, key: &BlobKey) -> Result<Option<BlobInfo>> {
        self.contents.stat(key).await
    }

    async fn delete(&self, keys: &[BlobKey]) -> Result<()> {
        self.expect_tied().await?;
        self.contents.delete(keys).await
    }

    async fn delete_each(&self, keys: &[BlobKey]) -> Result<Deletion> {
        self.expect_tied().await?;
        self.contents.delete_each(keys).await
    }

    async fn list(&self, after: Option<&str>, limit: usize) -> Result<BlobPage> {
        self.contents.list(after, limit).await
    }

    async fn abort_stale_uploads(&self, stale: StaleUploads<'_>) -> Result<u64> {
        if !stale.dry_run {
            self.expect_tied().await?;
        }
        self.contents.abort_stale_uploads(stale).await
    }

    async fn owners(&self) -> Result<Vec<String>> {
        self.contents.owners().await
    }

    async fn add_owner(&self, owner: &str) -> Result<()> {
        self.contents.add_owner(owner).await
    }

    async fn remove_owner(&self, owner: &str) -> Result<()> {
        self.contents.remove_owner(owner).await
    }

    async fn probe(&self) -> Result<()> {
        self.contents.probe().await
    }
}

#[cfg(test)]
mod tests;
