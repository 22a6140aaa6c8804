//! Both servers are killed at random while clients write and read and the copy runs. At the end both hold the same, and every
//! write; and nobody was told anything wrong meanwhile.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rustix::process::Signal;
use s3dedup_actors::filetracker::dates;
use s3dedup_actors::model::Stamp;
use s3dedup_actors::testkit::filetracker::{FirstFiletracker, OldFiletracker};
use s3dedup_actors::testkit::postgres::{DATABASE, PostgresServer};

use super::reader::{Fixed, Kills, Reader};
use super::world::{Counter, all_told, beside, old_file, old_put, told, version};
use crate::support::content::{Noise, gunzip, gzip, sha256, shown};
use crate::support::s3::S3InProcess;
use crate::support::server::Builder;
use crate::support::{Request, Response, TestServer, eventually};

const CLIENTS: usize = 6;
const READERS: usize = 3;
const PATHS: usize = 8;
const FILES_BEFORE: usize = 300;
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

/// The same as an answer shows it.
fn shown_hour(seconds: u64) -> String {
    date(seconds).replace("%2C", ",").replace("%3A", ":").replace('+', " ")
}

/// Repeats a request until it is answered; nothing may be in between but 503, and connections that a kill of ours cut off.
fn until_done(request: &Request, kills: &Kills, wanted: &[u16]) -> Response {
    let begun = Instant::now();
    loop {
        let before = kills.now();
        match request.try_send() {
            Ok(answer) if wanted.contains(&answer.status) => return answer,
            Ok(answer) => assert_eq!(answer.status, 503, "{answer:?}"),
            Err(error) => {
                let is_killed = before % 2 == 1 || kills.now() != before;
                assert!(is_killed, "{request} got no answer, and nobody was killed: {error}");
            }
        }
        assert!(begun.elapsed() < PATIENCE, "not answered");
        thread::sleep(Duration::from_millis(100));
    }
}

struct Client<'a> {
    number: usize,
    random: StdRng,
    server: &'a Mutex<TestServer>,
    kills: &'a Kills,
    paths: BTreeMap<String, Path>,
    is_beside_version_1: bool,
}

/// What a client did to a path.
#[derive(Default)]
struct Path {
    /// What must be there: one of these; nothing, when there are none.
    contents: Vec<Vec<u8>>,
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
            if !self.is_beside_version_1 && self.random.random_ratio(1, 4) {
                let status = until_done(&request("DELETE"), self.kills, &[200, 404]).status;
                known.history.push(format!("{begun}-{} DELETE @{stamp} {status}", time_of_day()));
                known.contents.clear();
            } else {
                // Contents are shared among clients.
                let number = self.random.random_range(0..12);
                let content = format!("content {number}").repeat(500).into_bytes();
                let request = request("PUT").header("Content-Encoding", "gzip");
                let request = request.header("SHA256-Checksum", &sha256(&content));
                let request = request.header("Logical-Size", &content.len().to_string()).body(gzip(&content, 6));
                let answer = until_done(&request, self.kills, &[200]);
                let now = version(&answer);
                known.history.push(format!("{begun}-{} PUT {number} @{stamp} now {now}", time_of_day()));
                // Only version 1 ever has a newer one: that of a write during which it was killed.
                let is_newest = now == shown_hour(stamp);
                assert!(is_newest || self.is_beside_version_1, "{target}: {:#?}", known.history);
                if is_newest {
                    known.contents.clear();
                }
                known.contents.push(content);
            }
            stamp += 1;
            done.next();
            thread::sleep(Duration::from_millis(self.random.random_range(0..40)));
        }
        self.paths
    }
}

/// An old server of either version.
trait OldSide: Sized {
    /// Whether it can delete, and list.
    const IS_COMPLETE: bool;
    fn new() -> Self;
    fn store(&self, path: &str, content: &[u8]);
    fn file(&self, path: &str) -> Option<(String, Vec<u8>)>;
    fn kill_9(&mut self);
    fn comes_back(&mut self);
    fn compared(&self, server: &TestServer) -> std::process::Output;
}

impl OldSide for OldFiletracker {
    const IS_COMPLETE: bool = true;

    fn new() -> Self {
        Self::start()
    }

    fn store(&self, path: &str, content: &[u8]) {
        old_put(self, path, 1, content);
    }

    fn file(&self, path: &str) -> Option<(String, Vec<u8>)> {
        old_file(self, path)
    }

    fn kill_9(&mut self) {
        self.kill();
    }

    fn comes_back(&mut self) {
        self.start_again();
    }

    fn compared(&self, server: &TestServer) -> std::process::Output {
        server.run(&["compare", "--filetracker-url", &self.url(), "--deep"])
    }
}

impl OldSide for FirstFiletracker {
    const IS_COMPLETE: bool = false;

    fn new() -> Self {
        Self::start()
    }

    fn store(&self, path: &str, content: &[u8]) {
        let place = on_disk(self, path);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(&place, content).unwrap();
        let modified = UNIX_EPOCH + Duration::from_secs(1_700_000_001);
        File::options().write(true).open(place).unwrap().set_modified(modified).unwrap();
    }

    fn file(&self, path: &str) -> Option<(String, Vec<u8>)> {
        let place = on_disk(self, path);
        let seconds = fs::metadata(&place).ok()?.mtime();
        Some((dates::print(Stamp::from_seconds(seconds)), fs::read(place).unwrap()))
    }

    fn kill_9(&mut self) {
        self.kill();
    }

    fn comes_back(&mut self) {
        self.start_again();
    }

