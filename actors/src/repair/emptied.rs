//! A content store that lost everything.

use futures_util::{StreamExt, TryStreamExt, stream};

use crate::model::{Recipe, Result};
use crate::patience::patiently;
use crate::verify::Stores;

/// Contents that are asked for at once.
const PAGE: usize = 1000;

/// Notes all contents as missing, `concurrency` at a time, when there is no object at all: reports of damage are bounded,
/// and a content that is not noted would be taken for known by the next upload of it. Returns how many were noted.
pub async fn note_emptied(stores: &Stores, concurrency: usize) -> Result<u64> {
    let page = patiently(async || stores.contents.list(None, 1).await).await?;
    if !page.blobs.is_empty() || page.next.is_some() {
        return Ok(0);
    }
    let (mut next, mut noted) = (Some(Vec::new()), 0);
    while let Some(after) = next {
        let page = patiently(async || stores.metadata.survey(after.clone(), PAGE).await).await?;
        // Rows that cannot be read need no note: no upload takes such a content for known.
        let notes = page.contents.into_iter().filter(|content| !content.is_suspect).map(|content| {
            let Recipe::Whole(blob) = content.recipe;
            async move { patiently(async || stores.metadata.note_damaged(blob.key).await).await }
        });
        noted += stream::iter(notes)
            .buffer_unordered(concurrency.max(1))
            .try_fold(0, async |count, ()| Ok(count + 1))
            .await?;
        next = page.next;
    }
    Ok(noted)
}
