//! Damage of every kind is found and named; repairs leave whole stores and delete nothing.
#![allow(missing_docs, reason = "a test")]
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod emptied;
mod hostile;
mod looks;
mod lost_rows;
mod repairs;
mod world;
