//! The engine as a front end sees it: real SQLite, contents in memory, faults on command.
//!
//! Every test ends with the check that nothing was left behind: permits, locks, uploads, memory.
#![allow(missing_docs, reason = "a test")]
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod faults;
mod model;
mod sharing;
mod supervision;
mod support;
mod tree;
