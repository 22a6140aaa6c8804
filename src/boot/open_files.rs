//! The limit of open files: connections, spool files and stores share it.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Below this, a few hundred clients are enough to run out.
const COMFORTABLE: u64 = 4096;

/// Raises the soft limit to the hard one; returns what holds now (`u64::MAX` for no limit).
pub fn raise() -> u64 {
    let before = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: before.maximum, maximum: before.maximum };
    let limit = match setrlimit(Resource::Nofile, wanted) {
        Ok(()) => before.maximum,
        Err(error) => {
            log::debug!("cannot raise the limit of open files error={error}");
            before.current
        }
    };
    let limit = limit.unwrap_or(u64::MAX);
    if limit < COMFORTABLE {
        log::warn!("the limit of open files is low limit={limit} comfortable={COMFORTABLE}");
    }
    limit
}
