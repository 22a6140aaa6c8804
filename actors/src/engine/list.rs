//! Listing names, a page at a time.

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};

use super::Engine;
use crate::model::{Namespace, Result, Stamp};
use crate::store::meta::{ListPage, NamePage};

/// Names looked at by one transaction.
const PAGE_ROWS: usize = 1000;

/// Pages of names, relative to the listed directory, ascending by bytes; a page may be empty.
pub type NameStream = BoxStream<'static, Result<Vec<String>>>;

impl Engine {
    /// Names below `directory` (normalised, empty for all) with versions up to `not_after`;
    /// `None` when there is no name below it at all, whatever its version.
    ///
    /// A name that is there from the beginning to the end of the listing is listed exactly once.
    ///
    /// With an old server beside this store its names are among them; see the module `beside`.
    pub async fn list(&self, namespace: Namespace, directory: String, not_after: Stamp) -> Result<Option<NameStream>> {
        let here = self.list_here(namespace, directory.clone(), not_after).await?;
        match self.beside() {
            Some(beside) => beside.list(self, namespace, directory, not_after, here).await,
            None => Ok(here),
        }
    }

    async fn list_here(&self, namespace: Namespace, directory: String, not_after: Stamp) -> Result<Option<NameStream>> {
        let page = ListPage { namespace, directory, after: None, not_after, rows: PAGE_ROWS };
        let first = self.metadata(page.clone()).await?;
        if !first.any {
            return Ok(None);
        }
        let NamePage { names, next, .. } = first;
        let rest = stream::try_unfold((self.clone(), page, next), |(engine, mut page, next)| async move {
            let Some(after) = next else { return Ok(None) };
            page.after = Some(after);
            let NamePage { names, next, .. } = engine.metadata(page.clone()).await?;
            Ok(Some((names, (engine, page, next))))
        });
        Ok(Some(stream::iter([Ok(names)]).chain(rest).boxed()))
    }
}
