//! What a server shows of itself, and what it holds: nothing may be left of requests that are over.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::member::Member;
use crate::support::{Noise, Request, TestServer, date, eventually, gunzip, upload};

/// What the kernel says that a process holds, without what others decide: connections whose clients are there, and those
/// of the pool to the database, which are counted by name.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Holding {
    descriptors: usize,
    threads: usize,
}

/// Something periodic may be at it.
const DESCRIPTORS_MORE_MAX: usize = 2;
const THREADS_MORE_MAX: usize = 2;
/// Longer than a thread for blocking work waits for more of it.
const LEAVES_MAX: Duration = Duration::from_secs(20);
const LOOKS_EVERY: Duration = Duration::from_millis(250);

impl Holding {
    fn of(server: &TestServer) -> Self {
        let pool = actors(server)["database"]["open"].as_u64().unwrap_or_default() as usize;
        let process = format!("/proc/{}", server.pid());
        let theirs = clients(&process, server.address().port());
        let descriptors = fs::read_dir(format!("{process}/fd")).unwrap();
        let is_ours = |link: &PathBuf| !theirs.contains(&link.to_string_lossy().into_owned());
        let links = descriptors.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
        Self {
            descriptors: links.filter(is_ours).count().saturating_sub(pool),
            threads: fs::read_dir(format!("{process}/task")).unwrap().count(),
        }
    }

    /// What a server holds at rest: nothing is under way, and no connection to S3 is kept for later.
    pub fn at_rest(member: &Member) -> Self {
        settles(&member.server);
        member.hang_up();
        let mut last = Self::of(&member.server);
        for _ in 0..20 {
            std::thread::sleep(LOOKS_EVERY);
            let now = Self::of(&member.server);
            if now == last {
                break;
            }
            last = now;
        }
        last
    }

    /// What a server holds at rest and did not hold then. What goes away by itself is given the time.
    pub fn left_since(self, member: &Member) -> Option<String> {
        let began = Instant::now();
        loop {
            let now = Self::at_rest(member);
            let is_more = now.descriptors > self.descriptors + DESCRIPTORS_MORE_MAX
                || now.threads > self.threads + THREADS_MORE_MAX;
            if !is_more {
                return None;
            }
            if began.elapsed() > LEAVES_MAX {
                return Some(format!("it held {self:?} and holds {now:?}"));
            }
        }
    }
}

/// The sockets of a process on which a client is connected to this port, as its descriptors name them.
fn clients(process: &str, port: u16) -> HashSet<String> {
    const ESTABLISHED: &str = "01";
    let table = fs::read_to_string(format!("{process}/net/tcp")).unwrap();
    let client = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let (local, state, inode) = (columns.get(1)?, columns.get(3)?, columns.get(9)?);
        let is_ours = local.ends_with(&format!(":{port:04X}")) && *state == ESTABLISHED;
        is_ours.then(|| format!("socket:[{inode}]"))
    };
    table.lines().filter_map(client).collect()
}

/// How long each of a server's threads has waited for a processor. On a machine that has too much to do this, and not
/// what is tested, decides how long something takes.
fn waits(server: &TestServer) -> HashMap<OsString, Duration> {
    let threads = fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap();
    let waited = |thread: fs::DirEntry| -> Option<(OsString, Duration)> {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        let waited = text.split(' ').nth(1)?.parse().ok()?;
        Some((thread.file_name(), Duration::from_nanos(waited)))
    };
    threads.filter_map(|thread| waited(thread.ok()?)).collect()
}

/// Measures what a server takes, and tells how much more it may take on a busy machine.
pub struct Watch<'a> {
    server: &'a TestServer,
    began: Instant,
    waits: HashMap<OsString, Duration>,
}

impl<'a> Watch<'a> {
    pub fn start(server: &'a TestServer) -> Self {
        Self { server, began: Instant::now(), waits: waits(server) }
    }

    /// How long the thread that had to wait most has waited for a processor since the start. Threads wait side by side:
    /// no answer is later than that because of it.
    pub fn starved(&self) -> Duration {
        let since = |(thread, waited): (OsString, Duration)| {
            waited.saturating_sub(self.waits.get(&thread).copied().unwrap_or_default())
        };
        waits(self.server).into_iter().map(since).max().unwrap_or_default()
    }

    /// A limit as it is on this machine: with what was waited for a processor, but never more than half as much again.
    pub fn limit(&self, limit: Duration) -> Duration {
        limit + self.starved().min(limit / 2)
    }

    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }
}

