//! Cleaning on real stores: what goes, what stays, and what happens when it is cut off.
#![allow(missing_docs, reason = "a test")]
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod crash;
mod held;
mod instances;
mod plan;
mod scan;
mod stress;
mod support;
