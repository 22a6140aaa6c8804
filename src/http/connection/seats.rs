//! How many connections an address may have.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use crate::access::failures::network_of;
use crate::access::networks::Networks;

/// How many connections an address may have.
#[derive(Clone, Default, Debug)]
pub struct Crowd {
    /// So many; 0 for any number.
    pub connections_max: usize,
    /// Whose connections are not counted.
    pub proxies: Networks,
}

/// All connections that count, by address; clones are the same one.
#[derive(Clone, Default)]
pub struct Seats {
    crowd: Crowd,
    taken: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// A counted connection, until it is dropped.
pub struct Seat {
    address: IpAddr,
    taken: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Seats {
    /// For this crowd; nobody is there yet.
    pub fn new(crowd: Crowd) -> Self {
        Self { crowd, taken: Arc::default() }
    }

    /// `None` where nothing is counted; an error is how many there are already.
    pub fn take(&self, peer: IpAddr) -> Result<Option<Seat>, usize> {
        if self.crowd.connections_max == 0 || self.crowd.proxies.contain(peer) {
            return Ok(None);
        }
        let address = network_of(peer);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        // No more entries than open connections.
        let count = taken.entry(address).or_default();
        if *count >= self.crowd.connections_max {
            return Err(*count);
        }
        *count += 1;
        Ok(Some(Seat { address, taken: Arc::clone(&self.taken) }))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_ends_makes_room_for_another_of_its_address() {
        let seats = Seats::new(Crowd { connections_max: 2, proxies: "10.0.0.9".parse().unwrap() });
        let take = |text: &str| seats.take(text.parse().unwrap());
        let (first, second) = (take("10.0.0.1").unwrap().unwrap(), take("10.0.0.1").unwrap().unwrap());
        assert_eq!(take("10.0.0.1").err(), Some(2));
        assert!(take("10.0.0.2").is_ok() && take("10.0.0.9").unwrap().is_none());
        drop(first);
        assert!(take("10.0.0.1").is_ok());
        drop(second);
        assert!(seats.taken.lock().unwrap().is_empty());
    }
}
