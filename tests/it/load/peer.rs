//! A server as its clients see it, and what they may expect of it.

use std::io;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::http::is_timeout;
use crate::support::{Connection, Request, Response};

/// A server that is not stopped and has not answered for so long hangs. Another server that is stopped while it
/// has locked a content keeps it locked for 15 s.
pub const HANG_MIN: Duration = Duration::from_secs(30);
/// How long clients wait for a server that is stopped.
const PATIENCE_WITH_STOPPED: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Condition {
    Serves {
        since: Instant,
    },
    /// `SIGSTOP`: it takes connections, as its kernel does that, and says nothing.
    Stopped,
    /// `SIGKILL`.
    Killed,
}

/// One server.
pub struct Peer {
    pub name: String,
    address: Mutex<SocketAddr>,
    condition: Mutex<Condition>,
    /// Whether bodies may be cut off: what they are read from is in trouble.
    cuts: AtomicBool,
    slowest: Mutex<(Duration, String)>,
}

/// An open connection; the servers close idle ones only after more than a minute.
pub struct Kept {
    connection: Connection,
    made: Instant,
}

/// How a request ended.
pub enum Outcome {
    Answer(Response),
    /// It cannot have arrived.
    NotSent,
    /// It may have arrived.
    Lost,
}

impl Peer {
    pub fn new(name: String, address: SocketAddr) -> Self {
        let condition = Condition::Serves { since: Instant::now() };
        Self {
            name,
            address: Mutex::new(address),
            condition: Mutex::new(condition),
            cuts: AtomicBool::new(false),
            slowest: Mutex::default(),
        }
    }

    pub fn address(&self) -> SocketAddr {
        *self.address.lock().unwrap()
    }

    /// It is about to be in trouble.
    pub fn becomes(&self, condition: Condition) {
        *self.condition.lock().unwrap() = condition;
    }

    /// It is out of trouble.
    pub fn serves_at(&self, address: SocketAddr) {
        *self.address.lock().unwrap() = address;
        self.becomes(Condition::Serves { since: Instant::now() });
    }

    /// From now on bodies may be cut off.
    pub fn may_cut(&self) {
        self.cuts.store(true, Ordering::Relaxed);
    }

    /// The longest that it took until an answer began, and to which request; forgets it. For what is uploaded,
    /// two seconds a MiB do not count.
    pub fn take_slowest(&self) -> (Duration, String) {
        std::mem::take(&mut self.slowest.lock().unwrap())
    }

    fn took(&self, time: Duration, request: &Request, answer: &Response) {
        // Storing something large may take a while.
        let time = time.saturating_sub(Duration::from_secs(2).mul_f64(request.body_len() as f64 / f64::from(1 << 20)));
        let mut slowest = self.slowest.lock().unwrap();
        if time > slowest.0 {
            let why = answer.header("x-exception").unwrap_or_default();
            *slowest = (time, format!("{request}: {} {why}", answer.status));
        }
    }

    fn is_stopped(&self) -> bool {
        *self.condition.lock().unwrap() == Condition::Stopped
    }

    /// Whether a request that began then was allowed to fail.
    fn excuses(&self, began: Instant) -> bool {
        match *self.condition.lock().unwrap() {
            Condition::Serves { since } => began <= since,
            Condition::Stopped | Condition::Killed => true,
        }
    }

    /// Sends a request on the connection that is kept, or on a new one, and keeps it for the next request. `Err`
    /// says what a server that is in no trouble must not do.
    pub fn send(&self, kept: &mut Option<Kept>, request: &Request) -> Result<Outcome, String> {
        let began = Instant::now();
        let mut kept_one = match kept.take() {
            Some(kept_one) => kept_one,
            None => match Connection::open_with(self.address(), self.patience()) {
                Ok(connection) => Kept { connection, made: began },
                Err(error) => return self.failed(began, Outcome::NotSent, &error),
            },
        };
        match self.exchange(&mut kept_one.connection, request, began) {
            Ok(None) => Ok(Outcome::Lost),
            Ok(Some(answer)) if answer.complete => {
                if answer.header("connection") != Some("close") {
                    *kept = Some(kept_one);
                }
                Ok(Outcome::Answer(answer))
            }
            Ok(Some(answer)) if answer.status == 200 && self.cuts.load(Ordering::Relaxed) => Ok(Outcome::Lost),
            Ok(Some(answer)) => {
                let error = io::Error::other(format!("the answer {} was cut off", answer.status));
                self.failed(began, Outcome::Lost, &error)
            }
            Err(error) if is_timeout(&error) => self.failed(began, Outcome::Lost, &error),
            // It may have been lost long ago.
            Err(error) => self.failed(kept_one.made, Outcome::Lost, &error),
        }
    }

    fn patience(&self) -> Duration {
        if self.is_stopped() { PATIENCE_WITH_STOPPED } else { HANG_MIN }
    }

    /// `None` when the server is stopped and the client gives up.
    fn exchange(&self, to: &mut Connection, request: &Request, began: Instant) -> io::Result<Option<Response>> {
        let sent = request.write_to(to);
        let waits_since = Instant::now();
        while !to.answers_within(Duration::from_millis(250)) {
            if self.is_stopped() && began.elapsed() > PATIENCE_WITH_STOPPED {
                return Ok(None);
            }
            if waits_since.elapsed() > HANG_MIN {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        let took = began.elapsed();
        // The server may have answered before it had read everything.
        let answer = to.response(request.is_head()).map_err(|error| sent.err().unwrap_or(error))?;
        self.took(took, request, &answer);
        Ok(Some(answer))
    }

    fn failed(&self, began: Instant, outcome: Outcome, error: &io::Error) -> Result<Outcome, String> {
        if self.excuses(began) {
            return Ok(outcome);
        }
        Err(format!("{} served, and after {} ms: {error}", self.name, began.elapsed().as_millis()))
    }
}
