//! Both servers are killed at random while clients write and the copy runs. At the end both hold the same, and every write.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rustix::process::Signal;
use s3dedup_actors::testkit::filetracker::OldFiletracker;
use s3dedup_actors::testkit::postgres::{DATABASE, PostgresServer};

use super::world::{Counter, all_told, beside, old_file, old_put, our_file, told};
use crate::support::content::{Noise, gzip, sha256};
use crate::support::s3::S3InProcess;
use crate::support::server::Builder;
use crate::support::{Request, TestServer, eventually};

const CLIENTS: usize = 6;
const PATHS: usize = 8;
const FILES_BEFORE: usize = 150;
const TIME: Duration = Duration::from_secs(20);
/// A request that is repeated for so long has failed.
const PATIENCE: Duration = Duration::from_secs(90);

/// The time of day, as it is in the logs.
fn time_of_day() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let (seconds, milliseconds) = (now.as_secs() % 86_400, now.subsec_millis());
    format!("{:02}:{:02}:{:02}.{milliseconds:03}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

fn date(seconds: u64) -> String {
    let seconds = seconds % 3600;
    format!("Tue%2C+14+Nov+2023+12%3A{:02}%3A{:02}+-0000", seconds / 60, seconds % 60)
}

/// Repeats a request until it is answered; nothing but 503 may be in between.
fn until_done(request: &Request, wanted: &[u16]) -> u16 {
    let begun = Instant::now();
    loop {
        match request.try_send() {
            Ok(answer) if wanted.contains(&answer.status) => return answer.status,
            Ok(answer) => assert_eq!(answer.status, 503, "{answer:?}"),
            // Ours was killed.
            Err(_) => {}
        }
        assert!(begun.elapsed() < PATIENCE, "not answered");
        thread::sleep(Duration::from_millis(100));
    }
}

struct Client<'a> {
    number: usize,
    random: StdRng,
    server: &'a Mutex<TestServer>,
    paths: BTreeMap<String, Path>,
}

/// What a client did to a path.
#[derive(Default)]
struct Path {
    /// What must be there.
    content: Option<Vec<u8>>,
    /// For whoever looks for a fault.
    history: Vec<String>,
}

impl Client<'_> {
    /// Paths of its own, so that it knows what must be there at the end. Versions go up.
    fn run(mut self, ends: Instant, done: &Counter) -> BTreeMap<String, Path> {
        let mut stamp = 1;
        while Instant::now() < ends {
            let path = format!("c/{}/{}", self.number, self.random.random_range(0..PATHS));
            let target = format!("/files/{path}?last_modified={}", date(stamp));
            let begun = time_of_day();
            let known = self.paths.entry(path).or_default();
            let request = |method: &str| self.server.lock().unwrap().request(method, &target);
            if self.random.random_ratio(1, 4) {
                let status = until_done(&request("DELETE"), &[200, 404]);
                known.history.push(format!("{begun}-{} DELETE @{stamp} {status}", time_of_day()));
                known.content = None;
            } else {
                // Contents are shared among clients.
                let number = self.random.random_range(0..12);
                let content = format!("content {number}").repeat(500).into_bytes();
                let request = request("PUT").header("Content-Encoding", "gzip");
                let request = request.header("SHA256-Checksum", &sha256(&content));
                let request = request.header("Logical-Size", &content.len().to_string()).body(gzip(&content, 6));
                until_done(&request, &[200]);
                known.history.push(format!("{begun}-{} PUT {number} @{stamp}", time_of_day()));
                known.content = Some(content);
            }
            stamp += 1;
            done.next();
            thread::sleep(Duration::from_millis(self.random.random_range(0..40)));
        }
        self.paths
    }
}

#[test]
fn both_sides_end_equal_after_kills_of_either() {
    both_sides_end_equal(|url| beside(url, "live"));
}

#[test]
fn both_sides_end_equal_after_kills_of_either_over_postgresql_and_s3() {
    let (postgres, s3) = (PostgresServer::start(), S3InProcess::start());
    both_sides_end_equal(|url| beside(url, "live").s3(&s3.access).postgres(&postgres, DATABASE));
}

/// What the old server has before: some names are odd, four of ten contents are those of others, one is large.
fn before(number: usize) -> (String, Vec<u8>) {
    let name = match number % 5 {
        0 => format!("{}f{number}", "deep/".repeat(number % 90)),
        1 => format!("za%C5%BC%C3%B3%C5%82%C4%87%20{number}"),
        _ => format!("before/{number}"),
    };
    let content = match number {
        0 => Vec::new(),
        1 => Noise::bytes(1, 6 << 20),
        _ if number % 10 < 4 => b"shared".repeat(500),
        _ => Noise::bytes(number as u64, 1800),
    };
    (name, content)
}

fn both_sides_end_equal(build: impl FnOnce(&str) -> Builder) {
    let seed = rand::rng().random();
    eprintln!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut old = OldFiletracker::start();
    for number in 0..FILES_BEFORE {
        let (name, content) = before(number);
        old_put(&old, &name, 1, &content);
    }
    let server = Mutex::new(build(&old.url()).start());
    let (done, ends) = (Counter::default(), Instant::now() + TIME);
    let paths: BTreeMap<String, Path> = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let random = StdRng::seed_from_u64(seed.wrapping_add(number as u64 + 1));
                let client = Client { number, random, server: &server, paths: BTreeMap::new() };
                let done = &done;
                scope.spawn(move || client.run(ends, done))
            })
            .collect();
        while Instant::now() < ends {
            thread::sleep(Duration::from_millis(random.random_range(500..2500)));
            if random.random_bool(0.5) {
                old.kill();
                thread::sleep(Duration::from_millis(random.random_range(0..1500)));
                old.start_again();
            } else {
                let mut server = server.lock().unwrap();
                server.signal(Signal::KILL);
                server.wait();
                server.start_again();
            }
        }
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    let server = server.into_inner().unwrap();
    eprintln!("{} writes by {CLIENTS} clients", done.get());
    all_told(&server, 240);
    eventually("the copy is done", || {
        let told = told(&server);
        (told["phase"] == "done").then_some(())
    });
    for (path, Path { content, history }) in &paths {
        let (ours, theirs) = (our_file(&server, path), old_file(&old, path));
        let shown = |file: &Option<(String, Vec<u8>)>| {
            let beginning = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(12)]).into_owned();
            file.as_ref().map(|(version, bytes)| (version.clone(), beginning(bytes)))
        };
        let story = || format!("{path}: here {:?}, there {:?}, {history:#?}", shown(&ours), shown(&theirs));
        assert!(ours.as_ref().map(|(_, content)| content) == content.as_ref(), "ours differs: {}", story());
        assert!(theirs == ours, "the old server differs: {}", story());
    }
    for number in 0..FILES_BEFORE {
        let (path, content) = before(number);
        let ours = our_file(&server, &path);
        assert!(ours.as_ref().is_some_and(|(_, ours)| *ours == content) && old_file(&old, &path) == ours, "{path}");
    }
    let compared = server.run(&["compare", "--filetracker-url", &old.url(), "--deep"]);
    let text = String::from_utf8_lossy(&compared.stdout).into_owned() + &String::from_utf8_lossy(&compared.stderr);
    assert!(compared.status.success(), "{text}");
}
