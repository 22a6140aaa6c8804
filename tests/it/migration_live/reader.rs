//! Clients that only read while both sides are killed: what they are told is right, or 503.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rand::Rng;
use rand::rngs::StdRng;

use super::world::version;
use crate::support::{Response, TestServer, gunzip};

/// How often our server was killed: odd while it is being done.
#[derive(Default)]
pub struct Kills(AtomicUsize);

impl Kills {
    /// One begins, or is done.
    pub fn next(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    pub fn now(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// A file that was there before, and that nobody writes to.
pub struct Fixed {
    pub path: String,
    pub content: Vec<u8>,
    pub version: String,
}

/// Reads fixed files, and lists.
pub struct Reader<'a> {
    pub random: StdRng,
    pub server: &'a Mutex<TestServer>,
    pub kills: &'a Kills,
    pub files: &'a [Fixed],
    /// Whether listings name what is only on the old server.
    pub lists_both: bool,
}

impl Reader<'_> {
    /// Reads until it is time; how many answers there were that told something.
    pub fn run(mut self, ends: Instant) -> usize {
        let mut told = 0;
        while Instant::now() < ends {
            let file = &self.files[self.random.random_range(0..self.files.len())];
            let kind = ["GET", "GET", "GET", "HEAD", "LIST"][self.random.random_range(0..5)];
            let (request, before) = {
                let server = self.server.lock().unwrap();
                let request = match kind {
                    "LIST" => server.request("GET", "/list/?last_modified=Fri,+31+Dec+9999+00:00:00+GMT"),
                    method => server.request(method, &format!("/files/{}", file.path)),
                };
                (request.header("Accept-Encoding", "gzip"), self.kills.now())
            };
            let answer = request.try_send();
            match answer {
                Ok(answer) if answer.status == 503 => {}
                Ok(answer) if answer.status == 200 && answer.complete => {
                    told += 1;
                    match kind {
                        "LIST" => self.check_list(&answer),
                        kind => check_file(&answer, file, kind == "GET"),
                    }
                }
                Ok(answer) if answer.status != 200 => panic!("{request} is answered {answer:?}"),
                cut => {
                    let is_ours = before % 2 == 1 || self.kills.now() != before;
                    let what = cut.map(|answer| answer.status);
                    assert!(is_ours, "{request} is cut off: {what:?}");
                }
            }
            thread::sleep(Duration::from_millis(self.random.random_range(0..60)));
        }
        told
    }

    fn check_list(&self, answer: &Response) {
        let names = answer.lines();
        assert!(names.is_sorted_by(|one, next| one < next), "names are listed once, in order");
        let fixed = names.iter().filter(|name| !name.starts_with("c/")).count();
        assert!(if self.lists_both { fixed == self.files.len() } else { fixed <= self.files.len() }, "{fixed}");
    }
}

fn check_file(answer: &Response, file: &Fixed, has_body: bool) {
    assert_eq!(version(answer), file.version, "{}", file.path);
    if has_body {
        let is_gzip = answer.header("content-encoding") == Some("gzip");
        let content = if is_gzip { gunzip(&answer.body) } else { answer.body.clone() };
        assert!(content == file.content, "wrong bytes of {}", file.path);
    }
}
