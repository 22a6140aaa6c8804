//! How a case is run, and all of them.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitStatus;
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use s3dedup_actors::failpoint::Point;
use s3dedup_actors::testkit::postgres::PostgresServer;

use crate::care;
use crate::cases::{Action, Case, Kind, Metadata, Scene, table};
use crate::heal;
use crate::mix::{Client, patiently};
use crate::support::s3::Garage;
use crate::support::{Noise, date, eventually, gzip, upload};
use crate::world::{CLIENTS, ORPHAN, VARIABLE, World, go_on, is_abort};

/// Cases at a time: those that wait are idle, the others take a processor.
const WAITING: usize = 20;
const WORKING: usize = 3;
/// Longer than any stall, generously.
const STALL_MAX: Duration = Duration::from_secs(120);

/// What is wrong with how the start ended.
fn start_problem(case: Case, end: Option<ExitStatus>) -> Option<String> {
    let is_right = match (case.action, end) {
        (Action::Abort, Some(end)) => is_abort(end),
        // An outage of the database is waited for.
        (Action::Error, None) => case.metadata == Metadata::Postgres && case.point == Point::StartAfterMigrate,
        (Action::Error, Some(end)) => end.code() == Some(1),
        (Action::Stall | Action::Block, end) => end.is_none(),
        (Action::Abort, None) => false,
    };
    (!is_right).then(|| format!("the start ended with {end:?}"))
}

/// On nothing, and on data.
fn at_start(world: &mut World<'_>) {
    for round in 0..2 {
        world.arm();
        let end = world.server.serves_or_ends();
        world.wrong.extend(start_problem(world.case, end));
        if end.is_none() {
            world.server.stop();
        }
        world.disarm();
        world.server.start_again();
        if round == 0 {
            world.all_go_on();
            world.server.stop();
        }
    }
}

/// A command that cleans, beside no server.
fn in_scan(world: &mut World<'_>) {
    world.server.start_again();
    world.all_go_on();
    world.server.stop();
    world.leave_orphan();
    world.run_armed(&["clean", "--full-scan", "--delete-orphans"], &[0]);
    world.server.start_again();
}

/// A command that cleans, after a server was killed that had an upload in parts under way.
fn in_parts(world: &mut World<'_>) {
    world.server.start_again();
    world.all_go_on();
    world.server.stop();
    world.server.set_env(VARIABLE, Some("put-before-complete=abort"));
    world.server.start_again();
    let content = gzip(&Noise::bytes(5, 9 << 20), 0);
    let target = format!("/files/parts?last_modified={}", date(0));
    let answer = world.server.request("PUT", &target).header("Content-Encoding", "gzip").body(content).try_send();
    world.says(answer.is_ok(), "the server did not end");
    world.server.wait();
    world.disarm();
    world.run_armed(&["clean"], &[0]);
    let parts = |world: &mut World<'_>| {
        let report = world.run(&["clean", "--json"], &[0]);
        let report: serde_json::Value = serde_json::from_slice(&report.stdout).unwrap_or_default();
        report["parts"]["planned"].as_u64()
    };
    let _ = parts(world);
    let left = parts(world);
    world.says(left != Some(0), format!("uploads in parts are left: {left:?}"));
    world.server.start_again();
}

/// An upload that was given up long ago: its intent, and its object.
fn abandon(world: &mut World<'_>) {
    world.server.set_env("CLEANER_ENABLED", Some("false"));
    world.server.start_again();
    patiently(&upload(&world.server, "first", 0, b"so that there are folders")).assert_status(200);
    world.server.stop();
    world.server.set_env("CLEANER_ENABLED", Some("true"));
    world.leave_orphan();
    world.leave_intent(ORPHAN, 0, 1);
}

