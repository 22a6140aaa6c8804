//! Who may ask what, over HTTP.
//!
//! A token comes as `Authorization: Bearer TOKEN`, or as the password of `Authorization: Basic`, with whatever user name: that is
//! how clients show one that have nothing but a URL, `http://user:TOKEN@host/`. What is refused here is refused before
//! anything of its body is read.

use std::net::{IpAddr, Ipv4Addr};

use actix_web::HttpRequest;
use actix_web::http::Method;
use actix_web::http::header::{AUTHORIZATION, HeaderMap, HeaderValue, X_FORWARDED_FOR};
use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::admin::Page;
use super::error::Failure;
use crate::access::networks::Networks;
use crate::access::{Access, Presented, Refusal, Role};
use crate::config::MetricsFor;

/// Longer than any header with a token.
const LINE_BYTES_MAX: usize = 1024;
/// Some clients leave out the padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What stands in front of every route but those of health.
#[derive(Clone)]
pub struct Guard {
    /// The tokens.
    pub access: Access,
    /// Whether reads of the protocol need none.
    pub public_read: bool,
    /// Who may see the metrics.
    pub metrics: MetricsFor,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub proxies: Networks,
}

impl Guard {
    /// Whether this request may see a page for those who look after the server.
    pub fn page(&self, request: &HttpRequest, page: Page) -> Result<(), Failure> {
        let role = match (page, self.metrics) {
            (Page::Metrics | Page::MetricsJson, MetricsFor::Everybody) => return Ok(()),
            (Page::Metrics | Page::MetricsJson, MetricsFor::ReadOnly) => Role::ReadOnly,
            _ => Role::Admin,
        };
        self.check(request, role)
    }

    /// Whether this request of a protocol may go on. A method that is not known counts as a write.
    pub fn protocol(&self, request: &HttpRequest) -> Result<(), Failure> {
        match *request.method() {
            Method::GET | Method::HEAD if self.public_read => Ok(()),
            Method::GET | Method::HEAD => self.check(request, Role::ReadOnly),
            _ => self.check(request, Role::ReadWrite),
        }
    }

    fn check(&self, request: &HttpRequest, needs: Role) -> Result<(), Failure> {
        if !self.access.is_guarded() {
            return Ok(());
        }
        let credentials = Credentials::of(request.headers());
        let presented = match &credentials {
            Credentials::None => Presented::Nothing,
            Credentials::Malformed => Presented::Malformed,
            Credentials::Token(token) => Presented::Token(token),
        };
        self.access.check(needs, presented, self.sender(request)).map_err(|refusal| match refusal {
            Refusal::Missing => Failure::unauthorized("a token is needed here"),
            Refusal::Unknown => Failure::unauthorized("the token is not known"),
            Refusal::RoleTooSmall { has, needs } => {
                Failure::forbidden(format!("the token is {has}, but this needs {needs}"))
            }
            Refusal::TooMany { retry_after } => Failure::too_many(retry_after, "too many requests with wrong tokens"),
        })
    }

    /// What people call the token that the request shows, if it is one of ours.
    pub(super) fn token_name(&self, request: &HttpRequest) -> Option<String> {
        match Credentials::of(request.headers()) {
            Credentials::Token(token) => self.access.name_of(&token),
            Credentials::None | Credentials::Malformed => None,
        }
    }

    /// The address of the client, as far as it can be told.
    pub(super) fn sender(&self, request: &HttpRequest) -> IpAddr {
        let peer = request.peer_addr().map_or(Ipv4Addr::UNSPECIFIED.into(), |address| address.ip());
        // A client may have put anything before what its proxy added to the same line.
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let lines: Vec<String> = request.headers().get_all(X_FORWARDED_FOR).map(text).collect();
        self.proxies.sender(peer, lines.iter().map(String::as_str))
    }
}

/// What the headers of a request bring along. Without `Debug`: it is never to be shown.
enum Credentials {
    None,
    Malformed,
    Token(String),
}

impl Credentials {
    fn of(headers: &HeaderMap) -> Self {
        let mut lines = headers.get_all(AUTHORIZATION);
        let Some(line) = lines.next() else { return Self::None };
        // Of two a proxy may look at one and this server at the other.
        if lines.next().is_some() {
            return Self::Malformed;
        }
        token(line.as_bytes()).map_or(Self::Malformed, Self::Token)
    }
}

fn token(line: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(line).ok().filter(|text| text.len() <= LINE_BYTES_MAX)?;
    let (scheme, rest) = text.split_once(' ')?;
    let rest = rest.trim_matches(' ');
    if !rest.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',') {
        return None;
    }
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = String::from_utf8(BASE64.decode(rest).ok()?).ok()?;
    pair.split_once(':').map(|(_, password)| password.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token_of(lines: &[&str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(AUTHORIZATION, HeaderValue::from_str(line).unwrap());
        }
        match Credentials::of(&headers) {
            Credentials::Token(token) => Some(token),
            Credentials::None | Credentials::Malformed => None,
        }
    }

    #[test]
    fn a_token_is_the_bearer_or_the_password_of_anybody() {
        // user:abc, :abc, a:b:c
        for (line, token) in [
            ("Bearer abc", "abc"),
            ("bearer   abc ", "abc"),
            ("Basic dXNlcjphYmM=", "abc"),
            ("basic dXNlcjphYmM", "abc"),
            ("BASIC OmFiYw==", "abc"),
            ("Basic YTpiOmM=", "b:c"),
        ] {
            assert_eq!(token_of(&[line]).as_deref(), Some(token), "{line}");
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_no_token() {
        for lines in [
            &["Bearer abc", "Basic dXNlcjphYmM="][..],
            &["Bearer abc", "Bearer abc"],
            &["Bearer abc, Basic dXNlcjphYmM="],
            &["Bearer abc def"],
            &["Bearer\tabc"],
            &["Bearer"],
            &["Digest abc"],
            &["abc"],
            &["Basic !!!!"],
            &["Basic dXNlcg=="],
            &["Basic dXNlcjphYmM= x"],
        ] {
            assert_eq!(token_of(lines), None, "{lines:?}");
        }
        assert_eq!(token_of(&[&format!("Bearer {}", "a".repeat(2000))]), None);
        assert_eq!(token_of(&[]), None);
    }
}
