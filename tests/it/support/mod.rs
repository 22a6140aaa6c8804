//! What the tests stand on.

pub mod between;
pub mod content;
pub mod http;
pub mod python;
pub mod s3;
pub mod server;
pub mod slow;

pub use content::{Noise, date, gunzip, gzip, sha256, upload};
pub use http::{Connection, Request, Response};
pub use server::TestServer;
pub use slow::SlowUploads;

use std::time::{Duration, Instant};

/// Waits until `probe` answers `Some`; panics with `what` after a generous while.
pub fn eventually<T>(what: &str, probe: impl FnMut() -> Option<T>) -> T {
    eventually_within(Duration::from_secs(30), what, probe)
}

/// The same, for what takes longer.
pub fn eventually_within<T>(longest: Duration, what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + longest;
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
