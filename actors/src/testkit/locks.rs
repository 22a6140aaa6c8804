//! The locks among instances, for tests and measurements of them alone.

pub use crate::lock::distributed::{
    DistributedLockActor, DistributedLockPlan, DistributedLockSettings, DistributedLockStats, DistributedLocks,
    KeyLease, LockKey, Times,
};
pub use crate::lock::{LockDirectory, LockStats, Locks, Turn};
