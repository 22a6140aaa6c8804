//! The face of s3dedup: command line, configuration, HTTP.

pub mod access;
pub mod ask;
pub mod boot;
pub mod care;
pub mod clean;
pub mod cli;
pub mod config;
pub mod exit;
pub mod files;
pub mod http;
pub mod instances;
pub mod logging;
pub mod migrate;
pub mod observe;
pub mod terminal;
pub mod tls;
