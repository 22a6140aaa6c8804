//! The queue against a made-up server: time and answers are the test's.

use std::cell::Cell;
use std::rc::Rc;

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;

#[derive(Clone, Default, Debug)]
struct Caller {
    is_gone: Rc<Cell<bool>>,
}

impl Waiter for Caller {
    fn is_gone(&self) -> bool {
        self.is_gone.get()
    }
}

/// What advisory locks do, for several sessions.
#[derive(Default)]
struct Server {
    /// Number, session, how often.
    held: HashMap<i64, (usize, usize)>,
    most: HashMap<usize, usize>,
}

impl Server {
    fn lock(&mut self, session: usize, number: i64) -> bool {
        let held = self.held.entry(number).or_insert((session, 0));
        if held.0 != session {
            return false;
        }
        held.1 += 1;
        assert_eq!(held.1, 1, "taken twice by one session");
        let now = self.held_by(session);
        let most = self.most.entry(session).or_default();
        *most = now.max(*most);
        true
    }

    fn unlock(&mut self, session: usize, number: i64) {
        let held = self.held.remove(&number);
        assert_eq!(held, Some((session, 1)), "given back but not held");
    }

    fn held_by(&self, session: usize) -> usize {
        self.held.values().filter(|held| held.0 == session).count()
    }

    fn run(&mut self, session: usize, steps: &[Step]) -> Vec<(Step, Outcome)> {
        steps.iter().map(|step| (*step, self.step(session, *step))).collect()
    }

    fn step(&mut self, session: usize, step: Step) -> Outcome {
        match step {
            Step::Unlock(number) => {
                self.unlock(session, number);
                Outcome::Unlocked
            }
            Step::Join(key) if !self.lock(session, key.first) => Outcome::Behind,
            Step::Join(key) | Step::Poll(key) => {
                if !self.lock(session, key.lock) {
                    return Outcome::First;
                }
                self.unlock(session, key.first);
                Outcome::Held
            }
        }
    }
}

fn key(number: i64) -> LockKey {
    LockKey { lock: number, first: -number }
}

fn bounds(held_max: usize) -> Bounds {
    Bounds { held_max, waiting_max: 100, down_max: Duration::from_secs(4) }
}

fn queue(held_max: usize) -> Queue<Caller> {
    Queue::new(bounds(held_max))
}

const LONG: Duration = Duration::from_secs(100);

fn times(begun: Instant) -> Times {
    Times { begun, deadline: begun + LONG }
}

/// One instance.
struct Instance {
    session: usize,
    queue: Queue<Caller>,
    now: Instant,
}

impl Instance {
    fn new(session: usize, held_max: usize) -> Self {
        Self { session, queue: queue(held_max), now: Instant::now() }
    }

    fn push(&mut self, number: i64) -> Caller {
        let caller = Caller::default();
        self.queue.push(key(number), caller.clone(), self.now, times(self.now)).unwrap();
        caller
    }

    /// One statement, after the longest pause; returns who has a key now.
    fn round(&mut self, server: &mut Server) -> Vec<i64> {
        self.now += PAUSE_MAX;
        let steps = self.queue.next_batch(self.now);
        let done = server.run(self.session, &steps);
        self.queue.settle(done.into_iter(), self.now).into_iter().map(|(key, _)| key.lock).collect()
    }

    fn release(&mut self, number: i64) {
        self.queue.release(key(number), self.now);
    }

    fn is_empty(&self) -> bool {
        let queue = &self.queue;
        (queue.held(), queue.waiting(), queue.slots.len(), queue.ready.len()) == (0, 0, 0, 0)
            && queue.resting.is_empty()
            && queue.unlocks.is_empty()
    }
}

#[test]
fn a_free_key_takes_one_step_and_so_does_giving_it_back() {
    let (mut server, mut one) = (Server::default(), Instance::new(1, 8));
    one.push(5);
    assert_eq!(one.queue.next_batch(one.now), [Step::Join(key(5))]);
    let done = server.run(1, &[Step::Join(key(5))]);
    assert_eq!(one.queue.settle(done.into_iter(), one.now).len(), 1);
    assert_eq!((one.queue.held(), one.queue.waiting()), (1, 0));
    one.release(5);
    one.release(5);
    assert_eq!(one.queue.next_batch(one.now), [Step::Unlock(5)]);
    server.run(1, &[Step::Unlock(5)]);
    assert!(one.is_empty() && server.held.is_empty());
}

