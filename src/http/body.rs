//! Receiving request bodies: piece by piece, within limits of time.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use actix_web::error::PayloadError;
use actix_web::rt::time::{Sleep, sleep, timeout};
use actix_web::web;
use bytes::Bytes;
use futures_util::{FutureExt, Stream, StreamExt};

use super::error::Failure;

/// How slowly a body may come.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// The longest wait for the next piece.
    pub idle: Duration,
    /// Bytes per second, counted anew in every [`Pace::idle`] of *waiting*: the time the server
    /// itself takes does not count against the client. 0: no minimum.
    pub bytes_per_second_min: u64,
}

/// What is thrown away, at most, of a body that nobody wants, so that the answer arrives cleanly.
///
/// Most clients read no answer before they have sent everything; closing with unread bytes in the
/// socket would reset the connection and destroy the answer on its way.
#[derive(Clone, Copy, Debug)]
pub struct DrainLimits {
    /// Bytes.
    pub bytes_max: u64,
    /// Time, from the answer on.
    pub time_max: Duration,
}

impl DrainLimits {
    /// For refused requests.
    pub const REFUSED: Self = Self { bytes_max: 64 << 20, time_max: Duration::from_secs(10) };
    /// For requests of those who may not ask: anybody can send these, and hold the server up with their bodies.
    pub const UNWELCOME: Self = Self { bytes_max: 256 << 10, time_max: Duration::from_secs(2) };
    /// For bodies of requests that were answered without them: what has come by now.
    const ARRIVED: Self = Self { bytes_max: 64 << 10, time_max: Duration::ZERO };
    /// For bodies that were given up: their clients had their time.
    pub const GIVEN_UP: Self = Self { bytes_max: 0, time_max: Duration::ZERO };
    /// For uploads that are fine but change nothing: their clients did nothing wrong, so they get
    /// the time of a real upload.
    pub const STALE: Self = Self { bytes_max: 4 << 30, time_max: Duration::from_secs(600) };
}

/// How much of a request's body was read. Clones are the same one, so that it can be seen how much was thrown away at last.
#[derive(Clone, Default)]
pub struct Received(Rc<Cell<u64>>);

impl Received {
    /// Bytes, so far.
    pub fn bytes(&self) -> u64 {
        self.0.get()
    }

    fn add(&self, piece: &Bytes) {
        self.0.set(self.0.get() + piece.len() as u64);
    }
}

/// A request body on its way in.
pub struct Incoming {
    payload: web::Payload,
    pace: Pace,
    window_bytes: u64,
    window_waited: Duration,
    received: Received,
    ended: bool,
}

impl Incoming {
    /// Takes the body over; nothing is read yet.
    pub fn new(payload: web::Payload, pace: Pace) -> Self {
        Self {
            payload,
            pace,
            window_bytes: 0,
            window_waited: Duration::ZERO,
            received: Received::default(),
            ended: false,
        }
    }

    /// How much was read so far, and will have been.
    pub fn received(&self) -> Received {
        self.received.clone()
    }

    /// The next piece, `None` at the proper end. A body that breaks off or comes too slowly fails.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        if self.ended {
            return Ok(None);
        }
        let asked = Instant::now();
        let Ok(piece) = timeout(self.pace.idle, self.payload.next()).await else {
            return Err(Failure::too_slow("no piece of the body came for too long"));
        };
        match piece {
            Some(Ok(piece)) => {
                self.received.add(&piece);
                self.account(piece.len() as u64, asked.elapsed())?;
                Ok(Some(piece))
            }
            Some(Err(error)) => {
                self.ended = true;
                Err(broken(&error))
            }
            None => {
                self.ended = true;
                Ok(None)
            }
        }
    }

    fn account(&mut self, bytes: u64, waited: Duration) -> Result<(), Failure> {
        self.window_bytes += bytes;
        self.window_waited += waited;
        if self.window_waited < self.pace.idle {
            return Ok(());
        }
        let wanted = self.window_waited.as_secs_f64() * self.pace.bytes_per_second_min as f64;
        if (self.window_bytes as f64) < wanted {
            return Err(Failure::too_slow("the body comes more slowly than the minimum rate"));
        }
        (self.window_bytes, self.window_waited) = (0, Duration::ZERO);
        Ok(())
    }

    /// Throws the rest away, now; a body that passes the limits fails.
    pub async fn discard(&mut self, limits: DrainLimits) -> Result<(), Failure> {
        if !self.ended {
            let payload = &mut self.payload;
            let mut state = Draining::new(limits, self.received.clone());
            self.ended = std::future::poll_fn(|cx| state.poll(payload, cx)).await;
        }
        if self.ended { Ok(()) } else { Err(Failure::too_slow("the body is not wanted and does not end")) }
    }

    /// Whether nothing of it is left: it was read to its end, or the rest is short and here already.
    pub fn is_over(&mut self) -> bool {
        self.discard(DrainLimits::ARRIVED).now_or_never().is_some_and(|discarded| discarded.is_ok())
    }

    /// Throws the rest away, while something else goes on.
    pub fn drain(self, limits: DrainLimits) -> Drain {
        let state = (!self.ended).then(|| Draining::new(limits, self.received));
        Drain { payload: self.payload, state }
    }
}

fn broken(error: &PayloadError) -> Failure {
    match error {
        PayloadError::EncodingCorrupted => Failure::bad_request("the body has broken chunks"),
        _ => Failure::bad_request("the body ended early"),
    }
}

/// A body being thrown away. It ends at the end of the body or at a limit, whichever is first.
///
/// As long as this value lives the body counts as unread: dropped after the body's end it leaves
/// the connection usable, and the server closes a connection whose body it saw alive at the end of
/// the answer.
pub struct Drain {
    payload: web::Payload,
    /// `None` when there is nothing left to do.
    state: Option<Draining>,
}

impl Drain {
    /// Goes on throwing away; ready when done.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(state) = &mut self.state else { return Poll::Ready(()) };
        let done = state.poll(&mut self.payload, cx).map(|_| ());
        if done.is_ready() {
            self.state = None;
        }
        done
    }
}

struct Draining {
    deadline: Pin<Box<Sleep>>,
    bytes_left: u64,
    received: Received,
}

impl Draining {
    fn new(limits: DrainLimits, received: Received) -> Self {
        Self { deadline: Box::pin(sleep(limits.time_max)), bytes_left: limits.bytes_max, received }
    }

    /// Ready with whether the body ended, or with `false` at a limit.
    fn poll(&mut self, payload: &mut web::Payload, cx: &mut Context<'_>) -> Poll<bool> {
        loop {
            match Pin::new(&mut *payload).poll_next(cx) {
                Poll::Ready(Some(Ok(piece))) => {
                    self.received.add(&piece);
                    match self.bytes_left.checked_sub(piece.len() as u64) {
                        Some(left) => self.bytes_left = left,
                        None => return Poll::Ready(false),
                    }
                }
                Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(true),
                Poll::Pending if self.deadline.as_mut().poll(cx).is_ready() => return Poll::Ready(false),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}
