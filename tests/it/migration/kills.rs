//! Both sides are killed at random, again and again, while clients use the old server, until all is copied.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use s3dedup_actors::testkit::filetracker::OldFiletracker;
use s3dedup_actors::testkit::postgres::{DATABASE, PostgresServer};

use super::old::{claim, differences, ends, migrates, put, version};
use crate::migration_live::world::Watcher;
use crate::support::s3::S3InProcess;
use crate::support::server::Builder;
use crate::support::{Noise, Request, TestServer, eventually, gzip, sha256};

const FILES: u64 = 400;
/// Kills of either side before it may end.
const KILLS: usize = 8;
/// Clients of the old server.
const CLIENTS: u64 = 3;
const PATHS: u64 = 6;
/// Files that are asked for before the first kill.
const COPIED_BEFORE: usize = 20;
/// For the names to be known, on a busy machine.
const BEGIN_MAX: Duration = Duration::from_secs(180);

fn fill(old: &OldFiletracker) {
    for number in 0..FILES {
        let seed = if number % 5 < 2 { number % 7 } else { number };
        let len = if number % 50 == 0 { 3_000_000 } else { 4096 };
        put(old, &format!("d{}/f {number}", number % 9), 1_600_000_000 + number as i64, &Noise::bytes(seed, len));
    }
}

#[test]
fn a_migration_outlives_kills_of_either_side() {
    outlives_kills(TestServer::builder());
}

#[test]
fn a_migration_into_postgresql_and_a_bucket_outlives_kills_of_either_side() {
    let (postgres, s3) = (PostgresServer::start(), S3InProcess::start());
    outlives_kills(TestServer::builder().s3(&s3.access).postgres(&postgres, DATABASE));
}

fn outlives_kills(builder: Builder) {
    let seed: u64 = rand::rng().random();
    eprintln!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut old = OldFiletracker::start();
    fill(&old);
    // So slow that a copy takes longer than it takes to kill it.
    let slow = Watcher::start(old.port(), Duration::from_millis(10));
    let url = slow.url();
    let arguments = ["migrate", "--filetracker-url", &url, "--max-concurrency", "2"];
    let server = builder.prepare();
    let log = server.temp_dir().join("log");
    let start = || {
        let said = fs::File::options().create(true).append(true).open(&log).unwrap();
        server.command(&arguments).stderr(said).stdout(Stdio::null()).spawn().unwrap()
    };
    let said = || fs::read_to_string(&log).unwrap();
    let (address, is_over) = (SocketAddr::from((Ipv4Addr::LOCALHOST, old.port())), AtomicBool::new(false));
    let mut child = start();
    // A listing is begun anew when a file goes away under it: clients wait for its end.
    let begun = Instant::now();
    while !said().contains("all names are known") {
        assert!(begun.elapsed() < BEGIN_MAX, "it does not begin to copy: {}", said());
        thread::sleep(Duration::from_millis(50));
    }
    let (mut child, answered) = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let (random, is_over) = (StdRng::seed_from_u64(seed.wrapping_add(number + 1)), &is_over);
                scope.spawn(move || use_the_old_server(address, number, random, is_over))
            })
            .collect();
        // The first kill is to meet a copy, on a busy machine, too.
        let begun = Instant::now();
        while slow.count("GET /files/") < COPIED_BEFORE {
            assert!(begun.elapsed() < BEGIN_MAX, "it copies nothing: {}", said());
            thread::sleep(Duration::from_millis(20));
        }
        // What was settled is noted once a second.
        thread::sleep(Duration::from_millis(1500));
        for round in 0..KILLS {
            if round > 0 && random.random_bool(0.4) {
                old.kill();
                thread::sleep(Duration::from_millis(random.random_range(0..800)));
                old.start_again();
            } else {
                let _ = child.kill();
                child.wait().unwrap();
                child = start();
            }
            thread::sleep(Duration::from_millis(random.random_range(50..1200)));
        }
        is_over.store(true, Ordering::Relaxed);
        (child, clients.into_iter().map(|client| client.join().unwrap()).sum::<usize>())
    });
    let code = child.wait().unwrap().code();
    let text = said();
    // What a client was changing may have failed.
    assert!(matches!(code, Some(0 | 10)), "{code:?} {text}");
    assert!(answered > 10, "the clients did nothing: {answered}");
    let is_cut = |(names, settled): (u64, u64)| 0 < settled && settled < names;
    assert!(resumed(&text).into_iter().any(is_cut), "no kill met a copy: {text}");
    fs::remove_file(&log).unwrap();

    // Once more when nobody writes there any more. All that clients touched has a content of its own then.
    for client in 0..CLIENTS {
        for path in 0..PATHS {
            put_for_good(&old, &format!("c/{client}/{path}"), format!("last of {client} {path}").as_bytes());
        }
    }
    let (migration, not_copied) = migrates(&server, 0, &arguments);
    let files = &migration["files"];
    assert_eq!(
        (&files["total"], &files["skipped"]),
        (&(FILES + CLIENTS * PATHS).into(), &FILES.into()),
        "{not_copied:?}"
    );
    assert!(differences(&server, &["--filetracker-url", &url]).is_empty());
    ends(&server, 0, &["verify", "--deep"]);
}

/// Whatever the kills left of the name. The old server may be killed between its database and its folder, and refuses all writes
/// of that name from then on: who runs it takes the link away then.
fn put_for_good(old: &OldFiletracker, name: &str, content: &[u8]) {
    let at = 1_900_000_000;
    let size = content.len().to_string();
    let answer = claim(old, name.as_bytes(), at, gzip(content, 6), &sha256(content), &size);
    if answer.status == 500 && answer.text().contains("has no key in db") {
        fs::remove_file(old.data().join("links").join(name)).unwrap();
        put(old, name, at, content);
    } else {
        answer.assert_status(200);
    }
}

