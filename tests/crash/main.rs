//! Every crash point, every action, both metadata stores, both content stores: the real program is driven into
//! the point, started again, and the whole store is checked.
//!
//! Needs the feature `failpoints`. `S3DEDUP_TEST_POINT=TEXT,TEXT` runs the points with one of the texts in
//! their names, as the table has them;
//! `S3DEDUP_TEST_STALL=SECONDS` makes stalls shorter than 30 s.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a helper that panics fails its test, as it should")]

mod audit;
mod care;
mod cases;
mod heal;
mod matrix;
mod mix;
mod panics;
mod stuck;
#[path = "../it/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the other test uses the rest")]
mod support;
mod world;
