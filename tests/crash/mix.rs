//! Clients with a fixed plan, and what may be stored after each step.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::{Noise, Request, Response, TestServer, date, gzip, sha256};

/// How long a step is repeated until it is acknowledged.
const RETRY_MAX: Duration = Duration::from_secs(120);
/// Contents from here on have several pieces.
const LARGE: u64 = 100;
/// This one has parts, in a bucket.
const HUGE: u64 = 200;

/// Asks until the answer is another one than 503, which a busy machine may bring about.
pub fn patiently(request: &Request) -> Response {
    let begun = Instant::now();
    loop {
        let answer = request.send();
        if answer.status != 503 || begun.elapsed() > RETRY_MAX {
            return answer;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// What one client wants to happen to a name.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Step {
    Put(&'static str, u32, u64),
    Delete(&'static str, u32),
}

/// What a name holds: a version and a content.
type Held = Option<(u32, u64)>;

impl Step {
    fn name(self) -> &'static str {
        match self {
            Self::Put(name, ..) | Self::Delete(name, _) => name,
        }
    }

    fn leaves(self) -> Held {
        match self {
            Self::Put(_, version, content) => Some((version, content)),
            Self::Delete(..) => None,
        }
    }

    fn request(self, server: &TestServer, client: usize) -> Request {
        let path = path(client, self.name());
        match self {
            Self::Put(_, version, number) => {
                let content = content(client, number);
                server
                    .request("PUT", &format!("/files/{path}?last_modified={}", date(version)))
                    .header("Content-Encoding", "gzip")
                    .header("SHA256-Checksum", &content.sha256)
                    .header("Logical-Size", &content.bytes.len().to_string())
                    .body(content.gzip.clone())
            }
            Self::Delete(_, version) => {
                server.request("DELETE", &format!("/files/{path}?last_modified={}", date(version)))
            }
        }
    }
}

/// New contents, known ones, shared ones, overwriting, deleting, storing again.
const PLAN: &[Step] = &[
    Step::Put("a", 1, 1),
    Step::Put("b", 1, 2),
    Step::Put("c", 1, LARGE),
    Step::Delete("b", 2),
    Step::Put("d", 1, 1),
    Step::Put("c", 2, 3),
    Step::Put("e", 1, LARGE + 1),
    Step::Put("a", 2, 4),
    Step::Delete("d", 1),
    Step::Put("b", 3, 5),
    Step::Put("f", 1, LARGE + 2),
    Step::Delete("e", 4),
    Step::Put("e", 5, LARGE + 1),
];

fn path(client: usize, name: &str) -> String {
    format!("client{client}/{name}")
}

/// Odd contents are the client's own, even ones the same for all.
fn content(client: usize, number: u64) -> Arc<Content> {
    static MADE: Mutex<BTreeMap<u64, Arc<Content>>> = Mutex::new(BTreeMap::new());
    let seed = if number.is_multiple_of(2) { number } else { number + 1000 * (client as u64 + 1) };
    let mut made = MADE.lock().unwrap();
    let len = match number {
        HUGE.. => 9 << 20,
        LARGE.. => 330_000,
        _ => 3000,
    };
    let make = || {
        let bytes = Noise::bytes(seed, len + number as usize);
        Arc::new(Content { sha256: sha256(&bytes), gzip: gzip(&bytes, 6), bytes })
    };
    Arc::clone(made.entry(seed).or_insert_with(make))
}

struct Content {
    bytes: Vec<u8>,
    sha256: String,
    gzip: Vec<u8>,
}

/// One client: what it knows of its names.
pub struct Client {
    number: usize,
    plan: Vec<Step>,
    next: usize,
    acknowledged: BTreeMap<&'static str, Held>,
    /// The step whose outcome is unknown: sent, and not acknowledged.
    doubtful: Option<Step>,
    /// The server may take it for one that is slow: the thread that reads from it was kept from doing so.
    pub may_seem_slow: bool,
    /// What must not have happened.
    pub violations: Vec<String>,
}

impl Client {
    /// `parts`: begins with a content so large that it has parts.
    pub fn new(number: usize, parts: bool) -> Self {
        let mut plan = PLAN.to_vec();
        if parts {
            plan.insert(1, Step::Put("huge", 1, HUGE + 1));
        }
        let (acknowledged, violations) = Default::default();
        Self { number, plan, next: 0, acknowledged, doubtful: None, may_seem_slow: false, violations }
    }

    pub fn is_done(&self) -> bool {
        self.next == self.plan.len()
    }

    /// Goes on with the plan until its end, or until the server is gone. A step that was not acknowledged is
    /// repeated until it is.
    pub fn go_on(&mut self, server: &TestServer) {
        while let Some(step) = self.plan.get(self.next).copied() {
            if !self.try_step(server, step) {
                return;
            }
            self.next += 1;
        }
    }

    /// `false` when the server is gone.
    fn try_step(&mut self, server: &TestServer, step: Step) -> bool {
        let begun = Instant::now();
        loop {
            let was_sent_before = self.doubtful.replace(step).is_some();
            let answer = match step.request(server, self.number).try_send() {
                Ok(answer) => answer,
                Err(_) => return false,
            };
            let is_absent = answer.status == 404 && matches!(step, Step::Delete(..));
            match answer.status {
                200 => {}
                // It was done the first time, and the answer got lost.
                404 if is_absent && was_sent_before => {}
                503 | 408 if begun.elapsed() < RETRY_MAX && (answer.status == 503 || self.may_seem_slow) => {
                    std::thread::sleep(Duration::from_millis(100));
                    continue;
                }
                status => {
                    let text = String::from_utf8_lossy(&answer.body).into_owned();
                    self.violations.push(format!("{step:?} of client {}: {status} {text}", self.number));
                    return false;
                }
            }
            self.acknowledged.insert(step.name(), step.leaves());
            self.doubtful = None;
            return true;
        }
    }

    /// Compares every name with what was acknowledged. The step that is in doubt may have been done or not.
    pub fn check(&mut self, server: &TestServer) {
        let mut listed = Vec::new();
        let names: Vec<_> = self.plan.iter().map(|step| step.name()).collect();
        for name in std::collections::BTreeSet::from_iter(names) {
            let path = path(self.number, name);
            let before = self.acknowledged.get(name).copied().flatten();
            let doubtful = self.doubtful.filter(|step| step.name() == name).map(Step::leaves);
            let answer = patiently(&server.request("GET", &format!("/files/{path}")));
            let found = |held: Held| match held {
                None => answer.status == 404,
                Some((version, number)) => {
                    answer.status == 200
                        && answer.complete
                        && answer.header("last-modified") == Some(crate::support::content::shown(version).as_str())
                        && answer.body == content(self.number, number).gzip
                }
            };
            if !found(before) && !doubtful.is_some_and(found) {
                let (status, len) = (answer.status, answer.body.len());
                let told = format!("{path}: {status}, {len} bytes; wanted {before:?}, or {doubtful:?}");
                self.violations.push(told);
            }
            listed.extend((answer.status == 200).then_some(path));
        }
        let mine = format!("client{}/", self.number);
        let target = "/list/?last_modified=Fri,+31+Dec+9999+00:00:00+GMT";
        let listed_names = patiently(&server.request("GET", target));
        let listed_names = listed_names.assert_status(200).lines();
        let names: Vec<_> = listed_names.into_iter().filter(|name| name.starts_with(&mine)).collect();
        if names != listed {
            self.violations.push(format!("listed {names:?}, readable {listed:?}"));
        }
    }
}
