//! Requests and what their answers mean.

use std::error::Error as _;
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, LOCATION};
use reqwest::{Client, Method, Response, StatusCode, Url, redirect};

use super::address::Address;
use super::{OldServer, OldServerLimits};
use crate::model::{EntryKey, Error, Kind, Result};

/// Redirections that are followed.
const REDIRECTS_MAX: usize = 5;
/// The old server closes idle connections after two seconds.
const IDLE_MAX: Duration = Duration::from_secs(1);
/// How much of an explanation is kept.
const REASON_CHARACTERS_MAX: usize = 200;

const X_EXCEPTION: HeaderName = HeaderName::from_static("x-exception");

/// One client per way of waiting.
pub(super) struct Clients {
    pub(super) asking: Client,
    pub(super) listing: Client,
    /// A request whose body is streamed cannot be repeated, so it goes on a connection of its own. Its time is limited as a
    /// whole: while the body is sent nothing is to come back.
    pub(super) sending: Client,
}

impl Clients {
    pub(super) fn new(address: &Address, limits: &OldServerLimits) -> Result<Self> {
        let base = || {
            let builder = Client::builder()
                .connect_timeout(limits.connect)
                .tcp_nodelay(true)
                .tcp_keepalive(Duration::from_secs(15))
                .pool_idle_timeout(IDLE_MAX)
                // They are followed by hand: the old server does not encode names in them.
                .redirect(redirect::Policy::none())
                .http1_only();
            if address.is_loopback() { builder.no_proxy() } else { builder }
        };
        let failed = |error: reqwest::Error| {
            Error::new(Kind::Internal, "the client of the old server cannot be set up").with_source(error)
        };
        Ok(Self {
            asking: base().read_timeout(limits.silence).build().map_err(failed)?,
            listing: base().read_timeout(limits.list_silence).build().map_err(failed)?,
            sending: base().pool_max_idle_per_host(0).build().map_err(failed)?,
        })
    }
}

impl OldServer {
    /// Sends a request that `build` makes; whatever status comes back is an answer, except those by which proxies say that
    /// there is no server behind them.
    pub(super) async fn call(&self, url: &Url, build: impl FnOnce(Url) -> reqwest::RequestBuilder) -> Result<Response> {
        let request = build(url.clone());
        let send = async {
            let answer = request.send().await.map_err(|error| self.silent(error))?;
            match answer.status() {
                StatusCode::BAD_GATEWAY
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT
                | StatusCode::TOO_MANY_REQUESTS => Err(self.refusal(&answer)),
                _ => Ok(answer),
            }
        };
        match &self.0.breaker {
            Some(breaker) => breaker.call(send).await,
            None => send.await,
        }
    }

    /// Asks about a file, following redirections; `time` bounds each request as a whole.
    pub(super) async fn ask_file(&self, method: Method, name: &EntryKey, time: Option<Duration>) -> Result<Asked> {
        let protocol = self.protocol().await?;
        let mut url = self.0.address.file(name.name(), None);
        for _ in 0..=REDIRECTS_MAX {
            let answer = self.call(&url, |url| {
                let request = self.0.clients.asking.request(method.clone(), url).headers(protocol.accept());
                match time {
                    Some(time) => request.timeout(time),
                    None => request,
                }
            });
            let answer = answer.await?;
            if !answer.status().is_redirection() {
                return Ok(Asked { protocol, answer });
            }
            let location = answer.headers().get(LOCATION).map(|value| value.as_bytes().to_vec()).unwrap_or_default();
            if protocol.is_directory(&url, &location) {
                return Ok(Asked { protocol, answer });
            }
            url = self.0.address.redirected(&url, &location, name.name()).ok_or_else(|| self.refusal(&answer))?;
        }
        Err(Error::new(Kind::Unavailable, "the old server redirects too often").with_source(self.to_string()))
    }

    /// The server does not answer, or its answer broke off.
    pub(super) fn silent(&self, error: reqwest::Error) -> Error {
        let context = match () {
            () if error.is_timeout() => "the old server does not answer in time",
            () if error.is_body() || error.is_decode() => "the answer of the old server broke off",
            () => "the old server does not answer",
        };
        let error = error.without_url();
        let mut causes = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            causes = format!("{causes}: {error}");
            cause = error.source();
        }
        Error::new(Kind::Unavailable, context).with_source(format!("{self}: {causes}"))
    }

    /// An answer that is none of those expected.
    pub(super) fn refusal(&self, answer: &Response) -> Error {
        let status = answer.status().as_u16();
        let context = format!("the old server answers {status}");
        let source = match reason(answer.headers()) {
            Some(reason) => format!("{self}: {reason:?}"),
            None => self.to_string(),
        };
        Error::new(Kind::Unavailable, context).with_source(source)
    }
}

/// The answer of a server that was found to speak this protocol.
pub(super) struct Asked {
    pub(super) protocol: super::Protocol,
    pub(super) answer: Response,
}

/// Whether the answer was given by a Filetracker server of version 2, which explains every failure this way.
pub(super) fn is_explained(headers: &HeaderMap) -> bool {
    headers.contains_key(X_EXCEPTION)
}

fn reason(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(X_EXCEPTION)?;
    Some(String::from_utf8_lossy(value.as_bytes()).chars().take(REASON_CHARACTERS_MAX).collect())
}
