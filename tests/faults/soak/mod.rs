//! Everything at once, for as long as wanted, on every combination of stores.
//!
//! Clients work; backends, the network and the servers fail at random; contents are cleaned away early. At the end
//! nothing may be lost, and everything must agree: what clients saw and see, rows, totals, objects, `verify --deep`
//! and a full scan. What goes wrong follows from a seed. `make soak MINUTES=10 SEED=7` runs it for long.

mod trouble;

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use s3dedup_actors::testkit::postgres::{DATABASE, PostgresServer};

use self::trouble::Trouble;
use crate::audit::{Database, audit, audit_objects};
use crate::health::settles;
use crate::large::Large;
use crate::load::end::read_everything;
use crate::load::{EndsWith, Load};
use crate::member::Member;
use crate::support::TestServer;
use crate::support::s3::{Garage, S3Access};

/// Unless `S3DEDUP_TEST_SECONDS` says something else.
const TIME: Duration = Duration::from_secs(25);
const CLIENTS: usize = 24;
const PAUSE: Duration = Duration::from_millis(400);
/// Between two uploads in parts, at least.
const LARGE_PAUSE: Duration = Duration::from_secs(1);
/// The cleaner runs all the time, and nothing is safe for long without a name.
const SETTINGS: &[(&str, &str)] = &[("CLEANER_INTERVAL", "2"), ("CLEANER_GRACE", "10"), ("LOG_LEVEL", "warn")];

/// A combination of stores.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stores {
    SqliteAndFolder,
    SqliteAndS3,
    PostgresAndFolder,
    /// With two servers.
    PostgresAndS3,
}

/// The servers of one combination and what they stand on.
struct World {
    // Dropped first, while all that they need is there.
    members: Vec<Member>,
    postgres: Option<PostgresServer>,
    bucket: Option<S3Access>,
}

impl World {
    fn start(stores: Stores, garage: &Garage, seed: u64) -> Self {
        let name = format!("{stores:?}").to_lowercase();
        let has_s3 = matches!(stores, Stores::SqliteAndS3 | Stores::PostgresAndS3);
        let has_postgres = matches!(stores, Stores::PostgresAndFolder | Stores::PostgresAndS3);
        let bucket = has_s3.then(|| garage.new_bucket(&name));
        let postgres = has_postgres.then(PostgresServer::start);
        let servers = if stores == Stores::PostgresAndS3 { 2 } else { 1 };
        let database = postgres.as_ref().map(|postgres| (postgres, DATABASE));
        let start =
            |number| Member::start(&format!("{name}-{number}"), bucket.as_ref(), database, SETTINGS, seed + number);
        let members = (0..servers).map(start).collect();
        Self { members, postgres, bucket }
    }

    /// What is wrong with rows and objects. The servers are stopped.
    fn audit(&self) -> Vec<String> {
        let server = &self.members[0].server;
        let database = match &self.postgres {
            Some(postgres) => Database::Postgres(postgres, DATABASE.to_owned()),
            None => Database::Sqlite(server.data_dir().join("kv.db")),
        };
        match &self.bucket {
            Some(bucket) => {
                let objects = bucket.objects().into_iter().map(|(key, size)| (key.to_string(), size));
                audit_objects(&database, objects.collect())
            }
            None => audit(&database, &server.objects()),
        }
    }
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect(name))
}

