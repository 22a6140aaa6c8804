//! A held key, and the session that all of them stand and fall with.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use actix::Addr;
use tokio::sync::Notify;

use super::actor::{DistributedLockActor, ReleaseKey};
use super::key::LockKey;

/// The time of one session: what was locked in it is locked until it ends.
pub(super) struct Epoch {
    is_over: AtomicBool,
    over: Notify,
    began: Instant,
    /// When the last statement that was answered had been sent, in milliseconds since `began`.
    proven: AtomicU64,
    ttl: Duration,
}

impl Epoch {
    pub(super) fn new(began: Instant, ttl: Duration) -> Self {
        Self { is_over: AtomicBool::new(false), over: Notify::new(), began, proven: AtomicU64::new(0), ttl }
    }

    /// The session lived when this was sent.
    pub(super) fn prove(&self, sent: Instant) {
        let millis = sent.duration_since(self.began).as_millis();
        self.proven.store(u64::try_from(millis).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(super) fn end(&self) {
        self.is_over.store(true, Ordering::Release);
        self.over.notify_waiters();
    }

    /// A process that was stopped for a while finds out by the clock, before anything else has run.
    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
            || self.began.elapsed() > Duration::from_millis(self.proven.load(Ordering::Relaxed)) + self.ttl
    }
}

/// A held key; dropping it gives it back.
pub struct KeyLease {
    pub(super) actor: Addr<DistributedLockActor>,
    pub(super) epoch: Arc<Epoch>,
    pub(super) key: LockKey,
}

impl KeyLease {
    /// Whether the key may be another instance's by now. It stays lost.
    pub fn is_lost(&self) -> bool {
        self.epoch.is_over()
    }

    /// Ready when the session has ended, and the key with it.
    #[cfg(feature = "testkit")]
    pub async fn lost(&self) {
        let over = self.epoch.over.notified();
        tokio::pin!(over);
        over.as_mut().enable();
        if !self.epoch.is_over.load(Ordering::Acquire) {
            over.await;
        }
    }
}

impl Drop for KeyLease {
    fn drop(&mut self) {
        // What was locked in a session that is over is free.
        if !self.epoch.is_over.load(Ordering::Acquire) {
            self.actor.do_send(ReleaseKey { key: self.key, epoch: Arc::clone(&self.epoch) });
        }
    }
}

impl fmt::Debug for KeyLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyLease({:?} is_lost={})", self.key, self.is_lost())
    }
}
