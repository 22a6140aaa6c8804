//! Bodies of answers.

use std::cell::RefCell;
use std::convert::Infallible;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use actix_web::HttpRequest;
use actix_web::body::{BodySize, MessageBody};
use actix_web::http::Method;
use actix_web::rt::spawn;
use actix_web::rt::task::JoinHandle;
use actix_web::rt::time::sleep;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use s3dedup_actors::model::{Error, Kind};
use s3dedup_actors::{Behalf, Permit};
use tokio::sync::OwnedSemaphorePermit;

use super::body::Drain;

/// The most that the server is given at once, so that it asks again while a slow client takes what the store gave as one
/// piece. It holds up to that and 32 KiB more.
const SLICE_BYTES: usize = 32 << 10;

/// The body that a `GET` would have, described but not sent: the answer to `HEAD`.
pub struct Described(pub BodySize);

impl MessageBody for Described {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        self.0
    }

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        Poll::Ready(None)
    }
}

/// A short text that is sent at once, while the rest of the request body is thrown away.
pub struct TextWhileDraining {
    size: u64,
    text: Option<Bytes>,
    drain: Drain,
    _place: Option<OwnedSemaphorePermit>,
}

impl TextWhileDraining {
    /// The text must not be empty: the server would not ask for a body, and drain nothing. `place` is one of those who may
    /// drain, where they are counted.
    pub fn new(text: String, drain: Drain, place: Option<OwnedSemaphorePermit>) -> Self {
        debug_assert!(!text.is_empty());
        Self { size: text.len() as u64, text: Some(text.into()), drain, _place: place }
    }
}

impl MessageBody for TextWhileDraining {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.size)
    }

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        match self.text.take() {
            Some(text) => Poll::Ready(Some(Ok(text))),
            None => self.drain.poll(cx).map(|()| None),
        }
    }
}

/// Bytes from the engine. The request keeps its slot until the last of them is sent, or until its client has taken too few
/// for too long.
///
/// An error, or an end before the announced size, cuts the connection: the client sees a short
/// body, never a complete wrong one.
pub struct Streamed {
    size: BodySize,
    /// `None` once its client was given up.
    flow: Rc<RefCell<Option<Flow>>>,
    method: Method,
    path: String,
    /// Its bytes are asked for when the request is over for everybody else.
    behalf: Behalf,
    /// What ends it, to be told once all that came before has been sent.
    failure: Option<Error>,
    /// Looks after the client.
    watch: JoinHandle<()>,
}

impl Drop for Streamed {
    fn drop(&mut self) {
        // Many short answers would leave many that still sleep.
        self.watch.abort();
    }
}

/// What an answer holds on to while it is sent.
struct Flow {
    bytes: BoxStream<'static, Result<Bytes, Error>>,
    /// What was not asked for yet of the last piece.
    rest: Bytes,
    /// Since when the next piece could have been asked for. `None` while the client waits for us.
    offered: Option<Instant>,
    _permit: Permit,
}

impl Streamed {
    /// For `request`, on whose behalf this is called. Its client may go without asking for more for as long as `patience`.
    pub fn new(
        size: BodySize,
        bytes: BoxStream<'static, Result<Bytes, Error>>,
        request: &HttpRequest,
        permit: Permit,
        patience: Duration,
    ) -> Self {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let flow = Rc::new(RefCell::new(Some(Flow { bytes, rest: Bytes::new(), offered: None, _permit: permit })));
        let behalf = Behalf::current();
        let watch = give_up_stalled(Rc::downgrade(&flow), patience, method.clone(), path.clone());
        let watch = spawn(behalf.clone().scope(watch));
        Self { size, flow, method, path, behalf, failure: None, watch }
    }

    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        let mut flow = self.flow.borrow_mut();
        let Some(Flow { bytes, rest, offered, .. }) = flow.as_mut() else {
            return Poll::Ready(Some(Err(Error::new(Kind::Overloaded, "the client took too little for too long"))));
        };
        *offered = None;
        loop {
            if !rest.is_empty() {
                *offered = Some(Instant::now());
                return Poll::Ready(Some(Ok(rest.split_to(rest.len().min(SLICE_BYTES)))));
            }
            match bytes.poll_next_unpin(cx) {
                // An empty piece is passed over: it would be the end mark of a chunked body.
                Poll::Ready(Some(Ok(piece))) => *rest = piece,
                Poll::Ready(Some(Err(error))) => {
                    log_cut(&self.method, &self.path, &error);
                    // The server drops what it has not written yet, the head included: it is to write first.
                    self.failure = Some(error);
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Poll::Ready(None) => {
                    *offered = Some(Instant::now());
                    return Poll::Ready(None);
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// Lets go of what an answer holds when its client takes nothing of it, or next to nothing. The server asks for a piece only when there is room
/// for it, so nobody else would notice; the connection itself ends when the client asks again, or by its user timeout.
async fn give_up_stalled(flow: Weak<RefCell<Option<Flow>>>, patience: Duration, method: Method, path: String) {
    loop {
        sleep(patience / 4).await;
        let Some(flow) = flow.upgrade() else { return };
        let mut flow = flow.borrow_mut();
        let Some(now) = flow.as_ref() else { return };
        if now.offered.is_some_and(|offered| offered.elapsed() >= patience) {
            *flow = None;
            let (method, path, seconds) = (method.as_str(), path.as_str(), patience.as_secs());
            return log::info!(method, path, seconds; "answer cut off: its client took too little");
        }
    }
}

impl MessageBody for Streamed {
    type Error = Error;

    fn size(&self) -> BodySize {
        self.size
    }

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        if let Some(error) = self.failure.take() {
            return Poll::Ready(Some(Err(error)));
        }
        self.behalf.clone().enter(|| self.poll_bytes(cx))
    }
}

fn log_cut(method: &Method, path: &str, error: &Error) {
    let level = match error.kind() {
        Kind::Corrupt | Kind::Internal | Kind::Panicked | Kind::NoSpace => log::Level::Error,
        Kind::Invalid | Kind::TooLarge | Kind::Overloaded | Kind::Unavailable => log::Level::Warn,
    };
    let (method, cause) = (method.as_str(), error.to_string());
    log::log!(level, method, path, cause; "answer cut off");
}
