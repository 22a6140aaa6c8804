//! Per-content locks: of many concurrent uploads of one new content, one is done.
//!
//! Locks only save work; no loss may follow from a lost one (the metadata transactions see to
//! that). A `LockActor` lives exactly as long as somebody holds, awaits or is about to ask for
//! its lock.

mod actor;
mod directory;

pub use actor::Turn;
pub use directory::{AcquireLock, LockDirectory, LockStats};
