//! The real program on backends that fail: a matrix of all faults, and a soak with all of them at random.
//!
//! Proxies stand in front of a real S3 server (Garage) and a real PostgreSQL. Set `S3DEDUP_TEST_FAULT` to a part of
//! a case's name to run only such cases; `S3DEDUP_TEST_SEED` and `S3DEDUP_TEST_SECONDS` as for the soak (`soak/`).

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a helper that panics fails its test, as it should")]

#[path = "../crash/audit.rs"]
#[allow(dead_code, reason = "the crash tests use the rest")]
mod audit;
mod health;
mod independence;
mod large;
#[path = "../it/load/mod.rs"]
#[allow(dead_code, reason = "the cluster tests use the rest")]
mod load;
mod matrix;
mod member;
mod soak;
#[path = "../it/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the other tests use the rest")]
mod support;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// One of these tests at a time: each has enough to do for the whole machine.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}
