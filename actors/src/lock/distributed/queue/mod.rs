//! Who waits for which key, and what to ask the database next: no clock, no connection.
//!
//! A request tries to become first in line, and as that to get the key, with one step of a statement. Who
//! is not first tries again later and holds nothing meanwhile; who is first keeps the place in line until
//! it has the key. So an instance that gives a key back and wants it again cannot overtake another one.
//!
//! Keys of the database can be taken twice by one session. Therefore there is one *slot* for each key,
//! and a second request for it follows when the first is done.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use rand::Rng;

use super::key::LockKey;

#[cfg(test)]
mod tests;

/// The longest pause before the first retry...
const PAUSE_MIN: Duration = Duration::from_millis(4);
/// ...doubles up to this. Pauses are half as long or more.
const PAUSE_MAX: Duration = Duration::from_millis(50);
/// Retries that are due this soon go along with others.
const SLACK: Duration = Duration::from_millis(1);

/// Who waits for an answer.
pub(super) trait Waiter {
    /// Nobody waits any more.
    fn is_gone(&self) -> bool;
}

/// One step of a statement; steps are done in their order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// Give this number back.
    Unlock(i64),
    /// Become first in line, and as that get the key.
    Join(LockKey),
    /// Get the key, being first in line.
    Poll(LockKey),
}

/// What a step came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    /// Given back.
    Unlocked,
    /// Somebody else is first in line.
    Behind,
    /// First in line now.
    First,
    /// The key is held now, and nobody is first in line.
    Held,
}

/// The bounds of a queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Keys held at any moment, while a statement runs as well.
    pub held_max: usize,
    /// Requests that wait.
    pub waiting_max: usize,
    /// How long there may be no session: then all requests are given up, and so are those that began so long ago and
    /// found none.
    pub down_max: Duration,
}

/// The times of a request.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// When the work began that it is part of: a client waits since then.
    pub begun: Instant,
    /// When to give up.
    pub deadline: Instant,
}

struct Request<W> {
    /// Its place among all requests.
    serial: u64,
    /// When its caller began to work for its client.
    begun: Instant,
    arrived: Instant,
    deadline: Instant,
    waiter: W,
}

impl<W: Waiter> Request<W> {
    fn is_late(&self, now: Instant) -> bool {
        self.deadline <= now
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// In `ready`, to be tried when there is room.
    Ready,
    /// In `resting` until then.
    Resting(Instant),
    /// In the statement that is under way.
    Trying,
    /// A lease is out.
    Held,
}

struct Slot<W> {
    key: LockKey,
    state: State,
    /// Whether we hold the first place in line.
    is_first: bool,
    tries: u32,
    /// Who gets the key; nobody any more when it is held.
    request: Option<Request<W>>,
    followers: VecDeque<Request<W>>,
}

/// The queue of one instance.
pub(super) struct Queue<W> {
    bounds: Bounds,
    slots: HashMap<i64, Slot<W>>,
    ready: VecDeque<i64>,
    resting: BTreeSet<(Instant, i64)>,
    /// Numbers to give back with the next statement, before anything is taken.
    unlocks: Vec<i64>,
    /// Numbers that are held or may be taken by the statement under way.
    places: usize,
    waiting: usize,
    serial: u64,
    late: Vec<W>,
}

impl<W: Waiter> Queue<W> {
    pub(super) fn new(bounds: Bounds) -> Self {
        // A step holds two numbers for a moment.
        let bounds = Bounds { held_max: bounds.held_max.max(2), ..bounds };
        let (slots, ready, resting, unlocks) = Default::default();
        Self { bounds, slots, ready, resting, unlocks, places: 0, waiting: 0, serial: 0, late: Vec::new() }
    }

    /// Numbers that are held, or may be when the statement under way is done.
    pub(super) fn held(&self) -> usize {
        self.places
    }

