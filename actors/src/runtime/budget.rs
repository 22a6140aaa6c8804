//! A bound on memory that several requests share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A number of bytes that may be in use at once.
#[derive(Clone, Debug)]
pub struct MemoryBudget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limit: u64,
    used: AtomicU64,
}

/// Bytes taken from a budget; given back on drop.
#[derive(Debug)]
pub struct Reservation {
    budget: MemoryBudget,
    bytes: u64,
}

impl MemoryBudget {
    /// A budget of `limit` bytes.
    pub fn new(limit: u64) -> Self {
        Self(Arc::new(Shared { limit, used: AtomicU64::new(0) }))
    }

    /// Takes `bytes`, or nothing when that would pass the limit.
    pub fn try_reserve(&self, bytes: u64) -> Option<Reservation> {
        let mut reservation = self.reserve_nothing();
        reservation.try_grow(bytes).then_some(reservation)
    }

    /// A reservation of no bytes, to grow later.
    pub fn reserve_nothing(&self) -> Reservation {
        Reservation { budget: self.clone(), bytes: 0 }
    }

    /// Bytes in use now.
    pub fn used(&self) -> u64 {
        self.0.used.load(Ordering::Acquire)
    }
}

impl Reservation {
    /// Takes `bytes` more; `false`, and nothing taken, when that would pass the limit.
    pub fn try_grow(&mut self, bytes: u64) -> bool {
        let shared = &self.budget.0;
        let fits = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= shared.limit);
        let taken = shared.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits).is_ok();
        if taken {
            self.bytes += bytes;
        }
        taken
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.0.used.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_never_passed_and_always_given_back() {
        let budget = MemoryBudget::new(10);
        let mut first = budget.try_reserve(6).unwrap();
        assert!(budget.try_reserve(5).is_none());
        assert!(!first.try_grow(5));
        assert!(first.try_grow(4));
        assert_eq!(budget.used(), 10);
        drop(first);
        assert_eq!(budget.used(), 0);
    }
}
