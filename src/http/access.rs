//! The access log: a line for every request, when its answer has left or the client has.
//!
//! It names what was asked for, never the query and never a header but `X-Forwarded-For`: both may hold secrets.

use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::http::Method;
use actix_web::{HttpRequest, HttpResponse};
use bytes::Bytes;
use s3dedup_actors::Behalf;

use crate::logging;

/// Longest part of `X-Forwarded-For` that is repeated.
const FORWARDED_MAX: usize = 200;

/// What the line will say; dropping it writes the line.
pub struct Access {
    behalf: Behalf,
    begun: Instant,
    method: Method,
    path: String,
    client: IpAddr,
    forwarded_for: Option<String>,
    /// 0 as long as there is no answer.
    status: u16,
    bytes_in: u64,
    bytes_out: u64,
    /// What is still to be sent; `None` when only the end of the body tells.
    left: Option<u64>,
}

impl Access {
    /// Of a request that has just come from `client`.
    pub fn begin(request: &HttpRequest, client: IpAddr, behalf: Behalf, begun: Instant) -> Self {
        let forwarded = request.headers().get("x-forwarded-for");
        let forwarded = forwarded.map(|value| value.as_bytes().escape_ascii().take(FORWARDED_MAX));
        Self {
            behalf,
            begun,
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            client,
            forwarded_for: forwarded.map(|text| text.map(char::from).collect()),
            status: 0,
            bytes_in: 0,
            bytes_out: 0,
            left: None,
        }
    }

    /// Follows the answer to its end. So many bytes of the request's body were read.
    pub fn follow(mut self, response: HttpResponse, bytes_in: u64) -> HttpResponse {
        (self.status, self.bytes_in) = (response.status().as_u16(), bytes_in);
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
        let Self { method, path, status, bytes_in, bytes_out, client, forwarded_for, .. } = self;
        let client = client.to_string();
        let method = method.as_str();
        let duration_ms = self.begun.elapsed().as_micros() as f64 / 1000.0;
        let is_complete = *status > 0 && self.left == Some(0);
        let (status, bytes_in, bytes_out) = (*status, *bytes_in, *bytes_out);
        self.behalf.clone().enter(|| match forwarded_for {
            None => log::info!(target: logging::ACCESS,
                method, path = path.as_str(), status, bytes_in, bytes_out, duration_ms, client = client.as_str(), complete = is_complete;
                "request"),
            Some(forwarded_for) => log::info!(target: logging::ACCESS,
                method, path = path.as_str(), status, bytes_in, bytes_out, duration_ms, client = client.as_str(), complete = is_complete,
                forwarded_for = forwarded_for.as_str(); "request"),
        });
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
                let bytes = piece.len() as u64;
                this.access.bytes_out += bytes;
                this.access.left = this.access.left.map(|left| left.saturating_sub(bytes));
            }
            Poll::Ready(None) => this.access.left = this.access.left.or(Some(0)),
            Poll::Ready(Some(Err(_))) | Poll::Pending => {}
        }
        polled
    }
}
