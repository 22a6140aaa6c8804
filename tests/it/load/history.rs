//! What clients did and what they saw, for many threads to write at once.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::rule::{Deed, Operation, Sight, impossible};
use super::stamp::Stamp;

/// More would say nothing new.
const VIOLATIONS_MAX: usize = 40;
/// Operations that ended longer before what was seen are not told.
const TOLD_BEFORE: Duration = Duration::from_secs(10);

#[derive(Default)]
struct PathHistory {
    operations: Vec<Operation>,
    sights: Vec<(Sight, String)>,
}

/// One history for each path, and everything that must not happen and did.
pub struct History {
    paths: Vec<Mutex<PathHistory>>,
    violations: Mutex<Vec<String>>,
}

/// An operation in the history.
#[derive(Clone, Copy)]
pub struct Entry {
    path: usize,
    place: usize,
}

impl History {
    pub fn new(paths: usize) -> Self {
        Self { paths: (0..paths).map(|_| Mutex::default()).collect(), violations: Mutex::default() }
    }

    /// An operation is about to be tried for the first time.
    pub fn begin(&self, path: usize, stamp: Stamp, deed: Deed) -> Entry {
        let mut history = self.paths[path].lock().unwrap();
        history.operations.push(Operation::new(stamp, deed, Instant::now()));
        Entry { path, place: history.operations.len() - 1 }
    }

    /// A try ended without an answer that tells what it did: it may act at any time from now on.
    pub fn unknown(&self, entry: Entry) {
        self.change(entry, |operation| operation.may_still_act = true);
    }

    /// A try that began then has just been acknowledged.
    pub fn acknowledged(&self, entry: Entry, began: Instant) {
        let ended = Instant::now();
        self.change(entry, |operation| operation.acknowledged = Some((began, ended)));
    }

    fn change(&self, entry: Entry, change: impl FnOnce(&mut Operation)) {
        change(&mut self.paths[entry.path].lock().unwrap().operations[entry.place]);
    }

    /// Somebody asked at `from` and was just told the version that is there, or that none is.
    pub fn saw(&self, path: usize, seen: Option<Stamp>, from: Instant, who: impl Into<String>) {
        let sight = Sight { seen, from, until: Instant::now() };
        self.paths[path].lock().unwrap().sights.push((sight, who.into()));
    }

    /// The content that was put as this version.
    pub fn content_of(&self, path: usize, stamp: Stamp) -> Option<usize> {
        let history = self.paths[path].lock().unwrap();
        history.operations.iter().find_map(|operation| match operation.deed {
            Deed::Put { content } if operation.stamp == stamp => Some(content),
            _ => None,
        })
    }

    /// Whether a path must be there from `moment` on: it is put and never deleted.
    pub fn stays_from(&self, path: usize, moment: Instant) -> bool {
        let history = self.paths[path].lock().unwrap();
        let mut is_there = false;
        for operation in &history.operations {
            match operation.deed {
                Deed::Delete => return false,
                Deed::Put { .. } => is_there |= operation.acknowledged.is_some_and(|(_, ended)| ended < moment),
            }
        }
        is_there
    }

    /// Notes what must not happen.
    pub fn violation(&self, what: impl Into<String>) {
        let mut violations = self.violations.lock().unwrap();
        if violations.len() < VIOLATIONS_MAX {
            violations.push(what.into());
        }
    }

    /// Everything that must not have happened, once nobody does anything any more.
    pub fn violations(&self, name: impl Fn(usize) -> String) -> Vec<String> {
        for (path, history) in self.paths.iter().enumerate() {
            let history = history.lock().unwrap();
            // One for each path tells enough.
            let wrong = history.sights.iter().find_map(|(sight, who)| {
                impossible(&history.operations, sight).map(|why| (sight, format!("{who}: {}: {why}", sight.told())))
            });
            if let Some((sight, what)) = wrong {
                let before = sight.from - TOLD_BEFORE;
                let told = history.operations.iter().filter(|one| one.concerns(before, sight.until));
                let told: Vec<String> = told.map(|one| one.told(sight.from)).collect();
                self.violation(format!("{} {what}\n    {}", name(path), told.join("\n    ")));
            }
        }
        self.violations.lock().unwrap().clone()
    }

    /// How many operations there were, and how many of them were acknowledged.
    pub fn counts(&self) -> (usize, usize) {
        self.paths.iter().fold((0, 0), |(all, acknowledged), history| {
            let history = history.lock().unwrap();
            let done = history.operations.iter().filter(|operation| operation.acknowledged.is_some()).count();
            (all + history.operations.len(), acknowledged + done)
        })
    }
}
