//! Answers in the place of those that the HTTP library makes by itself.
//!
//! To what it can't make a request of it says no more than a status. Whoever sent it is told as much as of any other failure,
//! and with an id, under which the log has it too.

use std::net::IpAddr;
use std::rc::Rc;
use std::time::Instant;

use actix_web::body::MessageBody;
use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderMap, HeaderName};
use s3dedup_actors::Behalf;
use s3dedup_actors::model::RequestId;

use super::wire::Line;
use crate::http::error::{Failure, Told};
use crate::http::request_id;

/// Hears of each answer when it has left, or can't leave any more.
pub type Tell = Rc<dyn Fn(&Refused)>;

/// What became of something that was no request.
pub struct Refused {
    /// Where it came from.
    pub client: IpAddr,
    /// When the answer was made.
    pub begun: Instant,
    /// Its status.
    pub status: StatusCode,
    /// Size of its body.
    pub bytes_out: u64,
    /// Whether all of it has left.
    pub is_complete: bool,
    behalf: Behalf,
}

impl Refused {
    /// Does `work` on behalf of what was refused.
    pub fn enter<T>(&self, work: impl FnOnce() -> T) -> T {
        self.behalf.clone().enter(work)
    }
}

/// An answer on its way out; dropping it tells what became of it.
pub struct Outgoing {
    bytes: Vec<u8>,
    written: usize,
    refused: Refused,
    tell: Tell,
}

impl Outgoing {
    /// In the place of `theirs`, if that is an answer of the library. `ours` is to leave before it.
    pub fn instead_of(theirs: &[u8], ours: &[u8], line: &Line, tell: &Tell) -> Option<Self> {
        let (failure, date) = recognize(theirs)?;
        let behalf = Behalf::of(RequestId::random());
        let (status, client) = (failure.status(), line.peer().ip());
        behalf.clone().enter(|| failure.log_without_request(client));
        let (answer, bytes_out) = answer(failure, &behalf, date);
        let bytes = [ours, &answer].concat();
        let refused = Refused { client, begun: Instant::now(), status, bytes_out, is_complete: false, behalf };
        Some(Self { bytes, written: 0, refused, tell: Rc::clone(tell) })
    }

    /// What is still to be written.
    pub fn rest(&self) -> &[u8] {
        self.bytes.get(self.written..).unwrap_or_default()
    }

    /// So much more was written.
    pub fn advance(&mut self, count: usize) {
        self.written += count;
    }

    /// Whether all was written.
    pub fn is_over(&self) -> bool {
        self.written >= self.bytes.len()
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.refused.is_complete = self.is_over();
        (self.tell)(&self.refused);
    }
}

/// What went wrong by an answer of the library, and the line of its date.
fn recognize(theirs: &[u8]) -> Option<(Failure, Option<&str>)> {
    let mut lines = std::str::from_utf8(theirs).ok()?.strip_suffix("\r\n\r\n")?.split("\r\n");
    let status = lines.next()?;
    // The library answers in the version of the request before.
    let status = status.strip_prefix("HTTP/1.1 ").or_else(|| status.strip_prefix("HTTP/1.0 "))?.get(..3)?;
    let failure = Failure::of_no_request(StatusCode::from_bytes(status.as_bytes()).ok()?)?;
    let (mut date, mut is_empty) = (None, false);
    for line in lines {
        let name = line.split_once(": ")?.0;
        is_empty |= line.eq_ignore_ascii_case("content-length: 0");
        if name.eq_ignore_ascii_case("date") {
            date = Some(line);
        }
    }
    is_empty.then_some((failure, date))
}

/// The answer as it is written, and how much of it is its body.
fn answer(failure: Failure, behalf: &Behalf, date: Option<&str>) -> (Vec<u8>, u64) {
    let status = failure.status();
    let mut response = failure.into_response(Told { id: behalf.id(), is_json: false }, |text| text);
    request_id::show(behalf, response.head_mut());
    let mut text = format!("HTTP/1.1 {} {}\r\n", status.as_str(), status.canonical_reason().unwrap_or_default());
    write_headers(&mut text, response.headers());
    let body = response.into_body().try_into_bytes().unwrap_or_default();
    text += &format!("Content-Length: {}\r\nConnection: close\r\n", body.len());
    if let Some(date) = date {
        text += date;
        text += "\r\n";
    }
    text += "\r\n";
    let mut bytes = text.into_bytes();
    bytes.extend_from_slice(&body);
    (bytes, body.len() as u64)
}

fn write_headers(text: &mut String, headers: &HeaderMap) {
    for (name, value) in headers {
        if let Ok(value) = value.to_str() {
            *text += &format!("{}: {value}\r\n", spelled(name));
        }
    }
}

/// As all answers spell it: `X-Request-Id`.
fn spelled(name: &HeaderName) -> String {
    let words = name.as_str().split('-').map(|word| {
        let (first, rest) = word.split_at(1.min(word.len()));
        first.to_ascii_uppercase() + rest
    });
    words.collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_empty_answers_to_no_request_are_taken_for_those_of_the_library() {
        let date = "date: Sun, 22 Nov 2026 03:00:00 GMT";
        for status in ["400 Bad Request", "408 Request Timeout", "431 Request Header Fields Too Large"] {
            for version in ["1.0", "1.1"] {
                let head = format!("HTTP/{version} {status}\r\ncontent-length: 0\r\nconnection: close");
                let theirs = format!("{head}\r\n{date}\r\n\r\n");
                let (failure, line) = recognize(theirs.as_bytes()).unwrap();
                assert!(status.starts_with(failure.status().as_str()));
                assert_eq!(line, Some(date));
            }
        }
        for other in [
            "",
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 1\r\n\r\nx",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\nx\r\n\r\n",
        ] {
            assert!(recognize(other.as_bytes()).is_none(), "{other}");
        }
    }

    #[test]
    fn the_answer_has_an_id_and_the_line_like_every_failure() {
        let behalf = Behalf::of(RequestId::parse(b"4f").unwrap());
        let failure = Failure::of_no_request(StatusCode::REQUEST_TIMEOUT).unwrap();
        let (bytes, body) = answer(failure, &behalf, Some("date: now"));
        let text = String::from_utf8(bytes).unwrap();
        let (head, rest) = text.split_once("\r\n\r\n").unwrap();
        let lines: Vec<_> = head.split("\r\n").collect();
        assert_eq!(lines[0], "HTTP/1.1 408 Request Timeout");
        for line in ["X-Request-Id: 4f", "Connection: close", "date: now", "Content-Type: text/plain; charset=utf-8"] {
            assert!(lines.contains(&line), "{line}: {head}");
        }
        assert!(lines.contains(&format!("Content-Length: {body}").as_str()) && rest.len() as u64 == body);
        assert!(head.contains("X-Exception: ") && rest.ends_with("\nrequest_id: 4f\n"), "{text}");
    }
}
