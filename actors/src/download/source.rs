//! Opening objects on the thread that streams them.
//!
//! A connection to S3 is driven by the thread that opened it. Opened by an actor, every byte would
//! change threads on its way to the client; so this is the one step that passes no actor.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;

use crate::model::{BlobKey, Error, Kind, Result};
use crate::runtime::breaker::Breaker;
use crate::store::blob::{BlobReader, BlobStore};

/// How long it takes at most until the first bytes can be sent: a client is to get its 503 within five seconds.
const OPEN_MAX: Duration = Duration::from_millis(4200);

/// The content store, for reading.
#[derive(Clone)]
pub(crate) struct ContentSource {
    store: Arc<dyn BlobStore>,
    breaker: Arc<Breaker>,
}

impl ContentSource {
    /// Reads from `store` unless `breaker`, shared with the uploads, says that it is down.
    pub(crate) fn new(store: Arc<dyn BlobStore>, breaker: Arc<Breaker>) -> Self {
        Self { store, breaker }
    }

    /// [`Kind::Unavailable`] while the store is known to be down.
    pub(crate) fn expect_up(&self) -> Result<()> {
        self.breaker.expect_closed()
    }

    /// Opens an object and lets `begin` read as much of it as is needed before an answer can begin, all in the time that a
    /// client is kept waiting; `None` when the store has no such object.
    pub(crate) async fn open<T>(
        &self,
        key: &BlobKey,
        begin: impl AsyncFnOnce(BlobReader) -> Result<T>,
    ) -> Result<Option<T>> {
        let open = async {
            match self.store.open(key, None).await? {
                Some(reader) => begin(reader).await.map(Some),
                None => Ok(None),
            }
        };
        let late = |_| Error::new(Kind::Unavailable, "the content store does not answer in time");
        let open_in_time = async { tokio::time::timeout(OPEN_MAX, open).await.map_err(late)? };
        let opened = self.breaker.call(open_in_time);
        AssertUnwindSafe(opened).catch_unwind().await.unwrap_or_else(|_| {
            log::error!("opening an object panicked object={key}");
            Err(Error::new(Kind::Internal, "internal error"))
        })
    }
}
