//! Reading what a name points at.

use futures_util::StreamExt;
use futures_util::stream;

use super::Engine;
use crate::download::{Body, Download, Expected, verified};
use crate::model::{Entry, EntryKey, Error, Kind, Recipe, Result, StoredBlob};

impl Engine {
    /// Opens what a name points at; `None` when there is no such name.
    ///
    /// Takes no lock: a content that loses its last name stays for a grace period.
    pub async fn open(&self, key: &EntryKey) -> Result<Option<Download>> {
        let Some(entry) = self.stat(key).await? else { return Ok(None) };
        if let Some(download) = self.download(&entry).await? {
            return Ok(Some(download));
        }
        // The object is not there. It may have moved to another generation since the metadata were
        // read; if not, this is damage, and must not look like absence.
        let Some(again) = self.stat(key).await? else { return Ok(None) };
        if again.recipe != entry.recipe
            && let Some(download) = self.download(&again).await?
        {
            return Ok(Some(download));
        }
        self.inner.damage.found(&again.digest, &"it is missing");
        Err(Error::new(Kind::Corrupt, "the stored content is missing"))
    }

    /// Opens an entry's object; `None` when the content store does not have it.
    async fn download(&self, entry: &Entry) -> Result<Option<Download>> {
        let Recipe::Whole(blob) = &entry.recipe;
        let body = match self.inner.cache.get(&blob.key) {
            Some(bytes) => Body::Whole(bytes),
            None if self.inner.cache.wants(blob.stored_size) => {
                let Some(body) = self.whole(blob).await? else { return Ok(None) };
                body
            }
            None => {
                let Some(reader) = self.inner.source.open(&blob.key).await? else { return Ok(None) };
                Body::Stream(verified(reader.stream, Expected::from(blob)))
            }
        };
        Ok(Some(Download::new(entry.clone(), body, self.inner.compute.clone(), self.inner.damage.clone())))
    }

    /// Reads a small object and keeps it.
    async fn whole(&self, blob: &StoredBlob) -> Result<Option<Body>> {
        match self.inner.source.read(blob).await {
            Ok(Some(bytes)) => {
                self.inner.cache.insert(blob.key, bytes.clone());
                Ok(Some(Body::Whole(bytes)))
            }
            Ok(None) => Ok(None),
            // The client is to see a cut where damage is found, as with larger contents.
            Err(error) if error.kind() == Kind::Corrupt => Ok(Some(Body::Stream(stream::iter([Err(error)]).boxed()))),
            Err(error) => Err(error),
        }
    }
}