/// A server with clients, and for points of cleaning with a cleaner.
fn in_server(world: &mut World<'_>) {
    let name = world.case.point.name();
    let cleans = world.case.kind() == Kind::Clean;
    if world.case.scene == Scene::Abandoned {
        abandon(world);
    }
    world.arm();
    world.server.start_again();
    world.all_go_on();
    if cleans {
        let reached = format!("crash point point={name}");
        eventually("the cleaner is there", || world.server.log().contains(&reached).then_some(()));
    }
    world.disarm();
    world.server.set_env("CLEANER_ENABLED", Some("false"));
    if world.case.action == Action::Abort {
        let end = world.server.wait();
        world.says(!is_abort(end), format!("the process ended with {end}"));
    } else {
        if cleans {
            // Some of their contents are those that the cleaner is at.
            let mut others: Vec<_> = (CLIENTS..2 * CLIENTS).map(|number| Client::new(number, false)).collect();
            go_on(&mut others, &world.server);
            world.clients.extend(others);
        }
        // A request is cut off by its own limits; a cleaner goes on at the end.
        if cleans && world.case.waits() {
            let over = format!("crash point is over point={name}");
            let begun = Instant::now();
            while !world.server.log().contains(&over) && begun.elapsed() < STALL_MAX {
                std::thread::sleep(Duration::from_millis(200));
            }
            let is_over = world.server.log().contains(&over);
            world.says(!is_over, "the stall does not end");
        }
        let gave_up = world.clients.iter().any(|client| !client.is_done());
        world.says(gave_up, "a client gave up");
        world.all_check();
        world.server.stop();
    }
    world.server.start_again();
}

/// Runs a case; returns what was wrong.
fn run(case: Case, number: usize, postgres: &PostgresServer, garage: &OnceLock<Garage>) -> Vec<String> {
    let mut world = World::new(case, number, postgres, garage);
    match case.kind() {
        Kind::Care => return care::run(world),
        Kind::Start => at_start(&mut world),
        Kind::Scan => in_scan(&mut world),
        Kind::Parts => in_parts(&mut world),
        Kind::Heal => heal::run(&mut world),
        Kind::Request | Kind::Clean => in_server(&mut world),
    }
    // As it was found, and after all clients have done what they wanted to.
    for _ in 0..2 {
        world.all_check();
        world.look();
        world.all_go_on();
    }
    let cannot = world.clients.iter().any(|client| !client.is_done());
    world.says(cannot, "a client cannot go on");
    world.server.stop();
    world.look();
    if matches!(case.kind(), Kind::Clean | Kind::Scan | Kind::Parts) {
        // What was begun is finished by the next run, and nothing that is needed goes.
        world.clean(&["clean", "--full-scan", "--delete-orphans"]);
        world.look();
        let has_orphan = world.has_orphan();
        world.says(has_orphan, "the orphan is still there");
        world.server.start_again();
        world.all_check();
        world.server.stop();
    }
    world.into_wrong()
}

#[test]
fn nothing_is_lost_at_any_crash_point() {
    let begun = Instant::now();
    let postgres = PostgresServer::start_with(&["max_connections=600"]);
    let garage = OnceLock::new();
    let wanted = std::env::var("S3DEDUP_TEST_POINT").unwrap_or_default();
    let cases: Vec<_> =
        Case::all().into_iter().filter(|case| wanted.split(',').any(|text| case.label().contains(text))).collect();
    let (waiting, working): (Vec<_>, Vec<_>) = cases.iter().copied().enumerate().partition(|(_, case)| case.waits());
    let (waiting, working) = (Mutex::new(waiting.into_iter()), Mutex::new(working.into_iter()));
    let done = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for (queue, threads) in [(&waiting, WAITING), (&working, WORKING)] {
            for _ in 0..threads {
                scope.spawn(|| {
                    loop {
                        let next = queue.lock().unwrap().next();
                        let Some((number, case)) = next else { return };
                        let wrong = catch_unwind(AssertUnwindSafe(|| run(case, number, &postgres, &garage)));
                        let wrong = wrong.unwrap_or_else(|_| vec!["it panicked".to_owned()]);
                        done.lock().unwrap().insert(number, wrong);
                    }
                });
            }
        }
    });
    let done = done.into_inner().unwrap();
    for (number, wrong) in done.iter().filter(|(_, wrong)| !wrong.is_empty()) {
        println!("{:?}:\n    {}", cases[*number], wrong.join("\n    "));
    }
    let counted: Vec<_> = cases.iter().enumerate().map(|(number, case)| (*case, done[&number].len())).collect();
    let violations: usize = counted.iter().map(|(_, wrong)| wrong).sum();
    println!("{}", table(&counted));
    println!("crash matrix: {} cases, {violations} violations, {} s", cases.len(), begun.elapsed().as_secs());
    assert_eq!(violations, 0);
}
