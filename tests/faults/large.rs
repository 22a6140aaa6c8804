//! Contents so large that they are uploaded to S3 in parts, while something is wrong.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::support::http::is_timeout;
use crate::support::{Noise, Request, date, gunzip, gzip, sha256};

/// More than a part, which is 8 MiB.
const BYTES: usize = 9 << 20;
/// They take room.
const COUNT_MAX: u64 = 12;

/// One client that uploads them, each under a name of its own.
pub struct Large {
    seed: u64,
    /// Whether it is known to be stored.
    tried: Mutex<BTreeMap<u64, bool>>,
}

impl Large {
    pub fn new(seed: u64) -> Self {
        Self { seed, tried: Mutex::default() }
    }

    /// Uploads one after the other, until it is over or there are enough. Tells what must not be.
    pub fn go_on(&self, to: impl Fn() -> SocketAddr, pause: Duration, over: &AtomicBool) -> Result<(), String> {
        while !over.load(Relaxed) && (self.tried.lock().unwrap().len() as u64) < COUNT_MAX {
            self.put(to())?;
            let mut left = pause;
            while !left.is_zero() && !over.load(Relaxed) {
                let nap = left.min(Duration::from_millis(50));
                std::thread::sleep(nap);
                left -= nap;
            }
        }
        Ok(())
    }

    /// Uploads one more: stored, or not now (`false`).
    pub fn put(&self, to: SocketAddr) -> Result<bool, String> {
        let number = self.tried.lock().unwrap().len() as u64;
        self.tried.lock().unwrap().insert(number, false);
        let content = self.content(number);
        let request = Request::new(to, "PUT", &format!("{}?last_modified={}", target(number), date(0)))
            .header("Content-Encoding", "gzip")
            .header("SHA256-Checksum", &sha256(&content))
            .header("Logical-Size", &content.len().to_string())
            .body(gzip(&content, 0));
        match request.try_send() {
            Ok(answer) if answer.status == 200 => {
                self.tried.lock().unwrap().insert(number, true);
                Ok(true)
            }
            Ok(answer) if answer.status == 503 && answer.header("retry-after").is_some() => Ok(false),
            Ok(answer) => Err(format!("{request}: {} {:?}", answer.status, answer.headers)),
            Err(error) if is_timeout(&error) => Err(format!("{request}: {error}")),
            // Refused while it was still sending, or killed.
            Err(_) => Ok(false),
        }
    }

    /// How many were tried, and how many of them are known to be stored.
    pub fn counts(&self) -> (usize, usize) {
        let tried = self.tried.lock().unwrap();
        (tried.len(), tried.values().filter(|is_stored| **is_stored).count())
    }

    /// Reads all of them; returns how many there are. What was acknowledged must be there, and nothing in part.
    pub fn read_all(&self, from: SocketAddr, wrong: &mut Vec<String>) -> usize {
        let tried = self.tried.lock().unwrap().clone();
        let mut count = 0;
        for (number, is_stored) in tried {
            let request = Request::new(from, "GET", &target(number));
            match request.try_send() {
                Ok(answer) if answer.status == 404 && !is_stored => {}
                Ok(answer) if answer.status == 200 && answer.complete => {
                    count += 1;
                    if gunzip(&answer.body) != self.content(number) {
                        wrong.push(format!("{request}: other bytes"));
                    }
                }
                Ok(answer) => wrong.push(format!("{request}: {}, stored: {is_stored}", answer.status)),
                Err(error) => wrong.push(format!("{request}: {error}")),
            }
        }
        count
    }

    fn content(&self, number: u64) -> Vec<u8> {
        Noise::bytes(self.seed.wrapping_mul(1000).wrapping_add(3_000_000 + number), BYTES)
    }
}

fn target(number: u64) -> String {
    format!("/ft/files/probe/large/{number}")
}