#[test]
fn who_wants_a_key_again_does_not_overtake_who_waits() {
    let (mut server, mut one, mut other) = (Server::default(), Instance::new(1, 8), Instance::new(2, 8));
    one.push(5);
    assert_eq!(one.round(&mut server), [5]);
    other.push(5);
    assert!(other.round(&mut server).is_empty());
    assert_eq!(other.queue.held(), 1, "first in line");
    one.release(5);
    one.push(5);
    assert!(one.round(&mut server).is_empty());
    assert!(one.round(&mut server).is_empty());
    assert_eq!(other.round(&mut server), [5]);
    assert!(one.round(&mut server).is_empty());
    other.release(5);
    other.round(&mut server);
    assert_eq!(one.round(&mut server), [5]);
}

#[test]
fn never_more_keys_than_allowed_and_first_come_first_served() {
    let (mut server, mut one) = (Server::default(), Instance::new(1, 8));
    for number in 1..=50 {
        one.push(number);
    }
    let (mut served, mut held) = (Vec::new(), Vec::new());
    while served.len() < 50 {
        let granted = one.round(&mut server);
        served.extend_from_slice(&granted);
        held.extend(granted);
        held.drain(..held.len().min(3)).for_each(|number| one.queue.release(key(number), one.now));
    }
    assert_eq!(served, (1..=50).collect::<Vec<_>>());
    held.into_iter().for_each(|number| one.release(number));
    one.round(&mut server);
    assert!(one.is_empty() && server.held.is_empty());
    assert_eq!(server.most[&1], 8);
}

#[test]
fn requests_of_one_instance_for_one_key_follow_each_other() {
    let (mut server, mut one) = (Server::default(), Instance::new(1, 8));
    let callers: Vec<_> = (0..4).map(|_| one.push(5)).collect();
    callers[1].is_gone.set(true);
    for _ in [0, 2, 3] {
        assert_eq!(one.round(&mut server), [5]);
        assert!(one.round(&mut server).is_empty());
        one.release(5);
    }
    one.round(&mut server);
    assert!(one.is_empty() && server.held.is_empty());
}

#[test]
fn who_goes_away_leaves_nothing() {
    let (mut server, mut one, mut other) = (Server::default(), Instance::new(1, 8), Instance::new(2, 8));
    // While the statement runs, in the line, and at its head.
    one.push(5).is_gone.set(true);
    let steps = one.queue.next_batch(one.now);
    assert!(steps.is_empty());
    let caller = one.push(5);
    let steps = one.queue.next_batch(one.now);
    caller.is_gone.set(true);
    let done = server.run(1, &steps);
    assert!(one.queue.settle(done.into_iter(), one.now).is_empty());
    assert_eq!(one.queue.next_batch(one.now), [Step::Unlock(5)]);
    server.run(1, &[Step::Unlock(5)]);

    one.push(6);
    one.round(&mut server);
    let (head, tail) = (other.push(6), other.push(6));
    other.round(&mut server);
    tail.is_gone.set(true);
    head.is_gone.set(true);
    other.round(&mut server);
    assert!(other.is_empty());
    other.push(6);
    other.round(&mut server);
    let mut third = Instance::new(3, 8);
    let behind = third.push(6);
    third.round(&mut server);
    behind.is_gone.set(true);
    third.queue.sweep(third.now, None);
    assert!(third.is_empty());
    one.release(6);
    one.round(&mut server);
    assert_eq!(other.round(&mut server), [6]);
}

#[test]
fn who_waits_too_long_is_told_and_gives_up_the_place_in_line() {
    let (mut server, mut one, mut other) = (Server::default(), Instance::new(1, 8), Instance::new(2, 8));
    one.push(5);
    one.round(&mut server);
    other.push(5);
    other.round(&mut server);
    other.queue.sweep(other.now, None);
    assert!(other.queue.take_late().is_empty());
    other.now += LONG;
    other.queue.sweep(other.now, None);
    assert_eq!(other.queue.take_late().len(), 1);
    other.round(&mut server);
    assert!(other.is_empty());
    assert_eq!(server.held.len(), 1);
}

#[test]
fn without_a_session_requests_wait_for_a_while_only() {
    let mut one = Instance::new(1, 8);
    let (began, down_max) = (one.now, one.queue.bounds.down_max);
    one.push(5);
    one.queue.sweep(began + down_max - SLACK, Some(began));
    assert!(one.queue.take_late().is_empty());
    // An old request waits from the moment on in which the session was lost.
    one.queue.sweep(began + down_max, Some(began + SLACK));
    assert!(one.queue.take_late().is_empty());
    one.queue.sweep(began + down_max + SLACK, Some(began + SLACK));
    assert_eq!(one.queue.take_late().len(), 1);
    assert!(one.is_empty());
}

