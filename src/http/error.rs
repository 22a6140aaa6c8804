//! What a client is told when a request fails.
//!
//! Every failure is one short line, sent as `X-Exception` (which clients of Filetracker show) and
//! as the body, there with the id of the request. It never holds paths of this machine or the cause; those go to the log,
//! once, with the same id.

use std::net::IpAddr;
use std::time::Duration;

use actix_web::body::MessageBody;
use actix_web::http::StatusCode;
use actix_web::http::header::ACCEPT;
use actix_web::http::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::{HttpRequest, HttpResponse};
use s3dedup_actors::model::{Error, InvalidName, Kind, RequestId};
use serde_json::json;

use super::asked;

/// The header that carries the line.
pub const X_EXCEPTION: HeaderName = HeaderName::from_static("x-exception");

/// Makes browsers ask for a token: it is the password, the user does not matter.
const CHALLENGE: &str = "Basic realm=\"s3dedup\", charset=\"UTF-8\"";

const LINE_CHARS_MAX: usize = 200;

const TEXT: &str = "text/plain; charset=utf-8";

/// How a failure is told.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    /// The id of the request.
    pub id: Option<&'a RequestId>,
    /// As a JSON object instead of text.
    pub is_json: bool,
}

/// Whether the client would rather have JSON than text.
pub fn wants_json(request: &HttpRequest) -> bool {
    let accepts = |value: &HeaderValue| value.to_str().is_ok_and(|types| types.contains("application/json"));
    request.headers().get(ACCEPT).is_some_and(accepts)
}

/// A request that failed.
#[derive(Debug)]
pub struct Failure {
    status: StatusCode,
    line: String,
    allow: Option<&'static str>,
    retry_after_seconds: Option<u8>,
    close: bool,
    cause: Option<Error>,
}

impl Failure {
    fn new(status: StatusCode, line: impl Into<String>) -> Self {
        Self { status, line: line.into(), allow: None, retry_after_seconds: None, close: false, cause: None }
    }

    /// 400: the request is wrong.
    pub fn bad_request(line: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, line)
    }

    /// 401: it must be shown who asks.
    pub fn unauthorized(line: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, line)
    }

    /// 403: who asks may not do that.
    pub fn forbidden(line: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, line)
    }

    /// 429: who asks is to wait.
    pub fn too_many(retry_after: Duration, line: impl Into<String>) -> Self {
        let seconds = u8::try_from(retry_after.as_secs().saturating_add(1)).unwrap_or(u8::MAX);
        Self { retry_after_seconds: Some(seconds), ..Self::new(StatusCode::TOO_MANY_REQUESTS, line) }
    }

    /// 429: the address of who asks has too many connections. This one is closed.
    pub fn too_many_connections() -> Self {
        Self { close: true, ..Self::too_many(Duration::ZERO, "too many connections from this address") }
    }

    /// 404: there is no such thing.
    pub fn not_found(line: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, line)
    }

    /// 405, with the methods that would do.
    pub fn method_not_allowed(allow: &'static str) -> Self {
        let line = format!("method not allowed, expected {allow}");
        Self { allow: Some(allow), ..Self::new(StatusCode::METHOD_NOT_ALLOWED, line) }
    }

    /// 408: the body came too slowly. The connection is closed.
    pub fn too_slow(line: impl Into<String>) -> Self {
        Self { close: true, ..Self::new(StatusCode::REQUEST_TIMEOUT, line) }
    }

    /// To what is no request, as the status of the HTTP library says it; `None` for one that it does not make. The connection
    /// is closed.
    pub fn of_no_request(status: StatusCode) -> Option<Self> {
        let line = match status {
            StatusCode::BAD_REQUEST => "what was sent is no request of HTTP/1",
            StatusCode::REQUEST_TIMEOUT => "the head of the request did not come in time",
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => "the head of the request is too large",
            StatusCode::INTERNAL_SERVER_ERROR => "internal error",
            _ => return None,
        };
        Some(Self { close: true, ..Self::new(status, line) })
    }

    /// 415: the body has a coding that is not understood.
    pub fn unsupported_coding(line: impl Into<String>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, line)
    }

    /// 503: the server is about to end.
    pub fn stopping() -> Self {
        Error::new(Kind::Overloaded, "the server is stopping").into()
    }

    /// 500: a defect of this program.
    pub fn internal(line: &'static str) -> Self {
        Error::new(Kind::Internal, line).into()
    }

    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Whether the connection must not be used again.
    pub fn closes(&self) -> bool {
        self.close
    }

    /// Whether it was refused for who asks, not for what is asked.
    pub fn is_unwelcome(&self) -> bool {
        matches!(self.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS)
    }

    /// The line, as it is sent.
    fn sent_line(&self) -> String {
        let visible = |c: char| if c == ' ' || c.is_ascii_graphic() { c } else { '?' };
        self.line.chars().take(LINE_CHARS_MAX).map(visible).collect()
    }

    /// The answer. `body` makes its body of the text.
    pub fn into_response<B: MessageBody + 'static>(
        self,
        told: Told<'_>,
        body: impl FnOnce(String) -> B,
    ) -> HttpResponse {
        let line = self.sent_line();
        let (media_type, text) = match (told.is_json, told.id) {
            (true, id) => {
                let object = json!({ "error": line, "request_id": id.map(RequestId::as_str) });
                ("application/json", format!("{object}\n"))
            }
            (false, Some(id)) => (TEXT, format!("{line}\nrequest_id: {id}\n")),
            (false, None) => (TEXT, format!("{line}\n")),
        };
        let mut response = HttpResponse::build(self.status);
        response.insert_header((CONTENT_TYPE, media_type));
        if let Ok(value) = HeaderValue::from_str(&line) {
            response.insert_header((X_EXCEPTION, value));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.insert_header((WWW_AUTHENTICATE, CHALLENGE));
        }
        if let Some(methods) = self.allow {
            response.insert_header((ALLOW, methods));
        }
        if let Some(seconds) = self.retry_after_seconds {
            response.insert_header((RETRY_AFTER, HeaderValue::from(u16::from(seconds))));
        }
        response.body(body(text))
    }

    /// Writes to the log that something was refused that was no request.
    pub fn log_without_request(&self, client: IpAddr) {
        let (status, client) = (self.status.as_u16(), client.to_string());
        log::debug!(status, client = client.as_str(), reason = self.line.as_str(); "no request, refused");
    }

    /// Writes to the log what the client is not told.
    pub fn log(&self, request: &HttpRequest) {
        let ((method, path), status) = (asked(request), self.status.as_u16());
        let Some(cause) = &self.cause else {
            return log::debug!(method, path, status, reason = self.line.as_str(); "request refused");
        };
        let kind = cause.kind();
        let cause = cause.to_string();
        match kind {
            Kind::Invalid | Kind::TooLarge | Kind::Overloaded => {
                log::debug!(method, path, status, reason = cause; "request refused");
            }
            Kind::Unavailable => log::warn!(method, path, status, cause; "request failed"),
            Kind::NoSpace | Kind::Corrupt | Kind::Internal | Kind::Panicked => {
                log::error!(method, path, status, cause; "request failed");
            }
        }
    }
}

