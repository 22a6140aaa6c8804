//! Opening objects on the thread that streams them.
//!
//! A connection to S3 is driven by the thread that opened it. Opened by an actor, every byte would
//! change threads on its way to the client; so this is the one step that passes no actor.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;

use crate::model::{BlobKey, Error, Kind, Result};
use crate::runtime::breaker::Breaker;
use crate::store::blob::{BlobReader, BlobStore};

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

    /// Opens an object; `None` when the store has no such object.
    pub(crate) async fn open(&self, key: &BlobKey) -> Result<Option<BlobReader>> {
        let opened = self.breaker.call(self.store.open(key, None));
        AssertUnwindSafe(opened).catch_unwind().await.unwrap_or_else(|_| {
            log::error!("opening an object panicked object={key}");
            Err(Error::new(Kind::Internal, "internal error"))
        })
    }
}