/// Names and settled names of each copy that another one went on with.
fn resumed(log: &str) -> Vec<(u64, u64)> {
    let number = |line: &str, key: &str| -> u64 {
        let (_, rest) = line.split_once(key).unwrap();
        rest.split(|other: char| !other.is_ascii_digit()).next().unwrap().parse().unwrap()
    };
    let lines = log.lines().filter(|line| line.contains("the migration goes on state=copying"));
    lines.map(|line| (number(line, " names="), number(line, " settled="))).collect()
}

/// Writes, reads and deletes on the old server, whatever becomes of it; returns how often it answered.
fn use_the_old_server(address: SocketAddr, number: u64, mut random: StdRng, is_over: &AtomicBool) -> usize {
    let (mut answered, mut at) = (0, 1_700_000_000);
    while !is_over.load(Ordering::Relaxed) {
        at += 1;
        let path = format!("/files/c/{number}/{}", random.random_range(0..PATHS));
        let changed = format!("{path}?last_modified={}", version(at));
        let request = match random.random_range(0..5) {
            0 => Request::new(address, "DELETE", &changed),
            1 | 2 => Request::new(address, "GET", &path),
            _ => {
                // Without its digest: it would keep what breaks off.
                let content = Noise::bytes(random.random_range(0..20), 20_000);
                let request = Request::new(address, "PUT", &changed).header("Content-Encoding", "gzip");
                request.header("Logical-Size", "20000").body(gzip(&content, 1))
            }
        };
        // It may be down.
        answered += usize::from(request.try_send().is_ok_and(|answer| matches!(answer.status, 200 | 404)));
        thread::sleep(Duration::from_millis(random.random_range(0..40)));
    }
    answered
}

#[test]
fn a_migration_of_a_tree_outlives_kills_and_a_disk_that_is_away_for_a_while() {
    let seed: u64 = rand::rng().random();
    eprintln!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let dir = tempfile::tempdir().unwrap();
    let (files, away) = (dir.path().join("files"), dir.path().join("away"));
    for number in 0..3 * FILES {
        let path = files.join(format!("d{}/f {number}", number % 9));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let content = Noise::bytes(number / 2, if number % 50 == 0 { 3_000_000 } else { 4096 });
        fs::write(&path, content).unwrap();
        let modified = std::time::UNIX_EPOCH + Duration::from_secs(1_600_000_000 + number);
        fs::File::options().write(true).open(path).unwrap().set_modified(modified).unwrap();
    }
    let directory = dir.path().to_str().unwrap();
    let server = TestServer::builder().prepare();
    let log = server.temp_dir().join("log");
    let start = || {
        let said = fs::File::options().create(true).append(true).open(&log).unwrap();
        let arguments = ["migrate-v1", "--v1-directory", directory, "--max-concurrency", "2"];
        server.command(&arguments).stderr(said).stdout(Stdio::null()).spawn().unwrap()
    };
    let said = |text: &str| fs::read_to_string(&log).unwrap().matches(text).count();
    let mut child = start();
    for round in 0..KILLS {
        std::thread::sleep(Duration::from_millis(random.random_range(30..300)));
        let _ = child.kill();
        child.wait().unwrap();
        child = start();
        if round % 4 == 1 {
            // After it has begun: without its tree it would not.
            eventually("it begins", || (said("all names are known") + said("goes on") > 0).then_some(()));
            std::thread::sleep(Duration::from_millis(50));
            fs::rename(&files, &away).unwrap();
            std::thread::sleep(Duration::from_millis(700));
            fs::rename(&away, &files).unwrap();
        }
    }
    let code = child.wait().unwrap().code();
    let text = fs::read_to_string(&log).unwrap();
    assert_eq!(code, Some(0), "{text}");
    fs::remove_file(log).unwrap();
    assert!(differences(&server, &["--v1-directory", directory]).is_empty());
    ends(&server, 0, &["verify", "--deep"]);
}

#[test]
fn a_tree_whose_disk_goes_away_in_the_middle_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let (files, away) = (dir.path().join("files"), dir.path().join("away"));
    fs::create_dir(&files).unwrap();
    for number in 0..1200 {
        fs::write(files.join(number.to_string()), Noise::bytes(number, 30_000)).unwrap();
    }
    let server = TestServer::builder().prepare();
    let log = server.temp_dir().join("log");
    let arguments = ["migrate-v1", "--v1-directory", dir.path().to_str().unwrap(), "--max-concurrency", "1"];
    let said = fs::File::create(&log).unwrap();
    let mut child = server.command(&arguments).stderr(said).stdout(Stdio::null()).spawn().unwrap();
    let is_said = |text: &str| fs::read_to_string(&log).unwrap().contains(text);
    eventually("it copies", || is_said("all names are known").then_some(()));
    fs::rename(&files, &away).unwrap();
    // Another, empty folder is in its place: nothing in it is absent.
    fs::create_dir(&files).unwrap();
    eventually("it waits", || is_said("the migration waits for the source").then_some(()));
    fs::remove_dir(&files).unwrap();
    fs::rename(&away, &files).unwrap();
    let code = child.wait().unwrap().code();
    assert_eq!(code, Some(0), "{}", fs::read_to_string(&log).unwrap());
    fs::remove_file(log).unwrap();
    assert!(differences(&server, &arguments[1..3]).is_empty());
}