    fn compared(&self, server: &TestServer) -> std::process::Output {
        server.run(&["compare", "--v1-directory", self.dir().to_str().unwrap(), "--deep"])
    }
}

fn on_disk(old: &FirstFiletracker, path: &str) -> PathBuf {
    old.dir().join("files").join(path)
}

#[test]
fn both_sides_end_equal_after_kills_of_either() {
    both_sides_end_equal(|old: &OldFiletracker| beside(&old.url(), "live"));
}

#[test]
fn both_sides_end_equal_after_kills_of_either_over_postgresql_and_s3() {
    let (postgres, s3) = (PostgresServer::start(), S3InProcess::start());
    let build = |old: &OldFiletracker| beside(&old.url(), "live").s3(&s3.access).postgres(&postgres, DATABASE);
    both_sides_end_equal(build);
}

#[test]
fn both_sides_end_equal_after_kills_of_either_beside_version_1() {
    let build = |old: &FirstFiletracker| beside(&old.url(), "live").env("FILETRACKER_V1_DIR", old.dir().display());
    both_sides_end_equal(build);
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

fn both_sides_end_equal<Old: OldSide>(build: impl FnOnce(&Old) -> Builder) {
    let seed = rand::rng().random();
    eprintln!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut old = Old::new();
    let fixed = |number| {
        let (path, content) = before(number);
        // On a disk names are as they are.
        let path = if Old::IS_COMPLETE { path } else { path.replace('%', "-") };
        Fixed { path, content, version: shown(1) }
    };
    let fixed: Vec<Fixed> = (0..FILES_BEFORE).map(fixed).collect();
    for Fixed { path, content, .. } in &fixed {
        old.store(path, content);
    }
    let (done, kills) = (Counter::default(), Kills::default());
    let server = Mutex::new(build(&old).env("MIGRATION_MAX_CONCURRENCY", 1).start());
    let kill_ours = || {
        let mut server = server.lock().unwrap();
        kills.next();
        server.signal(Signal::KILL);
        server.wait();
        server.start_again();
        kills.next();
    };
    let ends = Instant::now() + TIME;
    let random_of = |number: usize| StdRng::seed_from_u64(seed.wrapping_add(number as u64 + 1));
    let (paths, told_to_readers) = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let (random, is_beside_version_1) = (random_of(number), !Old::IS_COMPLETE);
                let paths = BTreeMap::new();
                let client = Client { number, random, server: &server, kills: &kills, paths, is_beside_version_1 };
                let done = &done;
                scope.spawn(move || client.run(ends, done))
            })
            .collect();
        let readers: Vec<_> = (0..READERS)
            .map(|number| {
                let (random, lists_both) = (random_of(CLIENTS + number), Old::IS_COMPLETE);
                let reader = Reader { random, server: &server, kills: &kills, files: &fixed, lists_both };
                scope.spawn(move || reader.run(ends))
            })
            .collect();
        eventually("it copies", || (told(&server.lock().unwrap())["phase"] == "copying").then_some(()));
        kill_ours();
        while Instant::now() < ends {
            thread::sleep(Duration::from_millis(random.random_range(500..2500)));
            if random.random_bool(0.5) {
                old.kill_9();
                thread::sleep(Duration::from_millis(random.random_range(0..1500)));
                old.comes_back();
            } else {
                kill_ours();
            }
        }
        let paths: BTreeMap<String, Path> = clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
        (paths, readers.into_iter().map(|reader| reader.join().unwrap()).sum::<usize>())
    });
    let server = server.into_inner().unwrap();
    let is_cut = |line: &str| {
        let (_, state) = line.split_once("the migration goes on state=")?;
        (state.starts_with("copying") || !state.contains("settled=0")).then_some(())
    };
    assert!(server.log().lines().any(|line| is_cut(line).is_some()), "no kill met the copy");
    eprintln!("{} writes by {CLIENTS} clients, {told_to_readers} reads answered", done.get());
    all_told(&server, 240);
    eventually("the copy is done", || {
        let told = told(&server);
        (told["phase"] == "done").then_some(())
    });
    for (path, Path { contents, history }) in &paths {
        let (ours, theirs) = (our_file(&server, path), old.file(path));
        let shown = |file: &Option<(String, Vec<u8>)>| {
            let beginning = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(12)]).into_owned();
            file.as_ref().map(|(version, bytes)| (version.clone(), beginning(bytes)))
        };
        let story = || format!("{path}: here {:?}, there {:?}, {history:#?}", shown(&ours), shown(&theirs));
        let is_right = match &ours {
            Some((_, content)) => contents.contains(content),
            None => contents.is_empty(),
        };
        assert!(is_right, "ours differs: {}", story());
        assert!(theirs == ours, "the old server differs: {}", story());
    }
    for Fixed { path, content, .. } in &fixed {
        let ours = our_file(&server, path);
        assert!(ours.as_ref().is_some_and(|(_, ours)| ours == content) && old.file(path) == ours, "{path}");
    }
    let compared = old.compared(&server);
    let text = String::from_utf8_lossy(&compared.stdout).into_owned() + &String::from_utf8_lossy(&compared.stderr);
    assert!(compared.status.success(), "{text}");
}

/// What our server has, whichever side it comes from.
fn our_file(server: &TestServer, path: &str) -> Option<(String, Vec<u8>)> {
    let answer = server.request("GET", &format!("/files/{path}")).header("Accept-Encoding", "gzip").send();
    if answer.status == 404 {
        return None;
    }
    let is_gzip = answer.assert_status(200).header("content-encoding") == Some("gzip");
    Some((version(&answer), if is_gzip { gunzip(&answer.body) } else { answer.body.clone() }))
}