#[test]
fn a_request_that_has_waited_elsewhere_waits_less_for_a_session() {
    let mut one = Instance::new(1, 8);
    let (down_since, down_max) = (one.now, one.queue.bounds.down_max);
    let second = Duration::from_secs(1);
    one.now += second;
    let begun = one.now - 3 * second;
    one.queue.push(key(5), Caller::default(), one.now, times(begun)).unwrap();
    one.queue.sweep(begun + down_max - SLACK, Some(down_since));
    assert!(one.queue.take_late().is_empty());
    one.queue.sweep(begun + down_max, Some(down_since));
    assert_eq!(one.queue.take_late().len(), 1);
    // Without a session for so long nobody waits at all.
    one.now = down_since + down_max;
    one.push(6);
    one.queue.sweep(one.now, Some(down_since));
    assert_eq!(one.queue.take_late().len(), 1);
    assert!(one.is_empty());
}

#[test]
fn after_a_lost_session_who_waits_begins_anew_in_the_old_order() {
    let (mut server, mut one, mut other) = (Server::default(), Instance::new(1, 8), Instance::new(2, 8));
    other.push(1);
    other.push(2);
    other.round(&mut server);
    for number in [1, 2, 3, 4] {
        one.push(number);
    }
    one.push(3);
    assert_eq!(one.round(&mut server), [3, 4]);
    one.push(9);
    assert!(!one.queue.next_batch(one.now).is_empty());
    one.queue.forget_session();
    assert_eq!((one.queue.held(), one.queue.waiting()), (0, 4));
    // A lease of the old session comes back.
    one.release(4);
    let steps = one.queue.next_batch(one.now);
    assert_eq!(steps, [1, 2, 3, 9].map(|number| Step::Join(key(number))));
}

#[test]
fn too_many_are_refused() {
    let mut one = Instance::new(1, 8);
    for number in 0..100 {
        one.push(number % 10);
    }
    assert!(one.queue.push(key(5), Caller::default(), one.now, times(one.now)).is_err());
}

/// Instances that ask, hold, give up and lose sessions at random: never two holders, never a number taken
/// twice or given back unheld (the server sees to that), never too many, and nothing is left at the end.
#[test]
fn at_random() {
    for seed in 0..300 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut server = Server::default();
        let mut instances: Vec<Instance> = (0..3).map(|session| Instance::new(session, 5)).collect();
        let mut held: Vec<Vec<i64>> = vec![Vec::new(); 3];
        let mut callers: Vec<Caller> = Vec::new();
        for _ in 0..400 {
            let at = random.random_range(0..3);
            let instance = &mut instances[at];
            match random.random_range(0..20) {
                0..6 if instance.queue.waiting() < 90 => callers.push(instance.push(random.random_range(1..8))),
                6..8 if !callers.is_empty() => {
                    callers.swap_remove(random.random_range(0..callers.len())).is_gone.set(true);
                }
                8..12 if !held[at].is_empty() => {
                    let which = random.random_range(0..held[at].len());
                    let number = held[at].swap_remove(which);
                    instance.release(number);
                }
                12 if seed % 3 == 0 => {
                    let session = instance.session;
                    server.held.retain(|_, held| held.0 != session);
                    instance.queue.forget_session();
                    held[at].clear();
                }
                13 => instance.queue.sweep(instance.now, None),
                _ => {
                    let granted = instance.round(&mut server);
                    held[at].extend(granted);
                }
            }
            for (session, most) in &server.most {
                assert!(*most <= 5, "seed={seed} session={session} held={most}");
            }
            let mut all: Vec<i64> = held.concat();
            all.sort_unstable();
            all.dedup();
            assert_eq!(all.len(), held.concat().len(), "seed={seed} two holders");
        }
        let mut rounds = 0;
        while !instances.iter().all(Instance::is_empty) {
            rounds += 1;
            assert!(rounds < 10_000, "seed={seed} never done");
            for (instance, held) in instances.iter_mut().zip(&mut held) {
                held.drain(..).for_each(|number| instance.queue.release(key(number), instance.now));
                held.extend(instance.round(&mut server));
            }
        }
        assert!(server.held.is_empty(), "seed={seed} left behind {:?}", server.held);
    }
}
