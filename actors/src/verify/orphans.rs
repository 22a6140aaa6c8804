//! Objects that nothing knows of. They are no damage: the cleaner or a repair deals with them.

use serde_json::{Value, json};

use super::{Progress, Stores};
use crate::model::{BlobKey, Result};
use crate::patience::patiently;

/// Names asked for at once.
const PAGE_NAMES: usize = 1000;
/// Objects that are told by name.
const LISTED_MAX: usize = 100;

/// What was found.
#[derive(Clone, Default, Debug)]
pub struct Orphans {
    /// Objects with a name of ours that nothing knows of.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The first ones.
    pub first: Vec<BlobKey>,
    /// Names that are not ours.
    pub strangers: u64,
}

impl Orphans {
    /// An object of a report.
    pub fn to_json(&self) -> Value {
        let first: Vec<String> = self.first.iter().map(BlobKey::to_string).collect();
        json!({ "objects": self.objects, "bytes": self.bytes, "first": first, "strangers": self.strangers })
    }
}

/// Walks the whole listing.
pub(super) async fn find(stores: &Stores, progress: &Progress) -> Result<Orphans> {
    let mut orphans = Orphans::default();
    let (mut after, mut looked_at) = (None, 0);
    loop {
        let page = patiently(async || stores.contents.list(after.as_deref(), PAGE_NAMES).await).await?;
        orphans.strangers += page.strangers.len() as u64;
        looked_at += page.blobs.len() as u64;
        for (key, size) in unknown(stores, page.blobs).await? {
            orphans.objects += 1;
            orphans.bytes += size;
            if orphans.first.len() < LISTED_MAX {
                orphans.first.push(key);
            }
        }
        progress.step(looked_at, 0);
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(orphans),
        }
    }
}

/// Those that nothing knows of.
pub(crate) async fn unknown(stores: &Stores, blobs: Vec<(BlobKey, u64)>) -> Result<Vec<(BlobKey, u64)>> {
    if blobs.is_empty() {
        return Ok(blobs);
    }
    let keys: Vec<BlobKey> = blobs.iter().map(|(key, _)| *key).collect();
    let known = patiently(async || stores.metadata.are_known(keys.clone()).await).await?;
    Ok(blobs.into_iter().zip(known).filter(|(_, known)| !known).map(|(blob, _)| blob).collect())
}
