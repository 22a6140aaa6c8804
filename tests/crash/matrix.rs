//! The cases and how each is run.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitStatus;
use std::sync::Mutex;
use std::time::Instant;

use s3dedup_actors::failpoint::Point;
use s3dedup_actors::testkit::postgres::{PASSWORD, PostgresServer, USER};

use crate::audit::{Database, audit};
use crate::mix::Client;
use crate::support::s3::S3InProcess;
use crate::support::{TestServer, eventually};

const VARIABLE: &str = "S3DEDUP_FAILPOINTS";
const CLIENTS: usize = 3;
/// Cases at a time: most of them wait for a stall or a disk.
const THREADS: usize = 10;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Metadata {
    Sqlite,
    Postgres,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Contents {
    Folder,
    S3,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Action {
    Abort,
    Error,
    Stall,
}

#[derive(Clone, Copy, Debug)]
struct Case {
    point: Point,
    /// Which hit of the point.
    hit: u32,
    action: Action,
    metadata: Metadata,
    contents: Contents,
}

impl Case {
    fn all() -> Vec<Self> {
        let mut cases = Vec::new();
        // The stalls first: they take longest.
        for action in [Action::Stall, Action::Abort, Action::Error] {
            for point in Point::ALL.iter().copied() {
                let hits: &[u32] = match point {
                    _ if is_start(point) || point == Point::CleanInScan => &[1],
                    Point::DeleteBeforeCommit | Point::DeleteAfterCommit => &[2],
                    _ if is_clean(point) => &[2],
                    // At one of the first and at a later one: which contents those are is up to the clients.
                    Point::PutMidUpload => &[2, 6],
                    _ => &[5],
                };
                // Where an object may be half there, every pair of stores counts.
                let pairs: &[_] = match point {
                    Point::PutAfterIntent | Point::PutMidUpload | Point::PutAfterUpload | Point::PutBeforeCommit => &[
                        (Metadata::Sqlite, Contents::Folder),
                        (Metadata::Sqlite, Contents::S3),
                        (Metadata::Postgres, Contents::Folder),
                        (Metadata::Postgres, Contents::S3),
                    ],
                    _ => &[(Metadata::Sqlite, Contents::Folder), (Metadata::Postgres, Contents::S3)],
                };
                for hit in hits.iter().copied() {
                    let case = |(metadata, contents)| Self { point, hit, action, metadata, contents };
                    cases.extend(pairs.iter().copied().map(case));
                }
            }
        }
        cases
    }

    fn armed(&self) -> String {
        let long = std::env::var_os("S3DEDUP_TEST_LONG").is_some();
        let action = match self.action {
            Action::Abort => "abort",
            Action::Error => "error",
            Action::Stall if long => "stall:30",
            Action::Stall => "stall:6",
        };
        format!("{}={action}#{}", self.point.name(), self.hit)
    }

    /// What is wrong with how the start ended.
    fn start_problem(&self, end: Option<ExitStatus>) -> Option<String> {
        let is_right = match (self.action, end) {
            (Action::Abort, Some(end)) => end.core_dumped() || end.signal() == Some(6),
            // An outage of the database is waited for.
            (Action::Error, None) => self.metadata == Metadata::Postgres && self.point == Point::StartAfterMigrate,
            (Action::Error, Some(end)) => end.code() == Some(1),
            (Action::Stall, end) => end.is_none(),
            (Action::Abort, None) => false,
        };
        (!is_right).then(|| format!("the start ended with {end:?}"))
    }
}

fn is_clean(point: Point) -> bool {
    point.name().starts_with("clean-")
}

fn is_start(point: Point) -> bool {
    point.name().starts_with("start-")
}

/// Runs a case; returns what was wrong.
fn run(case: Case, number: usize, postgres: &PostgresServer) -> Vec<String> {
    let s3 = (case.contents == Contents::S3).then(S3InProcess::start);
    let mut builder = TestServer::builder();
    for (name, value) in [("MAX_INMEMORY_SIZE", 300_000), ("HTTP_WORKERS", 2), ("CPU_THREADS", 1)] {
        builder = builder.env(name, value);
    }
    if let Some(s3) = &s3 {
        builder = builder.s3(&s3.access);
    }
    let name = format!("crash{number}");
    if case.metadata == Metadata::Postgres {
        postgres.sql_in("postgres", &format!("CREATE DATABASE {name}"));
        let port = postgres.port().to_string();
        for (name, value) in [
            ("KVSTORAGE_TYPE", "postgres"),
            ("LOCKS_TYPE", "postgres"),
            ("POSTGRES_HOST", "127.0.0.1"),
            ("POSTGRES_PORT", &port),
            ("POSTGRES_USER", USER),
            ("POSTGRES_PASSWORD", PASSWORD),
            ("POSTGRES_DB", &name),
            ("POSTGRES_MAX_CONNECTIONS", "4"),
        ] {
            builder = builder.env(name, value);
        }
    }
    // Everything that is unused is cleaned at once, one object after the other; in the scan's case by the command alone.
    let cleans = is_clean(case.point) && case.point != Point::CleanInScan;
    for (name, value) in [("CLEANER_INTERVAL", 1), ("CLEANER_GRACE", 0), ("CLEANER_BATCH_SIZE", 1)] {
        builder = builder.env(name, value);
    }
    let mut server = builder.env("CLEANER_ENABLED", cleans).prepare();
    let database = match case.metadata {
        Metadata::Sqlite => Database::Sqlite(server.data_dir().join("kv.db")),
        Metadata::Postgres => Database::Postgres(postgres, name),
    };
    let look = |server: &TestServer| match &s3 {
        Some(s3) => audit(&database, &s3.objects()),
        None => audit(&database, &server.objects()),
    };

    let parts = case.point == Point::PutMidUpload && case.contents == Contents::S3;
    let mut clients: Vec<_> = (0..CLIENTS).map(|number| Client::new(number, parts && number == 0)).collect();
    let mut wrong = Vec::new();
    let mut printed = String::new();
    if is_start(case.point) {
        // On nothing, and on data.
        for round in 0..2 {
            server.set_env(VARIABLE, Some(&case.armed()));
            let end = server.serves_or_ends();
            wrong.extend(case.start_problem(end));
            if end.is_none() {
                server.stop();
            }
            server.set_env(VARIABLE, None);
            server.start_again();
            if round == 0 {
                all_go_on(&mut clients, &server);
                server.stop();
            }
        }
    } else if case.point == Point::CleanInScan {
        server.start_again();
        all_go_on(&mut clients, &server);
        server.stop();
        server.set_env(VARIABLE, Some(&case.armed()));
        let output = server.run(&["clean", "--full-scan"]);
        server.set_env(VARIABLE, None);
        printed = String::from_utf8_lossy(&output.stderr).into_owned();
        let is_right = match case.action {
            Action::Abort => output.status.signal() == Some(6),
            Action::Error => output.status.code().is_some_and(|code| code != 0),
            Action::Stall => output.status.success(),
        };
        wrong.extend((!is_right).then(|| format!("the command ended with {}: {printed}", output.status)));
        server.start_again();
    } else {
        server.set_env(VARIABLE, Some(&case.armed()));
        server.start_again();
        all_go_on(&mut clients, &server);
        if cleans {
            let reached = format!("crash point point={}", case.point.name());
            eventually("the cleaner is there", || server.log().contains(&reached).then_some(()));
        }
        server.set_env(VARIABLE, None);
        server.set_env("CLEANER_ENABLED", Some("false"));
        if case.action == Action::Abort {
            let end = server.wait();
            wrong.extend((end.signal() != Some(6)).then(|| format!("the process ended with {end}")));
        } else {
            wrong.extend(clients.iter().any(|client| !client.is_done()).then(|| "a client gave up".to_owned()));
            server.stop();
        }
        server.start_again();
    }
    printed += &server.log();
    if !printed.contains(&format!("crash point point={}", case.point.name())) {
        wrong.push("the point was not reached".to_owned());
    }

    // As it was found, and after all clients have done what they wanted to.
    for _ in 0..2 {
        clients.iter_mut().for_each(|client| client.check(&server));
        wrong.extend(look(&server));
        all_go_on(&mut clients, &server);
    }
    wrong.extend(clients.iter().any(|client| !client.is_done()).then(|| "a client cannot go on".to_owned()));
    server.stop();
    wrong.extend(look(&server));
    if is_clean(case.point) {
        // What was begun is finished by the next run, and nothing that is needed goes.
        if let Database::Postgres(postgres, name) = &database {
            // As two minutes would: a cleaner that was cut off has the lead that long.
            postgres.sql_in(name, "DELETE FROM s3dedup.leaders");
        }
        let output = server.run(&["clean", "--full-scan"]);
        let told = String::from_utf8_lossy(&output.stderr);
        wrong.extend((!output.status.success()).then(|| format!("cleaning ends with {}: {told}", output.status)));
        wrong.extend(look(&server));
        server.start_again();
        clients.iter_mut().for_each(|client| client.check(&server));
        server.stop();
    }
    let left = std::fs::read_dir(server.data_dir().join("blobs"));
    let left = left.into_iter().flatten().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    wrong.extend(left.filter(|name| name.starts_with('.')).map(|name| format!("left behind: {name}")));
    wrong.extend(clients.into_iter().flat_map(|client| client.violations));
    if !wrong.is_empty() {
        eprintln!("--- log of {case:?} ---\n{}", server.log());
    }
    wrong
}

fn all_go_on(clients: &mut [Client], server: &TestServer) {
    std::thread::scope(|scope| {
        for client in clients {
            scope.spawn(|| client.go_on(server));
        }
    });
}

#[test]
fn nothing_is_lost_at_any_crash_point() {
    let begun = Instant::now();
    let postgres = PostgresServer::start_with(&["max_connections=200"]);
    let wanted = std::env::var("S3DEDUP_TEST_POINT").unwrap_or_default();
    let cases: Vec<_> = Case::all().into_iter().filter(|case| case.point.name().contains(&wanted)).collect();
    let queue = Mutex::new(cases.iter().copied().enumerate());
    let failed = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().unwrap().next();
                    let Some((number, case)) = next else { return };
                    let wrong = catch_unwind(AssertUnwindSafe(|| run(case, number, &postgres)));
                    let wrong = wrong.unwrap_or_else(|_| vec!["it panicked".to_owned()]);
                    if !wrong.is_empty() {
                        failed.lock().unwrap().insert(number, (case, wrong));
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    for (case, wrong) in failed.values() {
        println!("{case:?}:\n    {}", wrong.join("\n    "));
    }
    let violations: usize = failed.values().map(|(_, wrong)| wrong.len()).sum();
    println!("crash matrix: {} cases, {violations} violations, {} s", cases.len(), begun.elapsed().as_secs());
    assert_eq!(violations, 0);
}
