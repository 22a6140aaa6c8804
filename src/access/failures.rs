//! How often an address failed to show a token.
//!
//! Not against guessing: nobody guesses 256 bits. It tells clients with an old token to slow down, and keeps what they cost
//! small. An address is a bucket of failures that fills again with time; the table of addresses is bounded.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Addresses that are remembered at once.
const ADDRESSES_MAX: usize = 10_000;
/// How often a full table is looked through for addresses that can be forgotten.
const SWEEP_PAUSE: Duration = Duration::from_secs(1);
const MINUTE: f64 = 60.0;

/// Failures by address.
pub struct Failures {
    per_minute: u32,
    table: Mutex<Buckets>,
}

#[derive(Default)]
struct Buckets {
    by_address: HashMap<IpAddr, Bucket>,
    swept: Option<Instant>,
}

#[derive(Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
    told: bool,
}

impl Failures {
    /// An address may fail so often at once, and so often a minute; 0: as often as it likes.
    pub fn new(per_minute: u32) -> Self {
        Self { per_minute, table: Mutex::default() }
    }

    /// Notes a failure. An error is how long it takes until one is answered as such again.
    pub fn note(&self, sender: IpAddr, now: Instant) -> Result<(), Duration> {
        if self.per_minute == 0 {
            return Ok(());
        }
        let address = network_of(sender);
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        self.make_room(&mut table, address, now);
        let full = f64::from(self.per_minute);
        let bucket = table.by_address.entry(address).or_insert(Bucket { left: full, at: now, told: false });
        bucket.left = self.left(bucket, now);
        bucket.at = now;
        if bucket.left >= full {
            bucket.told = false;
        }
        if bucket.left >= 1.0 {
            bucket.left -= 1.0;
            return Ok(());
        }
        if !bucket.told {
            bucket.told = true;
            log::warn!("too many wrong tokens address={address} per_minute={}", self.per_minute);
        }
        Err(Duration::from_secs_f64((1.0 - bucket.left) * MINUTE / full))
    }

    fn left(&self, bucket: &Bucket, now: Instant) -> f64 {
        let full = f64::from(self.per_minute);
        let refilled = now.saturating_duration_since(bucket.at).as_secs_f64() * full / MINUTE;
        (bucket.left + refilled).min(full)
    }

    /// Forgets addresses whose failures are over and, when that is not enough, any one.
    fn make_room(&self, table: &mut Buckets, address: IpAddr, now: Instant) {
        if table.by_address.len() < ADDRESSES_MAX || table.by_address.contains_key(&address) {
            return;
        }
        if table.swept.is_none_or(|swept| now.saturating_duration_since(swept) >= SWEEP_PAUSE) {
            table.swept = Some(now);
            table.by_address.retain(|_, bucket| self.left(bucket, now) < f64::from(self.per_minute));
        }
        if table.by_address.len() >= ADDRESSES_MAX
            && let Some(any) = table.by_address.keys().next().copied()
        {
            table.by_address.remove(&any);
        }
    }

    #[cfg(test)]
    fn remembered(&self) -> usize {
        self.table.lock().unwrap().by_address.len()
    }
}

/// Whose failures are counted together: an address, or the network of 64 bits that a host of IPv6 has for itself.
pub fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn failures_come_back_with_time_and_only_to_their_address() {
        let failures = Failures::new(6);
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        for _ in 0..6 {
            assert_eq!(failures.note(address("10.0.0.1"), begin), Ok(()));
        }
        assert_eq!(failures.note(address("10.0.0.1"), begin), Err(Duration::from_secs(10)));
        assert_eq!(failures.note(address("::ffff:10.0.0.1"), at(5)), Err(Duration::from_secs(5)));
        assert_eq!(failures.note(address("10.0.0.2"), begin), Ok(()));
        assert_eq!(failures.note(address("10.0.0.1"), at(10)), Ok(()));
        assert!(failures.note(address("10.0.0.1"), at(10)).is_err());
    }

    #[test]
    fn a_host_of_ipv6_cannot_change_its_address_to_fail_more_often() {
        let failures = Failures::new(1);
        let now = Instant::now();
        assert_eq!(failures.note(address("2001:db8::1"), now), Ok(()));
        assert!(failures.note(address("2001:db8::ffff:1"), now).is_err());
        assert_eq!(failures.note(address("2001:db8:0:1::1"), now), Ok(()));
    }

    #[test]
    fn the_table_does_not_grow_past_its_bound() {
        let failures = Failures::new(60);
        let now = Instant::now();
        for number in 0..30_000_u32 {
            assert_eq!(failures.note(std::net::Ipv4Addr::from_bits(number).into(), now), Ok(()));
        }
        assert_eq!(failures.remembered(), ADDRESSES_MAX);
        // A minute later all of them can be forgotten.
        assert_eq!(failures.note(address("2001:db8::1"), now + Duration::from_secs(60)), Ok(()));
        assert_eq!(failures.remembered(), 1);
    }

    #[test]
    fn no_limit_is_no_limit() {
        let failures = Failures::new(0);
        assert!((0..1000).all(|_| failures.note(address("10.0.0.1"), Instant::now()).is_ok()));
        assert_eq!(failures.remembered(), 0);
    }
}
