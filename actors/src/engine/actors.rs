//! What the tree of actors looks like right now.

use std::sync::{Arc, Mutex, PoisonError};

use actix::Addr;

use super::Engine;
use crate::migrator::MigrationSnapshot;
use crate::runtime::guard::{ActorState, Vital};
use crate::runtime::guardian::Guardian;
use crate::store::meta::Connections;

/// The actors, and what guards them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ActorTree {
    /// Whether the guardian, the root, watches.
    pub is_guarded: bool,
    /// Its children, in the order of their start.
    pub children: Vec<ActorReport>,
    /// Requests inside.
    pub requests: usize,
    /// The most requests inside.
    pub request_slots: usize,
    /// Memory that received bodies take, in bytes.
    pub spool_bytes: u64,
    /// Connections to the metadata store, if it is reached over a network.
    pub connections: Option<Connections>,
    /// Circuit breakers: what they guard, and `closed`, `open` or `probing`.
    pub breakers: Vec<(&'static str, &'static str)>,
}

/// One actor.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ActorReport {
    /// What it is called; metadata actors are called the same.
    pub name: &'static str,
    /// How it does.
    pub state: ActorState,
    /// How often it was rebuilt.
    pub restarts: u32,
    /// How many panics were caught in it and in those it owns.
    pub panics: u64,
    /// The text of the last one, or what else was wrong last.
    pub last_fault: Option<String>,
    /// What it has to do, by name; empty where nothing is counted.
    pub load: Vec<(&'static str, usize)>,
}

impl ActorTree {
    /// Whether all actors are up.
    pub fn is_well(&self) -> bool {
        self.is_guarded && self.children.iter().all(|child| child.state == ActorState::Up)
    }

    /// What does not pass by itself.
    pub(super) fn trouble(&self) -> Option<String> {
        if !self.is_guarded {
            return Some("actor guardian is dead".to_owned());
        }
        let child = self.children.iter().find(|child| matches!(child.state, ActorState::Stuck | ActorState::Dead))?;
        let state = if child.state == ActorState::Stuck { "stuck" } else { "dead" };
        Some(format!("actor {} is {state}", child.name))
    }
}

/// All supervised actors.
#[derive(Clone)]
pub(super) struct Roster {
    guardian: Addr<Guardian>,
    members: Arc<Mutex<Vec<Member>>>,
}

struct Member {
    vital: Vital,
    is_alive: Box<dyn Fn() -> bool + Send>,
}

impl Roster {
    pub(super) fn new(guardian: Addr<Guardian>) -> Self {
        Self { guardian, members: Arc::default() }
    }

    pub(super) fn add(&self, vital: Vital, is_alive: impl Fn() -> bool + Send + 'static) {
        let member = Member { vital, is_alive: Box::new(is_alive) };
        self.members.lock().unwrap_or_else(PoisonError::into_inner).push(member);
    }

    fn reports(&self) -> Vec<ActorReport> {
        let members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        members.iter().map(Member::report).collect()
    }
}

impl Member {
    fn report(&self) -> ActorReport {
        let vital = &self.vital;
        ActorReport {
            name: vital.name(),
            state: if (self.is_alive)() { vital.state() } else { ActorState::Dead },
            restarts: vital.restarts(),
            panics: vital.panics(),
            last_fault: vital.last_fault(),
            load: Vec::new(),
        }
    }
}

impl Engine {
    /// What the tree of actors looks like right now. Asks no actor, so it answers whatever they do.
    pub fn actors(&self) -> ActorTree {
        let inner = &self.inner;
        let mut children = inner.roster.reports();
        let mut in_flight = inner.metadata.in_flight();
        let beside = self.beside_report();
        let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        for child in &mut children {
            child.load = match child.name {
                "locks" => vec![("live", inner.lock_stats.live())],
                "cleaner" => vec![("running", usize::from(inner.cleaner_stats.is_running()))],
                "migrator" => {
                    let left = |migration: MigrationSnapshot| {
                        // More may turn up than was listed.
                        migration.counts.total.saturating_sub(migration.counts.settled())
                    };
                    self.migration().map(|migration| ("pending", count(left(migration)))).into_iter().collect()
                }
                "mirror" => match &beside {
                    None => Vec::new(),
                    Some(beside) => {
                        child.last_fault = child.last_fault.take().or_else(|| beside.waiting.last_error.clone());
                        vec![
                            ("waiting", count(beside.waiting.marks)),
                            ("oldest_seconds", count(beside.waiting.oldest_seconds().unwrap_or(0))),
                            ("telling", beside.telling),
                            ("told", count(beside.told)),
                            ("failures", count(beside.failed)),
                            ("fetching", beside.fetching),
                        ]
                    }
                },
                "exporter" => {
                    let stats = &inner.exporter_stats;
                    child.last_fault = child.last_fault.take().or_else(|| stats.last_error());
                    let last_success = stats.last_success().map_or(0, |time| time.seconds().max(0).unsigned_abs());
                    vec![
                        ("running", usize::from(stats.is_running())),
                        ("exports", count(stats.exports())),
                        ("failures", count(stats.failures())),
                        ("names", count(stats.names())),
                        ("last_success", count(last_success)),
                    ]
                }
                "locks-db" => vec![("held", inner.key_stats.held()), ("waiting", inner.key_stats.waiting())],
                "metadata" => in_flight.next().map(|count| ("in_flight", count)).into_iter().collect(),
                "uploads" => vec![
                    ("waiting", inner.upload_stats.waiting()),
                    ("busy", inner.upload_stats.busy()),
                    ("uploaders", inner.uploaders),
                ],
                _ => Vec::new(),
            };
        }
        let connections = inner.metadata_store.connections();
        let mut breakers = vec![(inner.content_breaker.backend(), inner.content_breaker.state())];
        breakers.extend(connections.map(|connections| ("the database", connections.breaker)));
        breakers.extend(beside.and_then(|beside| beside.breaker).map(|state| ("the old server", state)));
        ActorTree {
            is_guarded: inner.roster.guardian.connected(),
            children,
            requests: inner.admission.in_use(),
            request_slots: inner.admission.slots_max(),
            spool_bytes: inner.spool_budget.used(),
            connections,
            breakers,
        }
    }
}
