//! One client: what is refused or lost it repeats, on any server, until it is done.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rand::Rng;
use rand::rngs::StdRng;

use super::Load;
use super::answer::listed_paths;
use super::history::Entry;
use super::paths::{PATHS, escaped, is_deleted_too, name};
use super::peer::{Kept, Outcome};
use super::rule::Deed;
use super::stamp::{self, Stamp};
use crate::support::{Request, Response};

/// With no faults any more everything must be done within this time.
const TAIL_MAX: Duration = Duration::from_secs(60);
/// A few paths that everybody wants.
const HOT_PATHS: usize = 12;

pub struct Client<'a> {
    load: &'a Load,
    random: StdRng,
    /// A connection to each server.
    kept: Vec<Option<Kept>>,
    /// A version that was taken and not used: older than all that are taken later.
    old_stamp: Option<Stamp>,
}

impl<'a> Client<'a> {
    pub fn new(load: &'a Load, random: StdRng) -> Self {
        Self { load, random, kept: load.peers.iter().map(|_| None).collect(), old_stamp: None }
    }

    pub fn run(mut self) {
        while !self.load.has_ended() {
            let busy = Busy::new(&self.load.busy);
            if self.load.rests() {
                drop(busy);
                std::thread::sleep(Duration::from_millis(10));
                continue;
            }
            let paths = if self.random.random_ratio(1, 4) { HOT_PATHS } else { PATHS };
            let path = self.random.random_range(0..paths);
            match self.random.random_range(0..100) {
                0..45 => self.put(path),
                45..60 => self.delete(path - path % 3),
                60..88 => self.read(path, "GET"),
                88..98 => self.read(path, "HEAD"),
                _ => self.list(),
            }
            drop(busy);
            self.load.pause(&mut self.random);
        }
    }

    fn stamp(&mut self) -> Stamp {
        let new = self.load.new_stamp();
        if self.random.random_ratio(1, 10) {
            self.old_stamp.replace(new).unwrap_or_else(|| self.load.new_stamp())
        } else {
            new
        }
    }

    fn put(&mut self, path: usize) {
        let (load, stamp, number) = (self.load, self.stamp(), self.load.some_content(&mut self.random));
        let content = load.contents.get(number);
        let request = self.write_request("PUT", path, stamp);
        let request = match self.random.random_ratio(1, 10) {
            true => request.body(content.plain.clone()),
            false => request
                .header("Content-Encoding", "gzip")
                .header("SHA256-Checksum", &content.sha256)
                .header("Logical-Size", &content.plain.len().to_string())
                .body(content.gzip.clone()),
        };
        let entry = load.history.begin(path, stamp, Deed::Put { content: number });
        self.until_done(Some(entry), &request, |answer, began, who| {
            let told = answer.header("last-modified").and_then(stamp::read);
            match (answer.status, told) {
                (200, Some(told)) if told == stamp => Ok(()),
                (200, Some(told)) if told > stamp => {
                    load.history.saw(path, Some(told), began, format!("PUT of {stamp} to {who}"));
                    Ok(())
                }
                _ => Err(format!("a PUT of version {stamp} is stored or refused")),
            }
        });
    }

    fn delete(&mut self, path: usize) {
        assert!(is_deleted_too(path));
        let (load, stamp) = (self.load, self.stamp());
        let request = self.write_request("DELETE", path, stamp);
        let entry = load.history.begin(path, stamp, Deed::Delete);
        self.until_done(Some(entry), &request, |answer, began, who| {
            match answer.status {
                200 => {}
                404 => load.history.saw(path, None, began, format!("DELETE of {stamp} to {who}")),
                _ => return Err("a DELETE is done or refused".into()),
            }
            Ok(())
        });
    }

    fn write_request(&self, method: &str, path: usize, stamp: Stamp) -> Request {
        let target = format!("/ft/files/{}?last_modified={}", escaped(&name(path)), stamp::query(stamp));
        Request::new(self.load.peers[0].address(), method, &target)
    }

    fn read(&mut self, path: usize, method: &str) {
        let load = self.load;
        let target = format!("/ft/files/{}", escaped(&name(path)));
        let request = Request::new(load.peers[0].address(), method, &target);
        self.until_done(None, &request, |answer, began, who| {
            let seen = load.shown_by(path, answer, request.is_head())?;
            load.history.saw(path, seen, began, format!("{method} to {who}"));
            Ok(())
        });
    }

    fn list(&mut self) {
        let load = self.load;
        let target = format!("/ft/list/?last_modified={}", stamp::query(stamp::LAST));
        let request = Request::new(load.peers[0].address(), "GET", &target);
        self.until_done(None, &request, |answer, began, _| {
            let listed = listed_paths(answer)?;
            match (0..PATHS).find(|path| !listed.contains(path) && load.history.stays_from(*path, began)) {
                Some(path) => Err(format!("{} is not listed", name(path))),
                None => Ok(()),
            }
        });
    }

    /// Tries until a server does it. `judge` is told when the try began and who answered.
    fn until_done(
        &mut self,
        entry: Option<Entry>,
        request: &Request,
        judge: impl Fn(&Response, Instant, &str) -> Result<(), String>,
    ) {
        let load = self.load;
        let mut tail_began = None;
        loop {
            let number = self.random.random_range(0..load.peers.len());
            let peer = &load.peers[number];
            let began = Instant::now();
            match peer.send(&mut self.kept[number], request) {
                Ok(Outcome::NotSent) => {}
                Ok(Outcome::Lost) => self.unknown(entry),
                Ok(Outcome::Answer(answer)) if answer.status == 503 => {
                    load.refusals.fetch_add(1, Ordering::Relaxed);
                    self.unknown(entry);
                    if answer.header("retry-after").is_none() || answer.header("x-exception").is_none() {
                        let told = brief(&answer);
                        load.history
                            .violation(format!("{} does not say why it refuses, or until when: {told}", peer.name));
                    }
                }
                Ok(Outcome::Answer(answer)) => {
                    match judge(&answer, began, &peer.name) {
                        Ok(()) => entry.into_iter().for_each(|entry| load.history.acknowledged(entry, began)),
                        Err(why) => {
                            self.unknown(entry);
                            load.history.violation(format!("{request} to {}: {why}: {}", peer.name, brief(&answer)));
                        }
                    }
                    return;
                }
                Err(why) => {
                    load.history.violation(format!("{request}: {why}"));
                    self.unknown(entry);
                }
            }
            if load.has_ended() && tail_began.get_or_insert_with(Instant::now).elapsed() > TAIL_MAX {
                load.history.violation(format!("{request}: nobody did it within {TAIL_MAX:?} after the last fault"));
                return;
            }
            std::thread::sleep(Duration::from_millis(self.random.random_range(50..400)));
        }
    }

    fn unknown(&self, entry: Option<Entry>) {
        self.load.untold.fetch_add(1, Ordering::Relaxed);
        if let Some(entry) = entry {
            self.load.history.unknown(entry);
        }
    }
}

/// Counts a client as in the middle of something.
struct Busy<'a>(&'a AtomicUsize);

impl<'a> Busy<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn brief(answer: &Response) -> String {
    let text = String::from_utf8_lossy(&answer.body[..answer.body.len().min(200)]);
    format!("{} {:?} {text:?}", answer.status, answer.headers)
}
