//! Which faults there are.

use std::time::Duration;

use s3dedup_actors::testkit::proxy::{HttpFault, NetworkFault};

use crate::member::{Fault, Way};

/// Longer than a request waits for a backend: what begins during the fault ends during it, too.
const LONG: Duration = Duration::from_secs(6);
const SHORT: Duration = Duration::from_secs(3);

#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub way: Way,
    pub fault: Fault,
    /// Of the connections, or of the requests.
    pub share: f64,
    pub time: Duration,
    /// What is wrong at the same time with all connections.
    pub also: Option<(Way, NetworkFault)>,
    /// Other settings than the usual ones.
    pub settings: &'static [(&'static str, &'static str)],
}

impl Case {
    pub fn name(&self) -> String {
        let mut name = format!("{:?} {:?} {}", self.way, self.fault, self.share);
        if let Some(also) = self.also {
            name += &format!(" {also:?}");
        }
        if let [first, ..] = self.settings {
            name += &format!(" {first:?}");
        }
        name
    }

    pub fn all() -> Vec<Self> {
        let mut cases = Vec::new();
        let stall = Fault::Network(NetworkFault::Stall);
        // A request that has waited for one thing has less time to wait for the next one.
        let settings: &[_] = &[("UPLOADER_POOL_SIZE", "1")];
        cases.push(Self { way: Way::S3, fault: stall, share: 1.0, time: LONG, also: None, settings });
        let also = Some((Way::Metadata, NetworkFault::Delay(Duration::from_millis(600))));
        cases.push(Self { way: Way::Locks, fault: stall, share: 1.0, time: LONG + SHORT, also, settings: &[] });
        let mut add = |way, fault, share, time| cases.push(Self { way, fault, share, time, also: None, settings: &[] });
        let slow = |way| NetworkFault::Drip(if way == Way::S3 { 1000 } else { 400 });
        // Those first that take longest.
        for way in [Way::S3, Way::Database] {
            for fault in [NetworkFault::Stall, NetworkFault::Deaf, NetworkFault::Cut, slow(way)] {
                add(way, Fault::Network(fault), 1.0, LONG);
            }
            add(way, Fault::Network(NetworkFault::Deaf), 0.5, LONG);
        }
        add(Way::Locks, Fault::Network(NetworkFault::Stall), 1.0, LONG + SHORT);
        add(Way::Locks, Fault::Network(NetworkFault::Cut), 1.0, LONG);
        add(Way::Metadata, Fault::Network(NetworkFault::Stall), 1.0, LONG);
        for fault in [
            HttpFault::Refuse(500, "InternalError"),
            HttpFault::Refuse(503, "SlowDown"),
            HttpFault::TooLong,
            HttpFault::TooShort,
            HttpFault::CutBody,
            HttpFault::WrongBytes,
            HttpFault::Page,
        ] {
            add(Way::S3, Fault::Http(fault), 1.0, SHORT);
            add(Way::S3, Fault::Http(fault), 0.3, SHORT);
        }
        for way in [Way::S3, Way::Database] {
            add(way, Fault::Network(NetworkFault::Reset), 1.0, SHORT);
            add(way, Fault::Network(NetworkFault::Reset), 0.5, SHORT);
            add(way, Fault::Network(NetworkFault::Delay(Duration::from_millis(300))), 1.0, SHORT);
        }
        cases
    }
}