pub fn actors(server: &TestServer) -> Value {
    let answer = server.raw_request("GET", "/api/actors").send();
    serde_json::from_slice(&answer.assert_status(200).body).unwrap()
}

/// Everything that is under way or held for a request, by name.
fn under_way(tree: &Value) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    for gauge in ["inside", "spool_bytes"] {
        let count = tree["requests"][gauge].as_u64();
        found.push((gauge.to_owned(), count.unwrap_or_else(|| panic!("no {gauge} in {tree}"))));
    }
    for child in tree["actors"]["children"].as_array().unwrap() {
        for (gauge, count) in child["load"].as_object().unwrap() {
            // The others say how much there may be, or that something periodic goes on.
            if !matches!(gauge.as_str(), "uploaders" | "running") {
                found.push((format!("{} {gauge}", child["name"]), count.as_u64().unwrap()));
            }
        }
    }
    if let Some(database) = tree["database"].as_object() {
        let [open, idle] = ["open", "idle"].map(|gauge| database[gauge].as_u64().unwrap());
        found.push(("connections in use".into(), open - idle));
    }
    found
}

/// Waits until nothing is under way: no request, permit, lock, upload, byte, file or connection.
pub fn settles(server: &TestServer) {
    let mut last = Vec::new();
    for _ in 0..600 {
        last = under_way(&actors(server));
        last.retain(|(_, count)| *count > 0);
        if last.is_empty() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(last.is_empty(), "these do not go away: {last:?}");
    server.assert_no_temporary_files();
}

/// Puts a new content that is not kept in memory, reads and deletes it, each on a connection of its own. Tells
/// what does not work.
pub fn works(server: &TestServer, number: u64) -> Result<(), String> {
    let content = Noise::bytes(1_000_000 + number, 100_000);
    let target = |rest: &str| format!("/files/probe/{number}{rest}");
    let dated = target(&format!("?last_modified={}", date(0)));
    let request = |method, target: &str| server.request(method, target);
    let answer = |request: Request| request.try_send().map_err(|error| format!("{request}: {error}"));
    let done = |request: Request| match answer(request.clone())? {
        answer if answer.status == 200 && answer.complete => Ok(answer),
        answer => Err(format!("{request}: {} {:?}", answer.status, answer.header("x-exception"))),
    };
    done(request("PUT", &dated).body(content.clone()))?;
    if gunzip(&done(request("GET", &target("")))?.body) != content {
        return Err(format!("other bytes in {number}"));
    }
    done(request("DELETE", &dated))?;
    Ok(())
}

/// Contents that are read all the time, too many and too large to be kept in memory.
pub struct Known {
    contents: Vec<Vec<u8>>,
}

impl Known {
    pub fn put(server: &TestServer) -> Self {
        let size = |number| if number % 4 == 3 { 150_000 } else { 20_000 };
        let known = Self { contents: (0..24).map(|number| Noise::bytes(2_000_000 + number, size(number))).collect() };
        for (number, content) in known.contents.iter().enumerate() {
            let put = upload(server, &format!("probe/known/{number}"), 0, content);
            eventually("it is stored", || (put.send().status == 200).then_some(()));
        }
        known
    }

    /// Reads one of them: right, cut off (`false`), or refused (`false`). Tells what must not be.
    pub fn read(&self, server: &TestServer, turn: usize) -> Result<bool, String> {
        let number = turn % self.contents.len();
        let request = server.request("GET", &format!("/files/probe/known/{number}"));
        let answer = request.try_send().map_err(|error| format!("{request}: {error}"))?;
        match answer.status {
            200 if answer.complete && gunzip(&answer.body) == self.contents[number] => Ok(true),
            200 if !answer.complete => Ok(false),
            503 if answer.header("retry-after").is_some() => Ok(false),
            status => Err(format!("{request}: {status}, {} bytes, {:?}", answer.body.len(), answer.headers)),
        }
    }

    /// Reads so many at once that the server has everything that it needs for many.
    pub fn read_at_once(&self, server: &TestServer) {
        let together = std::sync::Barrier::new(self.contents.len());
        std::thread::scope(|scope| {
            for number in 0..self.contents.len() {
                let together = &together;
                scope.spawn(move || {
                    together.wait();
                    // On a busy machine not all of them succeed.
                    self.read(server, number).unwrap();
                });
            }
        });
    }
}
