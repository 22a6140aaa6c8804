//! Which protocol an old server speaks, and whether it is one at all.

use std::time::{Duration, Instant};

use reqwest::header::{ACCEPT_ENCODING, HeaderMap, HeaderValue};
use reqwest::{Method, Response, StatusCode, Url};

use super::OldServer;
use super::call::is_explained;
use crate::model::{Error, Kind, Result};

/// How long it is believed that the server at the address is still the one that it was.
const BELIEVED: Duration = Duration::from_secs(2);
/// The longest answer to the question for versions.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// A protocol of Filetracker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    /// Of the 1.x servers: plain files behind a web server. It has no listing, and a deletion does nothing.
    V1,
    /// Of the 2.x servers.
    V2,
}

/// What was found out.
#[derive(Clone, Copy)]
pub(super) struct Known {
    protocol: Protocol,
    checked: Instant,
}

impl Protocol {
    /// What to ask bodies for: version 2 has gzip, and what stands before version 1 must not make it.
    pub(super) fn accept(self) -> HeaderMap {
        let coding = match self {
            Self::V1 => "identity",
            Self::V2 => "gzip",
        };
        HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static(coding))])
    }

    /// Whether a redirection says no more than that the name is a directory, as web servers do.
    pub(super) fn is_directory(self, url: &Url, location: &[u8]) -> bool {
        let target = std::str::from_utf8(location).ok().and_then(|location| url.join(location).ok());
        self == Self::V1 && target.is_some_and(|target| target.path() == format!("{}/", url.path()))
    }
}

impl OldServer {
    /// Which protocol the server speaks: asked once, remembered when answered.
    pub async fn protocol(&self) -> Result<Protocol> {
        let mut known = self.0.known.lock().await;
        if let Some(known) = *known {
            return Ok(known.protocol);
        }
        let protocol = self.find_protocol().await?;
        log::debug!("an old server answers address={self} protocol={protocol:?}");
        *known = Some(Known { protocol, checked: Instant::now() });
        Ok(protocol)
    }

    /// Asks now whether the server answers as the one that it was.
    pub async fn probe(&self) -> Result<()> {
        let mut known = self.0.known.lock().await;
        let protocol = self.find_protocol().await?;
        match known.replace(Known { protocol, checked: Instant::now() }) {
            Some(before) if before.protocol != protocol => {
                *known = Some(before);
                Err(self.stranger("the old server speaks another protocol than before"))
            }
            _ => Ok(()),
        }
    }

    /// Whether a 404 means that there is no such file: a server of version 2 explains it; otherwise it is looked whether
    /// what answers is still the old server.
    pub(super) async fn expect_absence(&self, answer: &Response, protocol: Protocol) -> Result<()> {
        if protocol == Protocol::V2 && is_explained(answer.headers()) {
            return Ok(());
        }
        let mut known = self.0.known.lock().await;
        // Version 2 explains every absence: whoever does not is another server, or a proxy that has lost it.
        let is_believed = |known: Known| protocol == Protocol::V1 && known.checked.elapsed() < BELIEVED;
        if known.is_some_and(is_believed) {
            return Ok(());
        }
        let found = self.find_protocol().await?;
        *known = Some(Known { protocol: found, checked: Instant::now() });
        if found == protocol {
            return Ok(());
        }
        Err(self.stranger("the old server speaks another protocol than before"))
    }

    async fn find_protocol(&self) -> Result<Protocol> {
        let answer = self.small(Method::GET, "version/").await?;
        match answer.status() {
            StatusCode::OK => self.versions(answer).await,
            StatusCode::NOT_FOUND => {
                // So would anything else say. The files of version 1 are in a folder that is always there.
                let files = self.small(Method::HEAD, "files/").await?.status();
                let is_there = files.is_success() || files.is_redirection() || files == StatusCode::FORBIDDEN;
                if is_there {
                    return Ok(Protocol::V1);
                }
                Err(self.stranger("there is no Filetracker server at the address of the old server"))
            }
            _ => Err(self.refusal(&answer)),
        }
    }

    async fn versions(&self, mut answer: Response) -> Result<Protocol> {
        let stranger = || self.stranger("what is at the address of the old server does not tell its protocol versions");
        let mut body = Vec::new();
        while let Some(piece) = answer.chunk().await.map_err(|error| self.silent(error))? {
            if body.len() + piece.len() > ANSWER_BYTES_MAX {
                return Err(stranger());
            }
            body.extend_from_slice(&piece);
        }
        let value: serde_json::Value = serde_json::from_slice(&body).map_err(|_| stranger())?;
        let versions = value.get("protocol_versions").and_then(|versions| versions.as_array()).ok_or_else(stranger)?;
        if versions.iter().any(|version| version == 2) {
            return Ok(Protocol::V2);
        }
        Err(self.stranger("the old server speaks no protocol that is known here"))
    }

    async fn small(&self, method: Method, endpoint: &str) -> Result<Response> {
        let url = self.0.address.endpoint(endpoint, None);
        let time = self.0.limits.small;
        self.call(&url, |url| self.0.clients.asking.request(method, url).timeout(time)).await
    }

    pub(super) fn stranger(&self, what: &str) -> Error {
        Error::new(Kind::Unavailable, what).with_source(self.to_string())
    }
}
