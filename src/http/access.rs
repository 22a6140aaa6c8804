//! The access log: a line for every request, when its answer has left or the client has.
//!
//! It names what was asked for, never the query and never a header but `X-Forwarded-For`: both may hold secrets. Of a token it
//! tells the name only. Texts that are too long are cut where lines are made.

use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::http::Method;
use actix_web::http::header::{HeaderMap, X_FORWARDED_FOR};
use actix_web::{HttpRequest, HttpResponse};
use bytes::Bytes;
use log::kv::Value;
use s3dedup_actors::Behalf;

use super::body::Received;
use super::connection::refused::Refused;
use super::guard::Guard;
use crate::logging;

/// Longest part of `X-Forwarded-For` that is repeated: its end, where proxies add to it.
const FORWARDED_MAX: usize = 200;

/// What the line will say; dropping it writes the line.
pub struct Access {
    behalf: Behalf,
    begun: Instant,
    method: Method,
    path: String,
    client: IpAddr,
    forwarded_for: Option<String>,
    /// The name of the token, if it is one of ours.
    token: Option<String>,
    /// 0 as long as there is no answer.
    status: u16,
    received: Received,
    bytes_out: u64,
    /// What is still to be sent; `None` when only the end of the body tells.
    left: Option<u64>,
}

impl Access {
    /// Of a request that has just come. Who sent it is what the guard believes.
    pub fn begin(request: &HttpRequest, guard: &Guard, behalf: Behalf, begun: Instant, received: Received) -> Self {
        Self {
            behalf,
            begun,
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            client: guard.sender(request),
            forwarded_for: forwarded(request.headers()),
            token: guard.token_name(request),
            status: 0,
            received,
            bytes_out: 0,
            left: None,
        }
    }

    /// Follows the answer to its end.
    pub fn follow(mut self, response: HttpResponse) -> HttpResponse {
        self.status = response.status().as_u16();
        response.map_body(|_, body| {
            self.left = match body.size() {
                // Of an answer to HEAD only the size is there.
                _ if self.method == Method::HEAD => Some(0),
                BodySize::None => Some(0),
                BodySize::Sized(bytes) => Some(bytes),
                BodySize::Stream => None,
            };
            BoxBody::new(Followed { body, access: self })
        })
    }
}

impl Drop for Access {
    fn drop(&mut self) {
        let Self { method, path, status, bytes_out, client, .. } = self;
        let (method, path, client) = (method.as_str(), path.as_str(), client.to_string());
        let (status, bytes_in, bytes_out) = (*status, self.received.bytes(), *bytes_out);
        let duration_ms = self.begun.elapsed().as_micros() as f64 / 1000.0;
        let complete = status > 0 && self.left == Some(0);
        let (client, token, forwarded_for) = (client.as_str(), optional(&self.token), optional(&self.forwarded_for));
        self.behalf.clone().enter(|| {
            log::info!(target: logging::ACCESS,
                method, path, status, bytes_in, bytes_out, duration_ms, client, complete, token, forwarded_for;
                "request");
        });
    }
}

/// Writes the line of what was no request: it has neither a method nor a path.
pub fn tell_refused(refused: &Refused) {
    let (client, status, bytes_out) = (refused.client.to_string(), refused.status.as_u16(), refused.bytes_out);
    let duration_ms = refused.begun.elapsed().as_micros() as f64 / 1000.0;
    let (client, complete) = (client.as_str(), refused.is_complete);
    refused.enter(|| {
        log::info!(target: logging::ACCESS,
            method = "-", path = "-", status, bytes_in = 0, bytes_out, duration_ms, client, complete;
            "request");
    });
}

/// A field that is left out where there is nothing.
fn optional(text: &Option<String>) -> Value<'_> {
    text.as_deref().map_or_else(Value::null, Value::from)
}

/// What all lines of `X-Forwarded-For` say together, or the end of it.
fn forwarded(headers: &HeaderMap) -> Option<String> {
    let lines: Vec<_> =
        headers.get_all(X_FORWARDED_FOR).map(|line| line.as_bytes().escape_ascii().to_string()).collect();
    let text = lines.join(", ");
    match text.len().saturating_sub(FORWARDED_MAX) {
        _ if lines.is_empty() => None,
        0 => Some(text),
        too_much => Some(format!("…{}", &text[too_much..])),
    }
}

/// A body that is counted.
struct Followed {
    body: BoxBody,
    access: Access,
}

impl MessageBody for Followed {
    type Error = Box<dyn std::error::Error>;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let this = &mut *self;
        let polled = Pin::new(&mut this.body).poll_next(cx);
        match &polled {
            Poll::Ready(Some(Ok(piece))) => {
                // The server asks for it all the same, and throws it away.
                let bytes = if this.access.method == Method::HEAD { 0 } else { piece.len() as u64 };
                this.access.bytes_out += bytes;
                this.access.left = this.access.left.map(|left| left.saturating_sub(bytes));
            }
            Poll::Ready(None) => this.access.left = this.access.left.or(Some(0)),
            Poll::Ready(Some(Err(_))) | Poll::Pending => {}
        }
        polled
    }
}
