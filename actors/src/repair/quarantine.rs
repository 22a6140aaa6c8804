//! Letting go of what is in quarantine.

use crate::model::{BlobKey, Kind, Recipe, Result};
use crate::verify::{Examiner, Stores, content_now};

/// What became of an object in quarantine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GivenUp {
    /// The next run of the cleaner deletes it.
    Condemned,
    /// It stays: why.
    Kept(&'static str),
}

/// Gives an object in quarantine to the cleaner if its content has another one, which is read now and proves to be whole.
/// The last object of a content is never given up, whatever it holds.
pub async fn give_up(stores: &Stores, examiner: &Examiner, key: BlobKey) -> Result<GivenUp> {
    let Some(content) = content_now(stores, key.digest).await? else {
        return Ok(GivenUp::Kept("its content is unknown: nothing else may hold it"));
    };
    let Recipe::Whole(blob) = &content.recipe;
    if blob.key.generation == key.generation {
        return Ok(GivenUp::Kept("it is the only known object of its content"));
    }
    let examined = match examiner.examine(stores.contents.as_ref(), &blob.key).await {
        Err(error) if error.kind() == Kind::Corrupt => None,
        examined => examined?,
    };
    let noted = (content.logical_size, blob.stored_size, blob.stored_hash);
    let info = examined.and_then(|examined| examined.describe(&blob.key));
    if info.map(|info| (info.logical_size, info.stored_size, info.stored_hash)) != Some(noted) {
        return Ok(GivenUp::Kept("the other object of its content is damaged, too: repair first"));
    }
    let is_condemned = stores.metadata.condemn_quarantined(key, blob.key).await?;
    Ok(if is_condemned { GivenUp::Condemned } else { GivenUp::Kept("it is not in quarantine, or its content changed") })
}
