//! Every fault, on every way: clients work all the time, are told the truth or "not now" in time, and find
//! everything again; the server recovers by itself and keeps nothing of what is over.

mod cases;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::{Duration, Instant};

use s3dedup_actors::testkit::postgres::PostgresServer;

use self::cases::Case;
use crate::audit::{Database, audit, audit_objects};
use crate::health::{Holding, Known, Watch, actors, works};
use crate::large::Large;
use crate::load::end::read_everything;
use crate::load::{EndsWith, Load};
use crate::member::{Fault, Member, Way};
use crate::support::TestServer;
use crate::support::s3::Garage;

/// Cases at a time: most of the time they wait.
const THREADS: usize = 5;
const CLIENTS: usize = 8;
/// Beside them, during the fault.
const READERS: usize = 3;
const PAUSE: Duration = Duration::from_millis(150);
/// Between two uploads in parts.
const LARGE_PAUSE: Duration = Duration::from_secs(1);
const WARM_UP: Duration = Duration::from_millis(1200);
/// The contract: an answer begins within this time.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// The contract: all is well so long after a fault.
const RECOVERY_MAX: Duration = Duration::from_secs(10);
/// It is well when so many contents are stored, read and deleted, one after the other.
const WELL: u64 = 10;

/// What all cases share.
struct Backends {
    garage: Garage,
    postgres: PostgresServer,
}

/// How a case went.
#[derive(Default)]
struct Report {
    wrong: Vec<String>,
    told: String,
}

fn run(case: &Case, number: usize, backends: &Backends) -> Report {
    let mut report = Report::default();
    let name = format!("case{number}");
    let bucket = (case.way == Way::S3).then(|| backends.garage.new_bucket(&name));
    let postgres = (case.way != Way::S3).then(|| {
        backends.postgres.sql_in("postgres", &format!("CREATE DATABASE {name}"));
        (&backends.postgres, name.as_str())
    });
    let mut member = Member::start(&name, bucket.as_ref(), postgres, case.settings, number as u64);
    let load = Load::new(vec![member.peer.clone()], number as u64, PAUSE).with(CLIENTS, 8.0);
    let known = Known::put(&member.server);
    let large = Large::new(number as u64);
    let (met, reads, over) = (member.answered_wrongly(), Reads::default(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let _ends = EndsWith(&load);
        load.start(scope);
        std::thread::sleep(WARM_UP);
        load.rest();
        known.read_at_once(&member.server);
        let before = Holding::at_rest(&member);
        load.go_on();
        std::thread::sleep(WARM_UP / 4);

        let watch = Watch::start(&member.server);
        member.peer.take_slowest();
        member.fail(case.way, case.fault, case.share);
        if let Some((way, fault)) = case.also {
            member.fail(way, Fault::Network(fault), 1.0);
        }
        let began = Instant::now();
        let readers: Vec<_> = (0..READERS)
            .map(|reader| {
                let (reads, known, server, over) = (&reads, &known, &member.server, &over);
                scope.spawn(move || reads.go_on(known, server, reader, over))
            })
            .collect();
        let uploads_in_parts = (case.way == Way::S3).then(|| {
            let (large, peer, over) = (&large, &member.peer, &over);
            scope.spawn(move || large.go_on(|| peer.address(), LARGE_PAUSE, over))
        });
        let mut health = Duration::ZERO;
        while began.elapsed() < case.time {
            let asked = Instant::now();
            member.server.raw_request("GET", "/health").send().assert_status(200);
            actors(&member.server);
            health = health.max(asked.elapsed());
            std::thread::sleep(Duration::from_millis(100));
        }
        over.store(true, Relaxed);
        let in_trouble = load.refusals.load(Relaxed);
        member.pass();
        let recovery = recover(&member.server, &mut report);
        report.wrong.extend(readers.into_iter().filter_map(|reader| reader.join().unwrap().err()));
        if let Some(uploads) = uploads_in_parts {
            report.wrong.extend(uploads.join().unwrap().err());
            if large.put(member.peer.address()) != Ok(true) {
                report.wrong.push("nothing can be uploaded in parts after the fault".into());
            }
        }
        load.rest();
        let (slowest, of) = member.peer.take_slowest();
        let more = watch.starved();
        if slowest.max(health) > watch.limit(ANSWER_MAX) {
            report.wrong.push(format!("an answer took {slowest:?}: {of}; /health took {health:?}; starved {more:?}"));
        }
        report.wrong.extend(before.left_since(&member));
        let (writes, acknowledged) = load.history.counts();
        report.told = format!(
            "{in_trouble} refusals, {} of {} reads, met {}, slowest {} ms ({of}), recovery {} ms, {acknowledged} of {writes} writes, (tried, stored) in parts {:?}, starved {} ms",
            reads.right.load(Relaxed),
            reads.all.load(Relaxed),
            member.answered_wrongly() - met,
            slowest.as_millis(),
            recovery.as_millis(),
            large.counts(),
            more.as_millis()
        );
    });
    // Nothing is in memory any more: all is read from where it is kept.
    member.stop_and_restart();
    read_everything(&load, &mut report.wrong);
    large.read_all(member.peer.address(), &mut report.wrong);
    member.server.stop();
    if member.server.log().contains("panic") {
        report.wrong.push("it panicked".into());
    }
    let database = match postgres {
        Some((server, name)) => Database::Postgres(server, name.to_owned()),
        None => Database::Sqlite(member.server.data_dir().join("kv.db")),
    };
    report.wrong.extend(match &bucket {
        Some(bucket) => {
            let objects = bucket.objects().into_iter().map(|(key, size)| (key.to_string(), size));
            audit_objects(&database, objects.collect())
        }
        None => audit(&database, &member.server.objects()),
    });
    if !report.wrong.is_empty() {
        eprintln!("--- log of {} ---\n{}", case.name(), member.server.log());
    }
    report
}

