//! What goes wrong, and when: everything once in a random order, and again.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use super::fixture::Cluster;

/// Longer than any timeout of a server: of a lock session that does not move, of metadata, of requests.
pub const STALL_TIME: Duration = Duration::from_secs(20);

/// The application names of the servers' sessions, and that they hold locks for contents.
const LOCK_SESSIONS: &str = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 's3dedup%lock%' \
    UNION SELECT pid FROM pg_locks JOIN pg_stat_activity USING (pid) \
    WHERE locktype = 'advisory' AND application_name LIKE 's3dedup%'";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// `kill -9` of a server, and a new start.
    Kill,
    /// One session that holds locks is terminated.
    EndOneLockSession,
    /// All of them.
    EndAllLockSessions,
    /// PostgreSQL is stopped, and started after a while.
    StopPostgres,
    /// The same, without any order.
    CrashPostgres,
    /// A server's connections to PostgreSQL are reset and refused for a while.
    Cut,
    /// They are slow for a while.
    Delay,
    /// They carry nothing for a while.
    Stall,
    /// A server does nothing for longer than any timeout; meanwhile other things go wrong.
    StopServer,
}

/// The same seed makes the same faults in the same order.
pub struct Faults {
    random: StdRng,
    kinds: Vec<Fault>,
    /// Which server is stopped, and until when.
    stopped: Option<(usize, Instant)>,
    began: Instant,
}

impl Faults {
    pub fn new(seed: u64, kinds: &[Fault]) -> Self {
        Self { random: StdRng::seed_from_u64(seed), kinds: kinds.to_vec(), stopped: None, began: Instant::now() }
    }

    /// Lets things go wrong for at least this time, and every kind at least once. Afterwards all is well.
    pub fn run(&mut self, cluster: &mut Cluster, time: Duration) {
        self.began = Instant::now();
        for round in 0.. {
            let mut kinds = self.kinds.clone();
            kinds.shuffle(&mut self.random);
            // It takes so long that it comes once, and first, so that it is in the middle of everything else.
            kinds.sort_by_key(|kind| *kind != Fault::StopServer);
            kinds.retain(|kind| round == 0 || *kind != Fault::StopServer);
            for fault in kinds {
                self.rest(300..1500);
                self.do_one(fault, cluster);
                self.go_on_when_due(cluster, Instant::now());
            }
            if self.began.elapsed() >= time {
                break;
            }
        }
        if let Some((_, until)) = self.stopped {
            std::thread::sleep(until.saturating_duration_since(Instant::now()));
            self.go_on_when_due(cluster, until);
        }
    }

    fn rest(&mut self, milliseconds: std::ops::Range<u64>) {
        std::thread::sleep(Duration::from_millis(self.random.random_range(milliseconds)));
    }

    fn say(&self, what: &str) {
        println!("{:6.1} s: {what}", self.began.elapsed().as_secs_f64());
    }

    fn do_one(&mut self, fault: Fault, cluster: &mut Cluster) {
        let victim = self.some_server(cluster);
        self.say(&format!("{fault:?}, server {victim}"));
        match fault {
            Fault::Kill => cluster.members[victim].kill_and_restart(),
            Fault::EndOneLockSession => self.end_lock_sessions(cluster, "LIMIT 1"),
            Fault::EndAllLockSessions => self.end_lock_sessions(cluster, ""),
            Fault::StopPostgres => {
                cluster.postgres_mut().stop();
                self.rest(500..3000);
                cluster.postgres_mut().start_again();
            }
            Fault::CrashPostgres => {
                cluster.postgres_mut().crash();
                self.rest(0..1000);
                cluster.postgres_mut().start_again();
            }
            Fault::Cut | Fault::Delay | Fault::Stall => self.disturb_network(fault, cluster, victim),
            Fault::StopServer => {
                cluster.members[victim].stall();
                self.stopped = Some((victim, Instant::now() + STALL_TIME));
            }
        }
    }

    /// One of those that run: not even `kill -9` is done to one that is stopped.
    fn some_server(&mut self, cluster: &Cluster) -> usize {
        let stopped = self.stopped.map(|(number, _)| number);
        let running: Vec<usize> = (0..cluster.members.len()).filter(|number| Some(*number) != stopped).collect();
        running[self.random.random_range(0..running.len())]
    }

    fn disturb_network(&mut self, fault: Fault, cluster: &Cluster, victim: usize) {
        let ways = cluster.members[victim].database.as_ref().expect("a database behind a network");
        let chosen = match self.random.random_range(0..4) {
            0 => vec![&ways.locks],
            1 => vec![&ways.metadata],
            _ => ways.both().to_vec(),
        };
        for proxy in &chosen {
            match fault {
                Fault::Cut => proxy.cut(),
                Fault::Delay => proxy.delay(Duration::from_millis(300)),
                _ => proxy.stall(),
            }
        }
        self.rest(500..6000);
        chosen.into_iter().for_each(|proxy| proxy.pass());
    }

    fn go_on_when_due(&mut self, cluster: &Cluster, now: Instant) {
        if let Some((victim, _)) = self.stopped.take_if(|(_, until)| *until <= now) {
            self.say(&format!("server {victim} goes on"));
            cluster.members[victim].go_on();
        }
    }

    fn end_lock_sessions(&self, cluster: &Cluster, limit: &str) {
        let sql = format!("SELECT pg_terminate_backend(pid) FROM ({LOCK_SESSIONS} {limit}) AS sessions");
        let ended = cluster.postgres().sql(&sql).lines().count();
        self.say(&format!("{ended} lock sessions ended"));
    }
}
