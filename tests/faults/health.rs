//! What a server shows of itself, and what it holds: nothing may be left of requests that are over.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Noise, Request, TestServer, date, eventually, gunzip, upload};

/// What the kernel says that a process holds.
#[derive(Clone, Copy, Debug)]
pub struct Holding {
    descriptors: usize,
    threads: usize,
}

/// Connections to backends that are kept for the next requests: they come and go by fives.
const DESCRIPTORS_MORE_MAX: usize = 32;
const THREADS_MORE_MAX: usize = 4;

impl Holding {
    pub fn of(server: &TestServer) -> Self {
        let count = |what| fs::read_dir(format!("/proc/{}/{what}", server.pid())).unwrap().count();
        Self { descriptors: count("fd"), threads: count("task") }
    }

    /// What has become more than chance explains.
    pub fn grown_since(self, before: Self) -> Option<String> {
        let is_much = self.descriptors > before.descriptors + DESCRIPTORS_MORE_MAX
            || self.threads > before.threads + THREADS_MORE_MAX;
        is_much.then(|| format!("it held {before:?} and holds {self:?}"))
    }
}

/// How long a server's threads have waited for a processor, all together. On a machine that has too much to do this, and
/// not what is tested, decides how long something takes.
pub fn starved(server: &TestServer) -> Duration {
    let threads = fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap();
    let waited = |thread: fs::DirEntry| -> Option<u64> {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split(' ').nth(1)?.parse().ok()
    };
    Duration::from_nanos(threads.filter_map(|thread| waited(thread.ok()?)).sum())
}

/// Measures what a server takes, without what it waited for a processor.
pub struct Watch<'a> {
    server: &'a TestServer,
    began: Instant,
    starved: Duration,
}

impl<'a> Watch<'a> {
    pub fn start(server: &'a TestServer) -> Self {
        Self { server, began: Instant::now(), starved: starved(server) }
    }

    /// Since the start, for a processor.
    pub fn starved(&self) -> Duration {
        starved(self.server).saturating_sub(self.starved)
    }

    /// Since the start, for itself.
    pub fn took(&self) -> Duration {
        self.began.elapsed().saturating_sub(self.starved())
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
pub fn settles(server: &TestServer) -> Holding {
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
    Holding::of(server)
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

    /// Reads so many at once that the server keeps many connections to its backends.
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
