//! What can go wrong with one request, and what it means.

use std::error::Error as StdError;
use std::fmt;

use serde::Deserialize;

use crate::model::{Error, Kind};

/// Error messages of servers are cut here: they end up in log lines.
const MESSAGE_CHARS_MAX: usize = 200;

/// Why one request failed.
#[derive(Debug)]
pub(super) enum Fault {
    /// The server answered, and the answer is no.
    Refused(Refusal),
    /// No connection, or it broke.
    Broken(reqwest::Error),
    /// The time for one attempt is over.
    Silent,
    /// A successful answer that makes no sense.
    Nonsense(String),
    /// The fault is on this side: the spooled bytes cannot be read, the request cannot be signed.
    Local(Error),
}

/// An error answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub status: u16,
    /// S3's name of the error; empty when the body had none, as after HEAD.
    pub code: String,
    pub message: String,
}

#[derive(Deserialize)]
struct ErrorBody {
    #[serde(rename = "Code", default)]
    code: String,
    #[serde(rename = "Message", default)]
    message: String,
}

impl Refusal {
    /// Reads an error answer; `secrets` are blotted out of what is kept of it.
    pub fn read(status: u16, body: &[u8], secrets: &[&str]) -> Self {
        let text = String::from_utf8_lossy(body);
        let parsed: Option<ErrorBody> = quick_xml::de::from_str(&text).ok();
        let (code, mut message) = parsed.map(|body| (body.code, body.message)).unwrap_or_default();
        for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
            message = message.replace(secret, "***");
        }
        let printable =
            |text: &str| -> String { text.chars().filter(|c| !c.is_control()).take(MESSAGE_CHARS_MAX).collect() };
        Self { status, code: printable(&code), message: printable(&message) }
    }

    /// S3 itself says that the object is not there.
    pub fn is_absent(&self) -> bool {
        self.status == 404 && self.code == "NoSuchKey"
    }

    fn is_full(&self) -> bool {
        self.status == 507
            || matches!(self.code.as_str(), "QuotaExceeded" | "InsufficientStorage" | "XMinioStorageFull")
            // Garage has no code of its own for this.
            || (self.status == 403 && self.message.contains("quota is reached"))
    }

    fn is_transient(&self) -> bool {
        match self.status {
            408 | 429 => true,
            501 | 505 | 507 => false,
            // CompleteMultipartUpload can fail after it has sent the status line.
            200 => matches!(self.code.as_str(), "InternalError" | "SlowDown" | "ServiceUnavailable"),
            status => status >= 500 && !self.is_full(),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "status={} code={:?} message={:?}", self.status, self.code, self.message)
    }
}

impl Fault {
    /// Whether another attempt may end better.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Refused(refusal) => refusal.is_transient(),
            // What breaks because our own body stream failed is told as Local by the sender.
            Self::Broken(error) => !error.is_builder(),
            Self::Silent => true,
            Self::Nonsense(_) | Self::Local(_) => false,
        }
    }

    /// The server's answer, if it is an error answer.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }

    /// The error for the caller; `doing` completes "while ...".
    pub fn into_error(self, doing: &str) -> Error {
        let (kind, context) = match &self {
            Self::Local(_) => (Kind::Internal, ""),
            Self::Refused(refusal) if refusal.is_full() => (Kind::NoSpace, "the content store is full"),
            Self::Refused(refusal) => (Kind::Unavailable, advice(refusal)),
            Self::Broken(_) => (Kind::Unavailable, "the content store cannot be reached"),
            Self::Silent => (Kind::Unavailable, "the content store does not answer in time"),
            Self::Nonsense(_) => (Kind::Unavailable, "the content store gives answers that are not S3"),
        };
        match self {
            Self::Local(error) => error,
            other => Error::new(kind, context).with_source(Failed { doing: doing.to_owned(), fault: other }),
        }
    }
}

