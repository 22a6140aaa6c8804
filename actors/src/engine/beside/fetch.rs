//! Fetching a file from the old side: once however many clients wait, and stored as if it had been uploaded.

use std::collections::HashMap;
use std::collections::hash_map::Entry as MapEntry;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use tokio::sync::Semaphore;

use super::tape::{MEMORY_BYTES_MAX, Tape};
use super::{Beside, none_if_no_file};
use crate::download::decode::decoded;
use crate::engine::Engine;
use crate::filetracker::{OldDownload, OldFile};
use crate::model::{EntryKey, Error, Kind, Result, Retry, Stamp};
use crate::spool::BodyEncoding;
use crate::store::blocking::BlockingPool;

/// Files fetched at once.
const FETCHES_MAX: usize = 64;
/// How long a fetch may wait for its turn.
const TURN_MAX: Duration = Duration::from_secs(4);
/// How long a client waits for the beginning of a file.
const BEGIN_MAX: Duration = Duration::from_secs(10);
/// How long the answer to a client waits for all of a file that is kept in memory: what is wrong with it can be said as long as
/// the answer has not begun.
const WHOLE_MAX: Duration = Duration::from_secs(4);
/// How long whoever tells the old server waits for a newer version of it. Shorter than a claim lasts.
const BRING_MAX: Duration = Duration::from_secs(20);
/// Attempts to store what was fetched, and the pause between them.
const ATTEMPTS_MAX: u32 = 5;
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// What is on its way.
pub(super) struct Fetches {
    tapes: Mutex<HashMap<EntryKey, Arc<Tape>>>,
    turns: Semaphore,
}

impl Default for Fetches {
    fn default() -> Self {
        Self { tapes: Mutex::default(), turns: Semaphore::new(FETCHES_MAX) }
    }
}

/// A file that is being fetched, for one client.
pub struct Fetched {
    file: OldFile,
    tape: Arc<Tape>,
    pool: BlockingPool,
}

impl Fetched {
    /// What the old server says of it.
    pub(super) fn file(&self) -> &OldFile {
        &self.file
    }

    /// The bytes as the old server sends them.
    pub(super) fn raw(self) -> BoxStream<'static, Result<Bytes>> {
        self.tape.read()
    }

    /// The logical bytes; `None` when the old server does not say how many there are.
    pub(super) fn decoded(self) -> Option<BoxStream<'static, Result<Bytes>>> {
        match self.file.encoding {
            BodyEncoding::Plain => Some(self.tape.read()),
            BodyEncoding::Gzip => {
                let size = self.file.logical_size?;
                Some(decoded(self.tape.read(), size, self.pool))
            }
        }
    }
}

/// Why a file is fetched.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// A client asked for it.
    Read,
    /// The old server is to be told of the name, and has a newer version. Whoever tells knows that it is not what it was told.
    Tell,
}

/// Ends the tape, and takes it out of the way, however the fetch ends.
struct OnTheWay {
    beside: Beside,
    key: EntryKey,
    tape: Arc<Tape>,
}

impl Drop for OnTheWay {
    fn drop(&mut self) {
        let cut_off = Error::new(Kind::Unavailable, "the fetch from the old server was cut off");
        self.tape.end(Err(&cut_off));
        let mut tapes = self.beside.0.fetches.tapes.lock().unwrap_or_else(PoisonError::into_inner);
        if tapes.get(&self.key).is_some_and(|tape| Arc::ptr_eq(tape, &self.tape)) {
            tapes.remove(&self.key);
        }
        drop(tapes);
        self.tape.settle(Err(&cut_off));
        self.beside.0.counts.fetching.fetch_sub(1, Relaxed);
    }
}

impl Beside {
    /// Joins the fetch of a name, or begins it; `None` when the old side does not have it any more. It goes on when nobody
    /// waits for it any more. What was fetched before `at_least` came is not joined.
    pub(super) async fn fetch(&self, engine: &Engine, key: &EntryKey, at_least: Stamp) -> Result<Option<Fetched>> {
        let late = |_| Err(Error::new(Kind::Unavailable, "the old server does not answer in time"));
        let fetched = self.fetch_newest(engine, key, at_least);
        let fetched = tokio::time::timeout(BEGIN_MAX, fetched).await.unwrap_or_else(late)?;
        if let Some(Fetched { file, tape, .. }) = &fetched
            && file.length.is_some_and(|length| length <= MEMORY_BYTES_MAX)
        {
            match tokio::time::timeout(WHOLE_MAX, tape.ended()).await {
                Ok(ended) => ended?,
                Err(_) => tape.goes_on()?,
            }
        }
        Ok(fetched)
    }

