//! Storing a content under a name.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use actix::dev::ToEnvelope;
use actix::{Actor, Handler, Message};
use rand::Rng;

use super::watch::Waits;
use super::{Engine, METADATA_WAIT_MAX};
use crate::failpoint::{self, Point};
use crate::lock::distributed::Times;
use crate::lock::{Lease, Turn};
use crate::metadata::{MetadataActor, Timely};
use crate::model::{BlobKey, EntryKey, Error, Kind, Result, Stamp, StoredBlob};
use crate::runtime::behalf::Behalf;
use crate::runtime::pulse::Mark;
use crate::store::blob::Spooled;
use crate::store::meta::{CommitPut, IntentId, Origin, PlanPut, PutCommit, PutPlan};
use crate::upload::UploadBlob;

/// How long a request waits for another one that uploads the same content, here or in another instance.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(300);

/// How long a request may have waited for another instance's upload that failed, before it looks whether the content store is
/// there. It would find that out by an upload of its own, after as long a wait again.
const LOCK_WAIT_SHORT: Duration = Duration::from_secs(1);

/// Within this time a client is to hear that the content store is away.
const AWAY_KNOWN_MAX: Duration = Duration::from_millis(4500);

/// What the content store has at least to prove that it is there.
const PROOF_MIN: Duration = Duration::from_millis(700);

/// What is left at least to each question of a put.
const ASK_MIN: Duration = Duration::from_millis(500);

/// How often a put plans because the content changed hands under it, or the lock session was lost: with the waits
/// between, for about a second.
const ROUNDS_MAX: u32 = 8;

/// What a put that planned twice waits before it plans again, doubled each time and spread by chance: whatever takes
/// the content away from it gets time to end.
const ROUND_PAUSE: Duration = Duration::from_millis(10);

/// The answer to [`Engine::put`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PutOutcome {
    /// The name holds the content in the wanted version, durably.
    Stored,
    /// A newer version was there and stays.
    Stale {
        /// The version that stays.
        current: Stamp,
    },
}

/// The answer to [`Engine::migrate`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Migrated {
    /// The name holds the content in the wanted version, durably.
    Stored {
        /// Whether the content was unknown and has been uploaded.
        is_new: bool,
    },
    /// A version that is as new, or newer, was there and stays.
    Stale,
    /// The name was deleted here.
    Deleted,
}

impl Engine {
    /// Lets a name hold a content; newest wins. Durable when it returns.
    ///
    /// A known content takes one transaction and no lock; an unknown one is uploaded by whoever
    /// gets its lock, and all who wait for the lock share the result.
    ///
    /// With an old server beside this store its version counts, too, and it is told; see the module `beside`.
    pub async fn put(&self, key: EntryKey, stamp: Stamp, body: Spooled) -> Result<PutOutcome> {
        let (begun, mark) = (Instant::now(), self.inner.pulse.mark());
        let asked = AtomicU64::new(0);
        let Some(beside) = self.beside() else {
            let put = Put { key, stamp, body, begun, mark, asked, origin: Origin::Client };
            return self.store(&put).await?.answer();
        };
        let there = beside.look(&key).await;
        if let Ok(Some(there)) = &there
            && there.stamp > stamp
            // One that may not be the real version yet stands against nothing; if it is, it comes here later.
            && !there.is_young
        {
            return Ok(PutOutcome::Stale { current: there.stamp });
        }
        let put = Put { key, stamp, body, begun, mark, asked, origin: Origin::Mirrored };
        let outcome = self.store(&put).await?.answer()?;
        if outcome == PutOutcome::Stored {
            beside.tell_soon(self, &put.key, there.is_ok()).await;
        }
        Ok(outcome)
    }

    /// Copies a file from elsewhere: like [`Engine::put`], but a version that is as new stays as it is, and a name that was
    /// deleted here in that version or a newer one stays deleted.
    pub async fn migrate(&self, key: EntryKey, stamp: Stamp, body: Spooled) -> Result<Migrated> {
        let (begun, mark) = (Instant::now(), self.inner.pulse.mark());
        let put = Put { key, stamp, body, begun, mark, asked: AtomicU64::new(0), origin: Origin::Copied };
        let ended = self.store(&put).await?;
        Ok(match ended.end {
            End::Stored => {
                self.inner.migrated.fetch_add(1, Ordering::Relaxed);
                Migrated::Stored { is_new: ended.is_new }
            }
            End::Stale { .. } => Migrated::Stale,
            End::Deleted => Migrated::Deleted,
        })
    }

