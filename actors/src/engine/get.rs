//! Reading what a name points at.

use std::time::Duration;

use futures_util::{StreamExt, stream};

use super::Engine;
use crate::download::{Body, Download, Expected, verified};
use crate::model::{Entry, EntryKey, Error, Kind, Recipe, Result, StoredBlob};
use crate::store::blob::BlobReader;

/// How long a read that is refused waits until the damage that it found is noted.
const NOTE_MAX: Duration = Duration::from_secs(3);

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
        self.note_damage(&again, &"it is missing").await;
        Err(Error::new(Kind::Corrupt, "the stored content is missing"))
    }

    /// Opens an entry's object; `None` when the content store does not have it.
    async fn download(&self, entry: &Entry) -> Result<Option<Download>> {
        let Recipe::Whole(blob) = &entry.recipe;
        let body = match self.inner.cache.get(&blob.key) {
            Some(bytes) => Body::Whole(bytes),
            None => {
                let Some(body) = self.read_object(entry, blob).await? else { return Ok(None) };
                body
            }
        };
        Ok(Some(Download::new(entry.clone(), body, self.inner.compute.clone(), self.inner.damage.clone())))
    }

    /// What can be kept is read whole, of the rest the beginning; once more if it did not come as it should: an answer may
    /// break on its way.
    async fn read_object(&self, entry: &Entry, blob: &StoredBlob) -> Result<Option<Body>> {
        let read = || self.inner.source.open(&blob.key, async |reader| self.checked(blob, reader).await);
        let first = match read().await {
            Err(error) if error.kind() == Kind::Corrupt => error,
            other => return other,
        };
        log::debug!("a content is read again object={} error=\"{first}\"", blob.key);
        match read().await {
            // Whether the object is damaged or the store talks nonsense for a while is not known here.
            Err(error) if error.kind() == Kind::Corrupt => {
                self.note_damage(entry, &error).await;
                Err(Error::new(Kind::Unavailable, "the stored bytes are not what was stored").with_source(error))
            }
            read => read,
        }
    }

    /// Has the object read once more, and noted if it is damaged. That goes on when it takes longer than a client waits for
    /// its refusal.
    async fn note_damage(&self, entry: &Entry, what: &(dyn std::fmt::Display + Sync)) {
        let _ = tokio::time::timeout(NOTE_MAX, self.inner.damage.found(entry, what)).await;
    }

    async fn checked(&self, blob: &StoredBlob, reader: BlobReader) -> Result<Body> {
        let mut body = verified(reader.stream, Expected::from(blob));
        if !self.inner.cache.wants(blob.stored_size) {
            // What fails before its beginning can still be refused.
            let first = body.next().await.transpose()?;
            return Ok(Body::Stream(stream::iter(first.map(Ok)).chain(body).boxed()));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(blob.stored_size).unwrap_or_default());
        while let Some(piece) = body.next().await {
            bytes.extend_from_slice(&piece?);
        }
        let bytes = bytes::Bytes::from(bytes);
        self.inner.cache.insert(blob.key, bytes.clone());
        Ok(Body::Whole(bytes))
    }
}
