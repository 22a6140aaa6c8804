//! Servers for tests: S3 in this process, Garage as a process, and one that misbehaves.
#![allow(dead_code, reason = "each test target uses a part")]

pub mod fault_server;
pub mod garage;
pub mod s3_server;
