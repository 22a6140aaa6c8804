//! Clients that put, overwrite, delete and read the same paths through all servers, and what they may be told.
//!
//! Everything that is acknowledged is recorded, and everything that is seen must be possible after it (`rule.rs`).

mod answer;
mod client;
mod contents;
pub mod end;
pub mod history;
pub mod paths;
pub mod peer;
mod rule;
pub mod stamp;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::Scope;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use client::Client;
use contents::Contents;
use history::History;
use paths::PATHS;
use peer::Peer;
use stamp::Stamp;

/// Unless somebody wants fewer.
const CLIENTS: usize = 200;
/// From this long ago on contents are asked for now and then.
const CONTENTS_IN_USE: usize = 150;
const STACK_BYTES: usize = 512 << 10;

/// What all clients of one run share.
pub struct Load {
    pub peers: Vec<Arc<Peer>>,
    pub history: History,
    pub contents: Contents,
    seed: u64,
    /// On average, between two operations of one client.
    pause: Duration,
    stamps: AtomicU64,
    began: Instant,
    clients: usize,
    new_contents_per_second: f64,
    ends: AtomicBool,
    rests: AtomicBool,
    /// Clients that are in the middle of something.
    busy: AtomicUsize,
    /// Answers 503.
    pub refusals: AtomicUsize,
    /// Tries without an answer, or with one that does not tell what was done.
    pub untold: AtomicUsize,
}

impl Load {
    pub fn new(peers: Vec<Arc<Peer>>, seed: u64, pause: Duration) -> Self {
        Self {
            peers,
            history: History::new(PATHS),
            contents: Contents::new(),
            seed,
            pause,
            stamps: AtomicU64::new(1),
            began: Instant::now(),
            clients: CLIENTS,
            new_contents_per_second: 15.0,
            ends: AtomicBool::new(false),
            rests: AtomicBool::new(false),
            busy: AtomicUsize::new(0),
            refusals: AtomicUsize::new(0),
            untold: AtomicUsize::new(0),
        }
    }

    /// So many clients, with so many contents that nobody has seen before.
    pub fn with(self, clients: usize, new_contents_per_second: f64) -> Self {
        Self { clients, new_contents_per_second, ..self }
    }

    /// Clients finish what they are doing and wait; returns when nothing is under way.
    pub fn rest(&self) {
        self.rests.store(true, Ordering::SeqCst);
        while self.busy.load(Ordering::SeqCst) > 0 {
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Clients go on.
    pub fn go_on(&self) {
        self.rests.store(false, Ordering::SeqCst);
    }

    fn rests(&self) -> bool {
        self.rests.load(Ordering::SeqCst)
    }

    /// Lets all clients loose; they end soon after [`Load::end`].
    pub fn start<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>) {
        for number in 0..self.clients {
            let random = StdRng::seed_from_u64(self.seed ^ (number as u64) << 32);
            let client = std::thread::Builder::new().stack_size(STACK_BYTES).name(format!("client {number}"));
            client.spawn_scoped(scope, move || Client::new(self, random).run()).unwrap();
        }
    }

    /// Clients finish what they are doing, and do nothing more.
    pub fn end(&self) {
        self.ends.store(true, Ordering::Relaxed);
    }

    pub fn has_ended(&self) -> bool {
        self.ends.load(Ordering::Relaxed)
    }

    /// A version that nobody else has.
    pub fn new_stamp(&self) -> Stamp {
        self.stamps.fetch_add(1, Ordering::Relaxed)
    }

    /// A content: often one that is new and that others put right now.
    pub fn some_content(&self, random: &mut StdRng) -> usize {
        let newest = CONTENTS_IN_USE + (self.began.elapsed().as_secs_f64() * self.new_contents_per_second) as usize;
        let age = if random.random_ratio(1, 3) { random.random_range(0..3) } else { random.random_range(0..150) };
        newest - age
    }

    /// Lets a client rest.
    pub fn pause(&self, random: &mut StdRng) {
        std::thread::sleep(self.pause.mul_f64(random.random_range(0.0..2.0)));
    }
}

/// Ends the load also when the test fails.
pub struct EndsWith<'a>(pub &'a Load);

impl Drop for EndsWith<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}
