//! The face of s3dedup: command line, configuration, HTTP.

pub mod http;
