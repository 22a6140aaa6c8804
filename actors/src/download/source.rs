//! Opening objects on the thread that streams them.
//!
//! A connection to S3 is driven by the thread that opened it. Opened by an actor, every byte would
//! change threads on its way to the client; so this is the one step that passes no actor.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, TryStreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::verify::{Expected, verified};
use crate::model::{BlobKey, Error, Kind, Result, StoredBlob};
use crate::runtime::breaker::Breaker;
use crate::store::blob::{BlobReader, BlobStore};

/// How long it may take to read a small object: its client is to get an answer within five seconds.
const READ_MAX: Duration = Duration::from_secs(4);
/// One request in so many is never one that reads from the store.
const OTHERS_SHARE: usize = 8;

/// The content store, for reading.
#[derive(Clone)]
pub(crate) struct ContentSource {
    store: Arc<dyn BlobStore>,
    breaker: Arc<Breaker>,
    /// Places of those who read: a store that stalls does not take those of requests that need no store.
    readers: Arc<Semaphore>,
}

impl ContentSource {
    /// Reads from `store` unless `breaker`, shared with the uploads, says that it is down; for a server of so many
    /// requests at once.
    pub(crate) fn new(store: Arc<dyn BlobStore>, breaker: Arc<Breaker>, request_slots_max: usize) -> Self {
        let others = (request_slots_max / OTHERS_SHARE).max(1);
        let readers = request_slots_max.saturating_sub(others).clamp(1, Semaphore::MAX_PERMITS);
        Self { store, breaker, readers: Arc::new(Semaphore::new(readers)) }
    }

    /// [`Kind::Unavailable`] while the store is known to be down.
    pub(crate) fn expect_up(&self) -> Result<()> {
        self.breaker.expect_closed()
    }

    /// Opens an object; `None` when the store has no such object. It counts among the readers until its stream is dropped.
    pub(crate) async fn open(&self, key: &BlobKey) -> Result<Option<BlobReader>> {
        let place = self.place()?;
        let opened = self.guarded(key, self.store.open(key, None)).await?;
        let held = |BlobReader { size, stream }| {
            let pass = move |piece| {
                let _place = &place;
                piece
            };
            BlobReader { size, stream: stream.map(pass).boxed() }
        };
        Ok(opened.map(held))
    }

    /// Reads an object whole and proves that it is what it should be; `None` when the store has no such object.
    pub(crate) async fn read(&self, blob: &StoredBlob) -> Result<Option<Bytes>> {
        let _place = self.place()?;
        let work = async {
            let Some(reader) = self.store.open(&blob.key, None).await? else { return Ok(None) };
            let mut bytes = Vec::with_capacity(usize::try_from(blob.stored_size).unwrap_or_default());
            let mut body = verified(reader.stream, Expected::from(blob));
            while let Some(piece) = body.try_next().await? {
                bytes.extend_from_slice(&piece);
            }
            Ok(Some(Bytes::from(bytes)))
        };
        let late = |_| Error::new(Kind::Unavailable, "the content store does not answer in time");
        // A store that answers and then stalls is down as well: the breaker learns of the whole.
        let in_time = async { timeout(READ_MAX, work).await.map_err(late)? };
        self.guarded(&blob.key, in_time).await
    }

    fn place(&self) -> Result<OwnedSemaphorePermit> {
        let full = |_| Error::new(Kind::Overloaded, "too many contents are being read");
        Arc::clone(&self.readers).try_acquire_owned().map_err(full)
    }

    async fn guarded<T>(&self, key: &BlobKey, work: impl Future<Output = Result<T>>) -> Result<T> {
        AssertUnwindSafe(self.breaker.call(work)).catch_unwind().await.unwrap_or_else(|_| {
            log::error!("opening an object panicked object={key}");
            Err(Error::new(Kind::Internal, "internal error"))
        })
    }
}