/// What to look at. Never tells a key: the same line goes to clients.
fn advice(refusal: &Refusal) -> &'static str {
    match (refusal.status, refusal.code.as_str()) {
        (_, "NoSuchBucket") => "the S3 bucket does not exist: create it or check BUCKET_NAME",
        (_, "RequestTimeTooSkewed") => "the S3 server refuses this machine's clock",
        (_, "AuthorizationHeaderMalformed") => "the S3 server refuses the signature: check S3_REGION",
        (301 | 302 | 307 | 308, _) => "the S3 server wants another address: check S3_ENDPOINT and S3_REGION",
        (401 | 403, _) => {
            "the S3 server refuses access: check S3_ACCESS_KEY, S3_SECRET_KEY, S3_REGION, the clock and the key's \
             rights on the bucket"
        }
        (404, _) => "the S3 server answers 404: check S3_ENDPOINT, BUCKET_NAME and S3_FORCE_PATH_STYLE",
        (408 | 429 | 500.., _) => "the content store is out of order or overloaded",
        _ => "the content store refuses the request",
    }
}

/// A fault and what was being done, for the log.
#[derive(Debug)]
struct Failed {
    doing: String,
    fault: Fault,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3 {}: {}", self.doing, self.fault)
    }
}

impl StdError for Failed {}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => refusal.fmt(f),
            Self::Broken(error) => {
                error.fmt(f)?;
                let mut cause = error.source();
                while let Some(error) = cause {
                    write!(f, ": {error}")?;
                    cause = error.source();
                }
                Ok(())
            }
            Self::Silent => f.write_str("no answer in time"),
            Self::Nonsense(what) => f.write_str(what),
            Self::Local(error) => error.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(status: u16, code: &str, message: &str) -> Refusal {
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>{message}</Message>\
             <Resource>/b/k</Resource><RequestId>1</RequestId></Error>"
        );
        Refusal::read(status, body.as_bytes(), &["GKkey", "5ec4e7"])
    }

    #[test]
    fn only_a_missing_key_is_absence() {
        assert!(refusal(404, "NoSuchKey", "").is_absent());
        assert!(!refusal(404, "NoSuchBucket", "").is_absent());
        assert!(!refusal(403, "NoSuchKey", "").is_absent());
        assert!(!Refusal::read(404, b"<html>not here</html>", &[]).is_absent());
        assert!(!Refusal::read(404, b"", &[]).is_absent());
    }

    #[test]
    fn server_trouble_is_tried_again_and_refusals_are_not() {
        for status in [500, 502, 503, 504, 429, 408] {
            assert!(Fault::Refused(refusal(status, "x", "")).is_transient(), "{status}");
        }
        for status in [400, 401, 403, 404, 409, 411, 412, 501, 507] {
            assert!(!Fault::Refused(refusal(status, "x", "")).is_transient(), "{status}");
        }
        assert!(Fault::Silent.is_transient());
    }

    #[test]
    fn every_refusal_has_its_kind() {
        let kind = |refusal| Fault::Refused(refusal).into_error("test").kind();
        assert_eq!(kind(refusal(507, "", "")), Kind::NoSpace);
        assert_eq!(kind(refusal(403, "QuotaExceeded", "")), Kind::NoSpace);
        assert_eq!(kind(refusal(403, "AccessDenied", "Forbidden: Bucket size quota is reached")), Kind::NoSpace);
        for status in [301, 400, 403, 404, 500, 503] {
            assert_eq!(kind(refusal(status, "x", "")), Kind::Unavailable);
        }
    }

    #[test]
    fn keys_are_blotted_out_of_messages() {
        let error = Fault::Refused(refusal(403, "AccessDenied", "No such key: GKkey (5ec4e7)")).into_error("get k");
        let printed = format!("{error} {error:?}");
        assert!(!printed.contains("GKkey") && !printed.contains("5ec4e7"), "{printed}");
        assert!(error.context().contains("S3_ACCESS_KEY"));
    }
}