impl From<InvalidName> for Failure {
    fn from(reason: InvalidName) -> Self {
        Self::bad_request(reason.to_string())
    }
}

impl From<Error> for Failure {
    fn from(cause: Error) -> Self {
        // How soon a retry may help: a slot frees itself quickly, an outage lasts longer.
        let (status, retry_after_seconds) = match cause.kind() {
            Kind::Invalid => (StatusCode::BAD_REQUEST, None),
            Kind::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, None),
            Kind::Overloaded | Kind::Panicked => (StatusCode::SERVICE_UNAVAILABLE, Some(1)),
            Kind::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, Some(5)),
            Kind::NoSpace => (StatusCode::INSUFFICIENT_STORAGE, None),
            Kind::Corrupt | Kind::Internal => (StatusCode::INTERNAL_SERVER_ERROR, None),
        };
        let line = cause.context().to_owned();
        Self { retry_after_seconds, cause: Some(cause), ..Self::new(status, line) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(failure: Failure) -> HttpResponse {
        failure.into_response(Told { id: None, is_json: false }, |text| text)
    }

    #[test]
    fn kinds_have_their_status() {
        for (kind, status, retry) in [
            (Kind::Invalid, 400, false),
            (Kind::TooLarge, 413, false),
            (Kind::Overloaded, 503, true),
            (Kind::Unavailable, 503, true),
            (Kind::NoSpace, 507, false),
            (Kind::Corrupt, 500, false),
            (Kind::Internal, 500, false),
            (Kind::Panicked, 503, true),
        ] {
            let response = answer(Error::new(kind, "context").with_source("secret").into());
            assert_eq!(response.status().as_u16(), status);
            assert_eq!(response.headers().contains_key(RETRY_AFTER), retry);
            assert_eq!(response.headers().get(X_EXCEPTION).unwrap(), "context");
        }
    }

    #[test]
    fn the_line_is_always_a_valid_header() {
        let response = answer(Failure::bad_request(format!("zażółć\r\nX: y{}", "z".repeat(500))));
        let line = response.headers().get(X_EXCEPTION).unwrap().to_str().unwrap();
        assert!(line.starts_with("za????") && line.len() == LINE_CHARS_MAX, "{line}");
    }

    #[test]
    fn the_body_names_the_request_as_text_or_json() {
        use actix_web::body::MessageBody;
        let id = RequestId::parse(b"4f").unwrap();
        for (is_json, wanted) in [
            (false, "no \"such\" file\nrequest_id: 4f\n"),
            (true, "{\"error\":\"no \\\"such\\\" file\",\"request_id\":\"4f\"}\n"),
        ] {
            let told = Told { id: Some(&id), is_json };
            let response = Failure::not_found("no \"such\" file").into_response(told, |text| text);
            assert_eq!(response.headers().get(X_EXCEPTION).unwrap(), "no \"such\" file");
            assert_eq!(response.into_body().try_into_bytes().unwrap(), wanted);
        }
    }

    #[test]
    fn a_wrong_method_names_the_right_ones() {
        let response = answer(Failure::method_not_allowed("GET, HEAD"));
        assert_eq!(response.status().as_u16(), 405);
        assert_eq!(response.headers().get(ALLOW).unwrap(), "GET, HEAD");
    }
}