    /// Requests that wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Adds a request; gives it back when too many wait.
    pub(super) fn push(&mut self, key: LockKey, waiter: W, arrived: Instant, times: Times) -> Result<(), W> {
        if self.waiting >= self.bounds.waiting_max {
            return Err(waiter);
        }
        self.serial += 1;
        let Times { begun, deadline } = times;
        self.insert(key, Request { serial: self.serial, begun, arrived, deadline, waiter });
        Ok(())
    }

    fn insert(&mut self, key: LockKey, request: Request<W>) {
        self.waiting += 1;
        if let Some(slot) = self.slots.get_mut(&key.lock) {
            slot.followers.push_back(request);
            return;
        }
        let request = Some(request);
        let slot = Slot { key, state: State::Ready, is_first: false, tries: 0, request, followers: VecDeque::new() };
        self.slots.insert(key.lock, slot);
        self.ready.push_back(key.lock);
    }

    /// A lease came back.
    pub(super) fn release(&mut self, key: LockKey, now: Instant) {
        let Some(slot) = self.slots.get_mut(&key.lock).filter(|slot| slot.state == State::Held) else { return };
        (slot.state, slot.tries) = (State::Ready, 0);
        self.places -= 1;
        self.unlocks.push(key.lock);
        if self.has_live(key.lock, now) {
            self.ready.push_back(key.lock);
        } else {
            self.slots.remove(&key.lock);
        }
    }

    /// The next statement; empty when there is nothing to do now. The one before must have been settled.
    pub(super) fn next_batch(&mut self, now: Instant) -> Vec<Step> {
        let mut polls = Vec::new();
        while let Some(&(due, lock)) = self.resting.first()
            && due <= now + SLACK
        {
            self.resting.pop_first();
            if !self.has_live(lock, now) {
                self.leave(lock);
            } else if let Some(slot) = self.slots.get_mut(&lock) {
                if slot.is_first {
                    slot.state = State::Trying;
                    polls.push(Step::Poll(slot.key));
                } else {
                    slot.state = State::Ready;
                    self.ready.push_back(lock);
                }
            }
        }
        let mut steps: Vec<Step> = self.unlocks.drain(..).map(Step::Unlock).collect();
        steps.append(&mut polls);
        // One number stays free for the moment in which a step holds two.
        while self.places + 1 < self.bounds.held_max
            && let Some(lock) = self.ready.pop_front()
        {
            if !self.has_live(lock, now) {
                self.slots.remove(&lock);
            } else if let Some(slot) = self.slots.get_mut(&lock) {
                slot.state = State::Trying;
                self.places += 1;
                steps.push(Step::Join(slot.key));
            }
        }
        steps
    }

    /// Takes the outcomes of a statement; returns who has a key now.
    pub(super) fn settle(&mut self, done: impl Iterator<Item = (Step, Outcome)>, now: Instant) -> Vec<(LockKey, W)> {
        let mut granted = Vec::new();
        for (step, outcome) in done {
            let (Step::Join(key) | Step::Poll(key)) = step else { continue };
            let Some(slot) = self.slots.get_mut(&key.lock) else { continue };
            if outcome == Outcome::Held {
                (slot.state, slot.is_first) = (State::Held, false);
                match self.take_live(key.lock) {
                    Some(waiter) => granted.push((key, waiter)),
                    None => self.release(key, now),
                }
            } else {
                slot.is_first = outcome == Outcome::First;
                if !slot.is_first {
                    self.places -= 1;
                }
                let due = now + pause(slot.tries);
                slot.tries += 1;
                slot.state = State::Resting(due);
                self.resting.insert((due, key.lock));
            }
        }
        granted
    }

