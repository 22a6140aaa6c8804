//! Locks that several instances share: advisory locks of PostgreSQL.
//!
//! One actor and one session hold all keys of an instance, because a lock belongs to the session that took
//! it. One statement is under way at a time and carries everything that came together meanwhile; none of
//! them ever blocks. When the session ends, so do all its leases: they tell ([`KeyLease::is_lost`]), and who
//! waits goes on with the next session.
//!
//! The actor sees to it that no session takes a key twice, and that no more than a fixed number of keys is
//! held. Requests of one instance for one key follow each other; requests of different instances take
//! turns (see `queue`).

mod actor;
mod key;
mod lease;
mod queue;
mod session;
mod settings;
mod statement;

use std::sync::Arc;

use tokio::sync::oneshot;

pub use actor::{AcquireKey, DistributedLockActor, DistributedLockPlan};
pub use key::LockKey;
pub use lease::KeyLease;
pub use queue::Times;
pub use settings::{DistributedLockSettings, DistributedLockStats};

use crate::model::{Digest, Result};
use crate::runtime::behalf::Behalf;
use crate::runtime::way::Way;

/// The way to the keys of one bucket.
#[derive(Clone)]
pub struct DistributedLocks {
    actor: Way<DistributedLockActor>,
    bucket: Arc<str>,
}

impl DistributedLocks {
    /// Through this actor.
    pub fn new(actor: Way<DistributedLockActor>, bucket: &str) -> Self {
        Self { actor, bucket: bucket.into() }
    }

    /// Waits until this instance holds the key of a content; gives up at the deadline, when there is no session for too
    /// long, and when the returned future is dropped.
    pub async fn acquire(&self, digest: Digest, times: Times) -> Result<KeyLease> {
        let (reply, lease) = oneshot::channel();
        let (key, behalf) = (LockKey::new(&self.bucket, &digest), Behalf::current());
        self.actor.ask_by(AcquireKey { key, times, reply, behalf }, lease).await
    }
}
