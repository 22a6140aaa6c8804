//! Admission: how many requests may be inside at once.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::pulse::{Mark, Pulse};
use crate::model::{Error, Kind, Result};

/// The pause between two looks whether anybody is inside.
const QUIET_LOOK: Duration = Duration::from_millis(10);

/// The door. Full means "come back later", never a queue.
#[derive(Clone, Debug)]
pub struct Admission {
    slots: Arc<Semaphore>,
    slots_max: usize,
    pulse: Pulse,
}

/// One request's place inside; given back on drop.
#[derive(Debug)]
pub struct Permit {
    _slot: OwnedSemaphorePermit,
    pulse: Pulse,
    since: Mark,
}

impl Permit {
    /// Fails when the process stood still since the request was let in: its client has given up.
    pub fn expect_steady(&self) -> Result<()> {
        self.pulse.expect_steady_since(self.since)
    }
}

impl Admission {
    /// A door for `slots_max` requests.
    pub fn new(slots_max: usize, pulse: Pulse) -> Self {
        Self { slots: Arc::new(Semaphore::new(slots_max)), slots_max, pulse }
    }

    /// Takes a place, or says [`Kind::Overloaded`] at once.
    pub fn try_enter(&self) -> Result<Permit> {
        let full = || Error::new(Kind::Overloaded, "all request slots are in use");
        let slot = Arc::clone(&self.slots).try_acquire_owned().map_err(|_| full())?;
        Ok(Permit { _slot: slot, pulse: self.pulse.clone(), since: self.pulse.mark() })
    }

    /// Waits until nobody is inside, and lets nobody in any more.
    pub async fn all_left(&self) {
        let all = u32::try_from(self.slots_max).unwrap_or(u32::MAX);
        if self.slots.acquire_many(all).await.is_ok() {
            self.slots.close();
        }
    }

    /// Waits for a moment in which nobody is inside; others may come in meanwhile.
    pub async fn quiet(&self) {
        while self.in_use() > 0 {
            tokio::time::sleep(QUIET_LOOK).await;
        }
    }

    /// The most requests inside.
    pub fn slots_max(&self) -> usize {
        self.slots_max
    }

    /// Requests inside now.
    pub fn in_use(&self) -> usize {
        self.slots_max - self.slots.available_permits()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_house_refuses_and_a_leaver_makes_room() {
        let door = Admission::new(2, Pulse::start().unwrap());
        let first = door.try_enter().unwrap();
        let _second = door.try_enter().unwrap();
        assert_eq!(door.try_enter().unwrap_err().kind(), Kind::Overloaded);
        drop(first);
        assert_eq!(door.in_use(), 1);
        assert!(door.try_enter().is_ok());
    }
}
