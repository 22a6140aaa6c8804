//! Bodies of answers.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use actix_web::HttpRequest;
use actix_web::body::{BodySize, MessageBody};
use actix_web::http::Method;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use s3dedup_actors::model::{Error, Kind};
use s3dedup_actors::{Behalf, Permit};

use super::body::Drain;

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
}

impl TextWhileDraining {
    /// The text must not be empty: the server would not ask for a body, and drain nothing.
    pub fn new(text: String, drain: Drain) -> Self {
        debug_assert!(!text.is_empty());
        Self { size: text.len() as u64, text: Some(text.into()), drain }
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

/// Bytes from the engine. The request keeps its slot until the last of them is sent.
///
/// An error, or an end before the announced size, cuts the connection: the client sees a short
/// body, never a complete wrong one.
pub struct Streamed {
    size: BodySize,
    bytes: BoxStream<'static, Result<Bytes, Error>>,
    method: Method,
    path: String,
    /// Its bytes are asked for when the request is over for everybody else.
    behalf: Behalf,
    /// What ends it, to be told once all that came before has been sent.
    failure: Option<Error>,
    _permit: Permit,
}

impl Streamed {
    /// For `request`, on whose behalf this is called.
    pub fn new(
        size: BodySize,
        bytes: BoxStream<'static, Result<Bytes, Error>>,
        request: &HttpRequest,
        permit: Permit,
    ) -> Self {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        Self { size, bytes, method, path, behalf: Behalf::current(), failure: None, _permit: permit }
    }

    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        loop {
            match self.bytes.poll_next_unpin(cx) {
                // An empty piece would be the end mark of a chunked body.
                Poll::Ready(Some(Ok(piece))) if piece.is_empty() => {}
                Poll::Ready(Some(Err(error))) => {
                    log_cut(&self.method, &self.path, &error);
                    // The server drops what it has not written yet, the head included: it is to write first.
                    self.failure = Some(error);
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                other => return other,
            }
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
        Kind::Corrupt | Kind::Internal | Kind::NoSpace => log::Level::Error,
        Kind::Invalid | Kind::TooLarge | Kind::Overloaded | Kind::Unavailable => log::Level::Warn,
    };
    let (method, cause) = (method.as_str(), error.to_string());
    log::log!(level, method, path, cause; "answer cut off");
}