    async fn fetch_newest(&self, engine: &Engine, key: &EntryKey, at_least: Stamp) -> Result<Option<Fetched>> {
        let mut tape = self.joined(engine, key, Purpose::Read)?;
        let mut file = tape.file().await?;
        if file.as_ref().is_some_and(|file| file.stamp < at_least) {
            // What became of the older version is not asked.
            let _ = tape.settled().await;
            tape = self.joined(engine, key, Purpose::Read)?;
            file = tape.file().await?;
        }
        // Who has not begun can be told to come back.
        tape.goes_on()?;
        let pool = engine.inner.compute.clone();
        Ok(file.map(|file| Fetched { file, tape, pool }))
    }

    /// Brings what the old side has of a name here, and waits until that is done.
    pub(super) async fn bring_here(&self, engine: &Engine, key: &EntryKey) -> Result<()> {
        let tape = self.joined(engine, key, Purpose::Tell)?;
        let late = |_| Err(Error::new(Kind::Unavailable, "a newer version is on its way from the old server"));
        match tokio::time::timeout(BRING_MAX, tape.settled()).await.unwrap_or_else(late) {
            // It has been told of; waiting would not mend it.
            Err(error) if error.kind() == Kind::Corrupt => Ok(()),
            other => other,
        }
    }

    fn joined(&self, engine: &Engine, key: &EntryKey, purpose: Purpose) -> Result<Arc<Tape>> {
        let mut tapes = self.0.fetches.tapes.lock().unwrap_or_else(PoisonError::into_inner);
        let vacant = match tapes.entry(key.clone()) {
            MapEntry::Occupied(on_its_way) => return Ok(Arc::clone(on_its_way.get())),
            MapEntry::Vacant(vacant) => vacant,
        };
        if self.is_stopping() {
            return Err(Error::new(Kind::Unavailable, "the server is being stopped"));
        }
        let inner = &engine.inner;
        let reservation = inner.spool_budget.reserve_nothing();
        let tape = Arc::new(Tape::new(reservation, inner.compute.clone(), inner.spool_limits.temp_dir.clone()));
        vacant.insert(Arc::clone(&tape));
        drop(tapes);
        self.0.counts.fetching.fetch_add(1, Relaxed);
        let on_the_way = OnTheWay { beside: self.clone(), key: key.clone(), tape: Arc::clone(&tape) };
        let (beside, engine) = (self.clone(), engine.clone());
        // When the thread is gone the work is dropped, which ends the tape.
        self.begin(async move {
            let OnTheWay { key, tape, .. } = &on_the_way;
            let fetched = beside.fetch_onto(&engine, key, tape, purpose).await;
            tape.settle(fetched.as_ref().copied());
            if let Err(error) = fetched {
                if error.kind() == Kind::Corrupt {
                    beside.0.counts.broken.fetch_add(1, Relaxed);
                    log::error!("a file of the old server is broken name={:?} error=\"{error}\"", key.name());
                } else {
                    log::warn!("a file could not be fetched name={:?} error=\"{error}\"", key.name());
                }
                tape.end(Err(&error));
            }
        });
        Ok(tape)
    }

    async fn fetch_onto(&self, engine: &Engine, key: &EntryKey, tape: &Tape, purpose: Purpose) -> Result<()> {
        let crowded = || Error::new(Kind::Overloaded, "too many files are being fetched from the old server");
        let turn = tokio::time::timeout(TURN_MAX, self.0.fetches.turns.acquire()).await;
        let _turn = turn.map_err(|_| crowded())?.map_err(|_| crowded())?;
        let Some(download) = self.open_there(key).await? else {
            tape.open(None);
            return Ok(());
        };
        let stamp = download.file.stamp;
        let body = self.receive(engine, key, download, tape).await?;
        self.0.counts.fetched.fetch_add(1, Relaxed);
        // What came may be what the old server was being told just then, in a version of its own.
        if purpose == Purpose::Read && self.doubts(key).await? {
            return Ok(());
        }
        // Clients have what they asked for; the next one is to find it here.
        for attempt in 1.. {
            match engine.migrate(key.clone(), stamp, body.clone()).await {
                Ok(_) => break,
                Err(error) if error.retry() == Retry::Later && attempt < ATTEMPTS_MAX && !self.is_stopping() => {
                    tokio::time::sleep(AGAIN_AFTER).await;
                }
                // Nothing is wrong with the file.
                Err(error) => {
                    let what = "what was fetched from the old server could not be stored";
                    return Err(Error::new(Kind::Unavailable, what).with_source(error));
                }
            }
        }
        Ok(())
    }

    /// Opens the newest that the old side has.
    pub(super) async fn open_there(&self, key: &EntryKey) -> Result<Option<OldDownload>> {
        let (mut newest, mut trouble): (Option<OldDownload>, _) = (None, None);
        for source in &self.0.settings.sources {
            match source.open(key).await.or_else(none_if_no_file) {
                Ok(Some(there)) if newest.as_ref().is_none_or(|newest| there.file.stamp > newest.file.stamp) => {
                    newest = Some(there);
                }
                Ok(_) => {}
                Err(error) => trouble = Some(error),
            }
        }
        match (newest, trouble) {
            (None, Some(error)) => Err(error),
            (newest, _) => Ok(newest),
        }
    }
}
