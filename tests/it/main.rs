//! The whole server, from outside: the real binary, real clients, real S3 servers.
//!
//! Every test starts its own server on its own port with its own data, so all run in parallel;
//! a server that is stopped cleanly must leave its temporary directory empty and exit with 0.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a helper that panics fails its test, as it should")]

mod access;
mod api;
mod browser;
mod care;
mod clean;
mod clean_bucket;
mod client;
mod cluster;
mod connections;
mod damage;
mod dedup;
mod drain;
mod durability;
mod exclusive;
mod filetracker;
mod full_database;
mod health;
mod instances;
mod integrity;
mod limits;
#[allow(dead_code, reason = "the fault tests use the rest")]
mod load;
mod logs;
mod metrics;
mod migration;
mod migration_live;
mod model;
mod outage;
mod stats;
mod support;
mod tls;
mod ui;