    /// Removes who is gone or late. Without a session, since `down_since`, everybody is late after a while; whoever came
    /// when there was none, a while after its request began.
    pub(super) fn sweep(&mut self, now: Instant, down_since: Option<Instant>) {
        if self.waiting == 0 {
            return;
        }
        let down_max = self.bounds.down_max;
        let is_late = |request: &Request<W>| {
            let gives_up = |since: Instant| {
                since + down_max <= now || (request.arrived >= since && request.begun + down_max <= now)
            };
            request.is_late(now) || down_since.is_some_and(gives_up)
        };
        let mut emptied = Vec::new();
        for (lock, slot) in &mut self.slots {
            let mut place = 0;
            while let Some(request) = slot.followers.get(place) {
                let (is_gone, is_late) = (request.waiter.is_gone(), is_late(request));
                if is_gone || is_late {
                    self.waiting -= 1;
                    let request = slot.followers.remove(place);
                    self.late.extend(request.filter(|_| !is_gone).map(|request| request.waiter));
                } else {
                    place += 1;
                }
            }
            // What the statement under way is about to get is worth waiting for.
            if slot.state != State::Trying
                && let Some(request) = &slot.request
            {
                let is_gone = request.waiter.is_gone();
                if is_gone || is_late(request) {
                    self.waiting -= 1;
                    self.late.extend(slot.request.take().filter(|_| !is_gone).map(|request| request.waiter));
                    slot.request = slot.followers.pop_front();
                    if slot.request.is_none() {
                        emptied.push(*lock);
                    }
                }
            }
        }
        for lock in &emptied {
            self.leave(*lock);
        }
        if !emptied.is_empty() {
            self.ready.retain(|lock| self.slots.contains_key(lock));
        }
    }

    /// Those who waited in vain since the last call.
    pub(super) fn take_late(&mut self) -> Vec<W> {
        std::mem::take(&mut self.late)
    }

    /// The session is gone, and with it all that was held: who waits begins anew, in the old order.
    pub(super) fn forget_session(&mut self) {
        let slots = std::mem::take(&mut self.slots);
        let mut requests: Vec<_> = slots
            .into_values()
            .flat_map(|slot| {
                let key = slot.key;
                slot.request.into_iter().chain(slot.followers).map(move |request| (key, request))
            })
            .collect();
        requests.sort_unstable_by_key(|(_, request)| request.serial);
        self.ready.clear();
        self.resting.clear();
        self.unlocks.clear();
        (self.places, self.waiting) = (0, 0);
        for (key, request) in requests {
            self.insert(key, request);
        }
    }

    /// When the next retry is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.resting.first().map(|(due, _)| *due)
    }

    /// Makes sure that the first request of a slot still wants the key; false when nobody does.
    fn has_live(&mut self, lock: i64, now: Instant) -> bool {
        let Some(slot) = self.slots.get_mut(&lock) else { return false };
        loop {
            match &slot.request {
                None => {
                    slot.request = slot.followers.pop_front();
                    if slot.request.is_none() {
                        return false;
                    }
                }
                Some(request) if request.waiter.is_gone() || request.is_late(now) => {
                    self.waiting -= 1;
                    let waiter = slot.request.take().map(|request| request.waiter);
                    self.late.extend(waiter.filter(|waiter| !waiter.is_gone()));
                }
                Some(_) => return true,
            }
        }
    }

    /// Whoever is to get the key that is held now.
    fn take_live(&mut self, lock: i64) -> Option<W> {
        let slot = self.slots.get_mut(&lock)?;
        while let Some(request) = slot.request.take().or_else(|| slot.followers.pop_front()) {
            self.waiting -= 1;
            if !request.waiter.is_gone() {
                return Some(request.waiter);
            }
        }
        None
    }

    /// Nobody wants the key of this slot any more: gives up the place in line.
    fn leave(&mut self, lock: i64) {
        let Some(slot) = self.slots.remove(&lock) else { return };
        if let State::Resting(due) = slot.state {
            self.resting.remove(&(due, lock));
        }
        if slot.is_first {
            self.places -= 1;
            self.unlocks.push(slot.key.first);
        }
    }
}

/// The pause before another try.
fn pause(tries: u32) -> Duration {
    PAUSE_MIN.saturating_mul(1 << tries.min(10)).min(PAUSE_MAX).mul_f64(rand::rng().random_range(0.5..=1.0))
}