/// Runs one combination; returns what was wrong.
fn run(stores: Stores, garage: &Garage, seed: u64, time: Duration) -> Vec<String> {
    let mut world = World::start(stores, garage, seed);
    let peers = world.members.iter().map(|member| member.peer.clone()).collect();
    let load = Load::new(peers, seed, PAUSE).with(CLIENTS, 4.0);
    let began = Instant::now();
    let mut trouble = Trouble::new(seed, stores);
    let (large, peer, over) = (Large::new(seed), world.members[0].peer.clone(), AtomicBool::new(false));
    let mut wrong = Vec::new();
    std::thread::scope(|scope| {
        let _ends = EndsWith(&load);
        load.start(scope);
        let uploads = scope.spawn(|| large.go_on(|| peer.address(), (time / 12).max(LARGE_PAUSE), &over));
        trouble.run(&mut world, time);
        over.store(true, Relaxed);
        wrong.extend(uploads.join().unwrap().err());
    });
    let (writes, acknowledged) = load.history.counts();
    println!(
        "{stores:?}: {} s, {} troubles, {acknowledged} of {writes} writes acknowledged, {} refusals, {} tries that told nothing",
        began.elapsed().as_secs(),
        trouble.count(),
        load.refusals.load(Relaxed),
        load.untold.load(Relaxed)
    );
    println!("{stores:?}: (tried, stored) in parts {:?}", large.counts());
    for member in &world.members {
        settles(&member.server);
    }
    world.members.iter_mut().for_each(Member::stop_and_restart);
    let present = read_everything(&load, &mut wrong).len() + large.read_all(peer.address(), &mut wrong);
    for member in &mut world.members {
        member.server.stop();
        if member.server.log().contains("panic") {
            wrong.push(format!("{} panicked", member.peer.name));
        }
    }
    wrong.extend(world.audit());
    wrong.extend(prove(&world.members[0].server, present));
    if !wrong.is_empty() {
        for member in &world.members {
            eprintln!("--- log of {} ---\n{}", member.peer.name, member.server.log());
        }
    }
    wrong
}

/// Asks the program itself.
fn prove(server: &TestServer, names: usize) -> Vec<String> {
    let mut wrong = Vec::new();
    let verified = server.run(&["verify", "--deep", "--json"]);
    let told = String::from_utf8_lossy(&verified.stdout);
    let report: serde_json::Value = serde_json::from_str(&told).unwrap_or_default();
    if !verified.status.success() || report["status"] != "whole" || report["names"] != names {
        let complained = String::from_utf8_lossy(&verified.stderr);
        wrong.push(format!("verify of {names} names: {}: {told} {complained}", verified.status));
    }
    let scanned = server.run(&["clean", "--full-scan", "--dry-run", "--json"]);
    let told = String::from_utf8_lossy(&scanned.stdout);
    let report: serde_json::Value = serde_json::from_str(&told).unwrap_or_default();
    let lost = &report["scan"]["missing"]["number"];
    if !scanned.status.success() || *lost != 0 || report["scan"]["orphans"]["number"] != 0 {
        let complained = String::from_utf8_lossy(&scanned.stderr);
        wrong.push(format!("clean --full-scan --dry-run: {}: {told} {complained}", scanned.status));
    }
    wrong
}

#[test]
fn everything_at_once_on_all_stores() {
    let _turn = crate::alone();
    let seed = setting("S3DEDUP_TEST_SEED").unwrap_or_else(|| u64::from(rand::random::<u32>()));
    let time = setting("S3DEDUP_TEST_SECONDS").map_or(TIME, Duration::from_secs);
    println!("soak: MINUTES={:.1} SEED={seed}", time.as_secs_f64() / 60.0);
    let garage = Garage::start();
    let all = [Stores::SqliteAndFolder, Stores::SqliteAndS3, Stores::PostgresAndFolder, Stores::PostgresAndS3];
    let wrong: Vec<_> = std::thread::scope(|scope| {
        let garage = &garage;
        let runs = all.map(|stores| scope.spawn(move || (stores, run(stores, garage, seed, time))));
        runs.into_iter().map(|run| run.join().expect("a combination panicked")).collect()
    });
    let wrong: Vec<_> =
        wrong.iter().flat_map(|(stores, wrong)| wrong.iter().map(move |what| format!("{stores:?}: {what}"))).collect();
    println!("soak: {} combinations, {} things wrong, SEED={seed}", all.len(), wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