    async fn store(&self, put: &Put) -> Result<Stored> {
        for round in 0..ROUNDS_MAX {
            if let Some(doublings) = round.checked_sub(2) {
                let share = rand::rng().random_range(0.5..=1.0);
                tokio::time::sleep((ROUND_PAUSE * 2_u32.pow(doublings)).mul_f64(share)).await;
            }
            self.inner.pulse.expect_steady_since(put.mark)?;
            let plan = self.ask(put, put.plan(None)).await?;
            failpoint::hit(Point::PutAfterPlan).await?;
            let outcome = match plan {
                PutPlan::Missing => self.put_unknown(put).await?,
                plan => Some(Stored { end: settled(plan)?, is_new: false }),
            };
            if let Some(stored) = outcome {
                if matches!(stored.end, End::Stored) {
                    let counts = &self.inner.counts;
                    let count = if stored.is_new { &counts.uploaded } else { &counts.known };
                    count.fetch_add(1, Ordering::Relaxed);
                }
                return Ok(stored);
            }
        }
        Err(Error::new(Kind::Unavailable, "the content changed hands too often"))
    }

    /// Uploads an unknown content under its lock; `None` when the caller is to plan anew.
    async fn put_unknown(&self, put: &Put) -> Result<Option<Stored>> {
        failpoint::hit(Point::PutBeforeLock).await?;
        let begun = Instant::now();
        let times = Times { begun: put.begun, deadline: begun + LOCK_WAIT_MAX };
        let waits = Waits::new(&self.inner.counts.lock_waiters);
        let turn = self.inner.locks.acquire(put.body.digest, times).await;
        drop(waits);
        let lease = match turn? {
            Turn::Granted(lease) => lease,
            Turn::Stored => return Ok(None),
            Turn::Failed { kind, context } => return Err(Error::new(kind, context)),
        };
        match self.put_under_lock(put, &lease, begun.elapsed()).await {
            Ok(done) => {
                if done.is_stored {
                    lease.content_is_stored();
                }
                Ok(done.end.map(|end| Stored { end, is_new: done.is_new }))
            }
            Err(error) => {
                lease.failed(&error);
                Err(error)
            }
        }
    }

    /// A lock that got lost is another instance's by now: it saves an upload to look again. That is no
    /// question of safety, and an upload that has begun goes on.
    async fn put_under_lock(&self, put: &Put, lease: &Lease, waited: Duration) -> Result<Done> {
        failpoint::hit(Point::PutAfterLock).await?;
        if lease.is_lost() {
            return Ok(Done::PLAN_ANEW);
        }
        self.inner.pulse.expect_steady_since(put.mark)?;
        // An intent that cannot be used would only be litter.
        self.inner.source.expect_up()?;
        if waited > LOCK_WAIT_SHORT {
            self.probe_contents_within(AWAY_KNOWN_MAX.saturating_sub(waited).max(PROOF_MIN)).await?;
        }
        let (intent, key) = match self.ask(put, put.plan(Some(self.inner.intent.clone()))).await? {
            PutPlan::Upload { intent, key } => (intent, key),
            plan => {
                let is_stored = plan == PutPlan::Committed;
                return Ok(Done { is_stored, is_new: false, end: Some(settled(plan)?) });
            }
        };
        failpoint::hit(Point::PutAfterIntent).await?;
        if lease.is_lost() {
            return Ok(Done::PLAN_ANEW);
        }
        // When this fails the intent stays: the object may exist, and the cleaner finds it by that.
        let behalf = Behalf::current();
        let upload = UploadBlob { key, body: put.body.bytes.clone(), info: put.body.info(), behalf };
        self.inner.uploads.ask(upload).await?;
        failpoint::hit(Point::PutBeforeCommit).await?;
        // Whoever waited for this may have stored and deleted the name since: it must not come back.
        self.inner.pulse.expect_steady_since(put.mark)?;
        let commit = self.ask(put, put.commit(intent, key)).await?;
        failpoint::hit(Point::PutAfterCommit).await?;
        Ok(match commit {
            PutCommit::IntentLost => Done::PLAN_ANEW,
            PutCommit::Committed => {
                self.remember(put, key);
                Done { is_stored: true, is_new: true, end: Some(End::Stored) }
            }
            PutCommit::Stale { current } => Done { is_stored: false, is_new: true, end: Some(End::Stale { current }) },
            PutCommit::Deleted => Done { is_stored: false, is_new: false, end: Some(End::Deleted) },
        })
    }

