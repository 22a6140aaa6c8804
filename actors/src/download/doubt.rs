//! What is done about a read that found a stored object missing or damaged.
//!
//! One wrong answer of a store says little of the object: it may have been cut or changed on its way. So the object is read
//! again, all of it, before anything is noted. One that cannot be read in time is noted, too: an upload that stores it
//! anew costs room, one that relies on a damaged object loses a file.

use std::collections::HashMap;
use std::fmt::Display;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::{BoxFuture, Shared};
use futures_util::{FutureExt, StreamExt};
use tokio::sync::{Semaphore, oneshot};

use super::decode;
use super::verify::{Expected, verified};
use crate::model::{BlobKey, Entry, Error, Kind, Recipe, Result, StoredBlob};
use crate::runtime::behalf::Behalf;
use crate::store::blob::BlobStore;
use crate::store::blocking::BlockingPool;

/// Objects that are read again at once.
const READ_AGAIN_MAX: usize = 4;
/// How long that takes at most, waiting included: who reads the object waits, too.
const READ_AGAIN_TIME_MAX: Duration = Duration::from_secs(30);

/// Notes one find where uploads see it.
type Note = Box<dyn Fn(BlobKey) -> BoxFuture<'static, Result<()>> + Send + Sync>;
/// Ends when an object was read again and what came of that is noted.
type Again = Shared<BoxFuture<'static, ()>>;

/// Looks into reads that went wrong; clones share all of it.
#[derive(Clone)]
pub(crate) struct Damage(Arc<Inner>);

struct Inner {
    store: Arc<dyn BlobStore>,
    pool: BlockingPool,
    note: Note,
    count: AtomicU64,
    places: Semaphore,
    running: Mutex<HashMap<BlobKey, Again>>,
}

/// What a read that went wrong was of.
#[derive(Clone, Copy)]
struct Doubted {
    blob: StoredBlob,
    logical_size: u64,
}

/// Takes an object off the list of those that are read again, however that ends.
struct Running(Arc<Inner>, BlobKey);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running().remove(&self.1);
    }
}

impl Damage {
    /// Reads from `store`, decodes on `pool`. `note` tells uploads of an object, so that the next one of its content takes
    /// its place.
    pub(crate) fn new<F>(
        store: Arc<dyn BlobStore>,
        pool: BlockingPool,
        note: impl Fn(BlobKey) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let (count, places, running) = (AtomicU64::new(0), Semaphore::new(READ_AGAIN_MAX), Mutex::default());
        let note = Box::new(move |key| note(key).boxed());
        Self(Arc::new(Inner { store, pool, note, count, places, running }))
    }

    /// A read of an entry went wrong. Its object is read again; what is wrong with it then is counted, logged and noted
    /// before this ends and the client is told: when it uploads the content again, that is not taken for known. Of one
    /// object there is one such read at a time, for all who ask. It goes on when nobody waits for it any more.
    pub(crate) async fn found(&self, entry: &Entry, what: &(dyn Display + Sync)) {
        let Recipe::Whole(blob) = entry.recipe;
        let doubted = Doubted { blob, logical_size: entry.logical_size };
        self.read_again(doubted, what.to_string()).await;
    }

    /// How many objects were found missing or damaged since the start.
    pub(crate) fn count(&self) -> u64 {
        self.0.count.load(Ordering::Relaxed)
    }

    fn read_again(&self, doubted: Doubted, what: String) -> Again {
        let key = doubted.blob.key;
        let mut running = self.0.running();
        if let Some(again) = running.get(&key) {
            return again.clone();
        }
        let (done, wait) = oneshot::channel();
        // It ends with its task, whatever becomes of that.
        let again = wait.map(|_: Result<(), _>| ()).boxed().shared();
        running.insert(key, again.clone());
        let task = Running(Arc::clone(&self.0), key);
        let judge = async move {
            task.0.judge(doubted, &what).await;
            drop(task);
            // Nobody may wait any more.
            let _ = done.send(());
        };
        tokio::spawn(Behalf::current().scope(judge));
        again
    }
}

impl Inner {
    fn running(&self) -> MutexGuard<'_, HashMap<BlobKey, Again>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn judge(&self, doubted: Doubted, what: &str) {
        let key = doubted.blob.key;
        let wrong = match tokio::time::timeout(READ_AGAIN_TIME_MAX, self.look(doubted)).await {
            Ok(Ok(())) => {
                log::warn!("a stored object was read wrong once and is whole object={key} error=\"{what}\"");
                return;
            }
            Ok(Err(error)) if error.kind() == Kind::Corrupt => what.to_owned(),
            Ok(Err(error)) => format!("{what}; it cannot be read again: {error}"),
            Err(_) => format!("{what}; it cannot be read again in time"),
        };
        self.count.fetch_add(1, Ordering::Relaxed);
        log::error!("a stored object is damaged object={key} error=\"{wrong}\"");
        if let Err(error) = (self.note)(key).await {
            log::warn!("the damage could not be noted, an upload will not heal it yet object={key} error=\"{error}\"");
        }
    }

    /// Reads and decodes all of the object; [`Kind::Corrupt`] when it is missing or not what it should be.
    async fn look(&self, doubted: Doubted) -> Result<()> {
        // Never closed.
        let _place = self.places.acquire().await;
        let Some(reader) = self.store.open(&doubted.blob.key, None).await? else {
            return Err(Error::new(Kind::Corrupt, "the stored content is missing"));
        };
        let stored = verified(reader.stream, Expected::from(&doubted.blob));
        let mut decoded = decode::decoded(stored, doubted.logical_size, self.pool.clone());
        while let Some(piece) = decoded.next().await {
            piece?;
        }
        Ok(())
    }
}
