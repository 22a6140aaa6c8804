//! Every crash point, every action, both metadata stores, both content stores: the real program is driven into
//! the point, started again, and the whole store is checked.
//!
//! Needs the feature `failpoints`. `S3DEDUP_TEST_LONG=1` stalls for 30 s instead of 6, which is longer than any
//! wait for metadata already.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a helper that panics fails its test, as it should")]

mod audit;
mod matrix;
mod mix;
mod stuck;
#[path = "../it/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the other test uses the rest")]
mod support;
