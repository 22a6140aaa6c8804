//! What goes wrong, and when.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use s3dedup_actors::testkit::proxy::{HttpFault, NetworkFault};

use super::{Stores, World};
use crate::member::{Fault, Way};

/// One thing that goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// `kill -9` of a server and a new start, on top of whatever else goes wrong.
    Kill,
    /// `SIGTERM`, and a new start.
    Restart,
    /// On a way of a server, for a while.
    Way(Way),
    CrashPostgres,
    RestartPostgres,
    EndLockSessions,
}

const LOCK_SESSIONS: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
    WHERE application_name LIKE 's3dedup%lock%'";

/// The same seed makes the same troubles in the same order.
pub struct Trouble {
    random: StdRng,
    stores: Stores,
    kinds: Vec<Kind>,
    count: usize,
    began: Instant,
}

impl Trouble {
    pub fn new(seed: u64, stores: Stores) -> Self {
        let mut kinds = vec![Kind::Kill, Kind::Restart];
        if matches!(stores, Stores::SqliteAndS3 | Stores::PostgresAndS3) {
            kinds.extend([Kind::Way(Way::S3); 5]);
        }
        if matches!(stores, Stores::PostgresAndFolder | Stores::PostgresAndS3) {
            kinds.extend([Way::Database, Way::Metadata, Way::Locks].map(Kind::Way));
            kinds.extend([Kind::CrashPostgres, Kind::RestartPostgres, Kind::EndLockSessions]);
        }
        Self { random: StdRng::seed_from_u64(seed), stores, kinds, count: 0, began: Instant::now() }
    }

    /// How many there were.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Makes trouble for this time. Afterwards all is well.
    pub fn run(&mut self, world: &mut World, time: Duration) {
        self.began = Instant::now();
        while self.began.elapsed() < time {
            self.rest(300..2500);
            let Some(kind) = self.kinds.choose(&mut self.random).copied() else { return };
            let victim = self.random.random_range(0..world.members.len());
            self.one(kind, world, victim);
            self.count += 1;
        }
    }

    fn rest(&mut self, milliseconds: std::ops::Range<u64>) {
        std::thread::sleep(Duration::from_millis(self.random.random_range(milliseconds)));
    }

    fn say(&self, what: &str) {
        println!("{:7.1} s: {:?}: {what}", self.began.elapsed().as_secs_f64(), self.stores);
    }

    fn one(&mut self, kind: Kind, world: &mut World, victim: usize) {
        match kind {
            Kind::Way(way) => {
                let (fault, share) = (self.some_fault(way), [0.2, 0.5, 1.0, 1.0][self.random.random_range(0..4)]);
                self.say(&format!("{way:?} {fault:?} for {share} of server {victim}"));
                world.members[victim].fail(way, fault, share);
                self.rest(300..7000);
                if self.random.random_ratio(1, 6) {
                    self.say(&format!("meanwhile Kill of server {victim}"));
                    world.members[victim].kill();
                    self.rest(0..500);
                    world.members[victim].pass();
                    world.members[victim].start_again();
                }
                world.members[victim].pass();
            }
            kind => {
                self.say(&format!("{kind:?} of server {victim}"));
                let member = &mut world.members[victim];
                match kind {
                    Kind::Kill => member.kill_and_restart(),
                    Kind::Restart => member.stop_and_restart(),
                    _ => self.hurt_postgres(kind, world),
                }
            }
        }
    }

    fn hurt_postgres(&mut self, kind: Kind, world: &mut World) {
        let postgres = world.postgres.as_mut().expect("a combination with PostgreSQL");
        match kind {
            Kind::EndLockSessions => drop(postgres.sql(LOCK_SESSIONS)),
            Kind::CrashPostgres => postgres.crash(),
            _ => postgres.stop(),
        }
        if kind != Kind::EndLockSessions {
            self.rest(0..4000);
            world.postgres.as_mut().expect("as before").start_again();
        }
    }

    fn some_fault(&mut self, way: Way) -> Fault {
        let network = [
            NetworkFault::Stall,
            NetworkFault::Cut,
            NetworkFault::Reset,
            NetworkFault::Deaf,
            NetworkFault::Delay(Duration::from_millis(200)),
            NetworkFault::Drip(2000),
        ];
        let http = [
            HttpFault::Refuse(500, "InternalError"),
            HttpFault::Refuse(503, "SlowDown"),
            HttpFault::TooLong,
            HttpFault::TooShort,
            HttpFault::CutBody,
            HttpFault::WrongBytes,
            HttpFault::Page,
        ];
        if way == Way::S3 && self.random.random() {
            Fault::Http(http[self.random.random_range(0..http.len())])
        } else {
            Fault::Network(network[self.random.random_range(0..network.len())])
        }
    }
}
