//! Opening objects on the thread that streams them.
//!
//! A connection to S3 is driven by the thread that opened it. Opened by an actor, every byte would
//! change threads on its way to the client; so this is the one step that passes no actor.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::model::{BlobKey, Error, Kind, Result};
use crate::runtime::breaker::Breaker;
use crate::runtime::meter::Meter;
use crate::store::blob::{BlobReader, BlobStore};

/// How long it takes at most until the first bytes can be sent: a client is to get its 503 within five seconds.
const OPEN_MAX: Duration = Duration::from_millis(4200);
/// One request in so many is never one that reads from the store.
const OTHERS_SHARE: usize = 8;

/// The content store, for reading.
#[derive(Clone)]
pub(crate) struct ContentSource {
    store: Arc<dyn BlobStore>,
    breaker: Arc<Breaker>,
    meter: Arc<Meter>,
    /// Places of those who read: a store that stalls does not take those of requests that need no store.
    readers: Arc<Semaphore>,
}

impl ContentSource {
    /// Reads from `store` unless `breaker`, shared with the uploads, says that it is down; for a server of so many
    /// requests at once. `meter` counts what is opened.
    pub(crate) fn new(
        store: Arc<dyn BlobStore>,
        breaker: Arc<Breaker>,
        meter: Arc<Meter>,
        request_slots_max: usize,
    ) -> Self {
        let others = (request_slots_max / OTHERS_SHARE).max(1);
        let readers = request_slots_max.saturating_sub(others).clamp(1, Semaphore::MAX_PERMITS);
        Self { store, breaker, meter, readers: Arc::new(Semaphore::new(readers)) }
    }

    /// [`Kind::Unavailable`] while the store is known to be down.
    pub(crate) fn expect_up(&self) -> Result<()> {
        self.breaker.expect_closed()
    }

    /// Opens an object and lets `begin` read as much of it as is needed before an answer can begin, all in the time that a
    /// client is kept waiting; `None` when the store has no such object. It counts among the readers until its stream is
    /// dropped.
    pub(crate) async fn open<T>(
        &self,
        key: &BlobKey,
        begin: impl AsyncFnOnce(BlobReader) -> Result<T>,
    ) -> Result<Option<T>> {
        let place = self.place()?;
        let open = async {
            let Some(BlobReader { size, stream }) = self.store.open(key, None).await? else { return Ok(None) };
            let held = move |piece| {
                let _place = &place;
                piece
            };
            begin(BlobReader { size, stream: stream.map(held).boxed() }).await.map(Some)
        };
        let late = |_| Error::new(Kind::Unavailable, "the content store does not answer in time");
        // A store that answers and then stalls is down as well: the breaker learns of the whole.
        let open_in_time = async { tokio::time::timeout(OPEN_MAX, open).await.map_err(late)? };
        let opened = self.breaker.call(self.meter.measure(open_in_time));
        AssertUnwindSafe(opened).catch_unwind().await.unwrap_or_else(|_| {
            log::error!("opening an object panicked object={key}");
            Err(Error::panicked())
        })
    }

    /// Asks the store whether it is there. No matter of the breaker: nobody waits for the answer.
    pub(crate) async fn probe(&self) -> Result<()> {
        AssertUnwindSafe(self.store.probe()).catch_unwind().await.unwrap_or_else(|_| {
            log::error!("a look at the content store panicked");
            Err(Error::panicked())
        })
    }

    fn place(&self) -> Result<OwnedSemaphorePermit> {
        let full = |_| Error::new(Kind::Overloaded, "too many contents are being read");
        Arc::clone(&self.readers).try_acquire_owned().map_err(full)
    }
}
