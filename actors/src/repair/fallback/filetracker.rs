//! A server that speaks the Filetracker protocol.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use reqwest::StatusCode;
use reqwest::header::{CONTENT_ENCODING, HeaderMap};

use super::{Fallback, Source};
use crate::model::{Digest, EntryKey, Error, Kind, Namespace, Result};
use crate::runtime::budget::MemoryBudget;
use crate::spool::{BodyEncoding, SpoolLimits, Spooler};
use crate::store::blob::Spooled;
use crate::store::blocking::BlockingPool;

/// The longest time to connect.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// The longest silence.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// Memory for bodies.
const MEMORY_BYTES: u64 = 64 << 20;

/// A server that speaks the Filetracker protocol, version 2: an old one, or another s3dedup.
pub struct Filetracker {
    base: String,
    client: reqwest::Client,
    pool: BlockingPool,
    limits: SpoolLimits,
    budget: MemoryBudget,
}

impl Filetracker {
    /// The server at `url`, without `/files`. A user and password in it are sent along, and never shown.
    pub fn new(url: &str, limits: SpoolLimits, threads: usize) -> Result<Self> {
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
            Error::new(Kind::Internal, "cannot make a client for the fallback").with_source(error)
        };
        let client = reqwest::Client::builder().connect_timeout(CONNECT_MAX).read_timeout(SILENCE_MAX).build();
        Ok(Self {
            base: url.trim_end_matches('/').to_owned(),
            client: client.map_err(|error| failed(error.into()))?,
            pool: BlockingPool::start("fallback", threads.max(1), 16).map_err(|error| failed(error.into()))?,
            limits,
            budget: MemoryBudget::new(MEMORY_BYTES),
        })
    }
}

#[async_trait(?Send)]
impl Fallback for Filetracker {
    async fn sources(&self, _: Digest, names: &[EntryKey]) -> Result<Vec<Source>> {
        let names = names.iter().filter(|name| name.namespace() == Namespace::FILETRACKER);
        Ok(names.cloned().map(Source::Name).collect())
    }

    async fn fetch(&self, source: &Source) -> Result<Option<Spooled>> {
        let Source::Name(name) = source else { return Ok(None) };
        let silent = |error: reqwest::Error| {
            Error::new(Kind::Unavailable, "the fallback does not answer").with_source(error.without_url())
        };
        let url = format!("{}/files/{}", self.base, encoded(name.name()));
        let answer = self.client.get(url).send().await.map_err(silent)?;
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(None),
            status => return Err(Error::new(Kind::Unavailable, format!("the fallback answers {status}"))),
        }
        let encoding = if is_gzip(answer.headers()) { BodyEncoding::Gzip } else { BodyEncoding::Plain };
        let mut spooler = Spooler::new(encoding, self.limits.clone(), &self.budget, self.pool.clone());
        let mut body = answer.bytes_stream();
        let received = async {
            while let Some(piece) = body.next().await {
                spooler.write(piece.map_err(silent)?).await?;
            }
            spooler.finish().await
        };
        match received.await {
            Ok(spooled) => Ok(Some(spooled)),
            // What it has is broken, too.
            Err(error) if matches!(error.kind(), Kind::Invalid | Kind::TooLarge) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn is_gzip(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_ENCODING).and_then(|value| value.to_str().ok()).is_some_and(|value| value.trim() == "gzip")
}

/// The name for a URL; slashes stay.
fn encoded(name: &str) -> String {
    use std::fmt::Write;
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            out.push(byte.into());
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_encoded_for_urls() {
        assert_eq!(encoded("a b/ż?#%41+~x"), "a%20b/%C5%BC%3F%23%2541%2B~x");
    }
}