/// Reads during the fault.
#[derive(Default)]
struct Reads {
    all: AtomicUsize,
    right: AtomicUsize,
}

impl Reads {
    fn go_on(&self, known: &Known, server: &TestServer, mut turn: usize, over: &AtomicBool) -> Result<(), String> {
        while !over.load(Relaxed) {
            turn += READERS;
            self.all.fetch_add(1, Relaxed);
            self.right.fetch_add(usize::from(known.read(server, turn)?), Relaxed);
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }
}

/// Waits until everything works, and goes on to do so.
fn recover(server: &TestServer, report: &mut Report) -> Duration {
    let (began, watch) = (Instant::now(), Watch::start(server));
    let (mut in_a_row, mut since, mut number) = (0, began, 0);
    let mut last = String::new();
    while in_a_row < WELL {
        number += 1;
        match works(server, number) {
            Ok(()) => in_a_row += 1,
            Err(why) => (in_a_row, since, last) = (0, Instant::now(), why),
        }
        if watch.elapsed() > watch.limit(2 * RECOVERY_MAX) {
            break;
        }
    }
    let took = since - began;
    if took > watch.limit(RECOVERY_MAX) || in_a_row < WELL {
        report.wrong.push(format!("it was not well after {took:?}: {last}"));
    }
    took
}

#[test]
fn every_fault_is_survived() {
    let _turn = crate::alone();
    let began = Instant::now();
    let backends = Backends { garage: Garage::start(), postgres: PostgresServer::start_with(&["max_connections=300"]) };
    let wanted = std::env::var("S3DEDUP_TEST_FAULT").unwrap_or_default();
    let cases: Vec<_> = Case::all().into_iter().filter(|case| case.name().contains(&wanted)).collect();
    let queue = Mutex::new(cases.iter().enumerate());
    let reports = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        let work = || loop {
            let next = queue.lock().unwrap().next();
            let Some((number, case)) = next else { return };
            let report = catch_unwind(AssertUnwindSafe(|| run(case, number, &backends)));
            let report = report.unwrap_or_else(|_| Report { wrong: vec!["it panicked".into()], ..Report::default() });
            println!("{:5.1} s: {}: {}", began.elapsed().as_secs_f64(), case.name(), report.told);
            reports.lock().unwrap().insert(number, (case.name(), report.wrong));
        };
        for _ in 0..THREADS {
            scope.spawn(work);
        }
    });
    let reports = reports.into_inner().unwrap();
    for (name, wrong) in reports.values().filter(|(_, wrong)| !wrong.is_empty()) {
        println!("{name}:\n    {}", wrong.join("\n    "));
    }
    let violations: usize = reports.values().map(|(_, wrong)| wrong.len()).sum();
    println!("fault matrix: {} cases, {violations} violations, {} s", cases.len(), began.elapsed().as_secs());
    assert_eq!(violations, 0);
}
