//! How far the end of the server is, as front ends see it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

const SERVES: u8 = 0;
const ANNOUNCES: u8 = 1;
const REFUSES: u8 = 2;

/// What boot and the front ends share; clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct Stopping(Arc<AtomicU8>);

impl Stopping {
    /// From now on `/ready` says no and every answer asks its client to close the connection.
    pub fn announce(&self) {
        self.0.fetch_max(ANNOUNCES, Ordering::SeqCst);
    }

    /// From now on new requests are refused, too.
    pub fn refuse(&self) {
        self.0.fetch_max(REFUSES, Ordering::SeqCst);
    }

    /// Whether the server is about to end.
    pub fn is_announced(&self) -> bool {
        self.0.load(Ordering::SeqCst) != SERVES
    }

    /// Whether new requests come too late.
    pub fn refuses(&self) -> bool {
        self.0.load(Ordering::SeqCst) == REFUSES
    }
}