    /// Asks the metadata store. All questions of a put together get as much time as one has alone, so that its client is
    /// not kept waiting for each of them in turn when the store is slow.
    async fn ask<M, T>(&self, put: &Put, message: M) -> Result<T>
    where
        M: Message<Result = Result<T>> + Send + 'static,
        T: Send + 'static,
        MetadataActor: Handler<Timely<M>>,
        <MetadataActor as Actor>::Context: ToEnvelope<MetadataActor, Timely<M>>,
    {
        let begun = Instant::now();
        let spent = Duration::from_millis(put.asked.load(Ordering::Relaxed));
        let left = METADATA_WAIT_MAX.saturating_sub(spent).max(ASK_MIN);
        let answer = self.metadata_within(left, message).await;
        let millis = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        put.asked.fetch_add(millis, Ordering::Relaxed);
        answer
    }

    /// A content is often read soon after it was stored: small ones are kept ready.
    fn remember(&self, put: &Put, key: BlobKey) {
        let bytes = &put.body.bytes;
        if self.inner.cache.wants(bytes.len())
            && bytes.memory().is_some()
            && let Ok(bytes) = bytes.read_range(0..bytes.len())
        {
            // What arrived is part of a larger network buffer, which is not to be kept with it.
            self.inner.cache.insert(key, bytes::Bytes::copy_from_slice(&bytes));
        }
    }
}

/// What one turn under the lock came to.
struct Done {
    /// Whether the content is known now, so that those who wait need no upload.
    is_stored: bool,
    /// Whether this turn uploaded it.
    is_new: bool,
    /// `None` when the caller is to plan anew.
    end: Option<End>,
}

impl Done {
    const PLAN_ANEW: Self = Self { is_stored: false, is_new: false, end: None };
}

/// How a put ended.
struct Stored {
    end: End,
    /// Whether the content was unknown and has been uploaded.
    is_new: bool,
}

#[derive(Clone, Copy)]
enum End {
    Stored,
    Stale {
        current: Stamp,
    },
    /// Only a copy comes too late for this.
    Deleted,
}

impl Stored {
    /// What a client is told.
    fn answer(self) -> Result<PutOutcome> {
        match self.end {
            End::Stored => Ok(PutOutcome::Stored),
            End::Stale { current } => Ok(PutOutcome::Stale { current }),
            End::Deleted => Err(Error::new(Kind::Internal, "internal error")),
        }
    }
}

/// One request's wish.
struct Put {
    key: EntryKey,
    stamp: Stamp,
    body: Spooled,
    /// When the body was in.
    begun: Instant,
    mark: Mark,
    /// For how long the metadata store was asked, in milliseconds.
    asked: AtomicU64,
    origin: Origin,
}

impl Put {
    fn plan(&self, intent: Option<crate::store::meta::NewIntent>) -> PlanPut {
        let (key, stamp) = (self.key.clone(), self.stamp);
        PlanPut {
            key,
            stamp,
            digest: self.body.digest,
            logical_size: self.body.logical_size,
            intent,
            origin: self.origin,
        }
    }

    fn commit(&self, intent: IntentId, key: BlobKey) -> CommitPut {
        let blob = StoredBlob {
            key,
            encoding: self.body.encoding,
            stored_size: self.body.bytes.len(),
            stored_hash: self.body.stored_hash,
        };
        let logical_size = self.body.logical_size;
        CommitPut { key: self.key.clone(), stamp: self.stamp, logical_size, intent, blob, origin: self.origin }
    }
}

/// The outcome of a plan that needs no upload.
fn settled(plan: PutPlan) -> Result<End> {
    match plan {
        PutPlan::Committed => Ok(End::Stored),
        PutPlan::Stale { current } => Ok(End::Stale { current }),
        PutPlan::Deleted => Ok(End::Deleted),
        PutPlan::Missing | PutPlan::Upload { .. } => Err(Error::new(Kind::Internal, "internal error")),
    }
}
