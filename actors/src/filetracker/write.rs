//! Storing and deleting on an old server.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use reqwest::header::{CONTENT_ENCODING, CONTENT_LENGTH, HeaderValue, LAST_MODIFIED};
use reqwest::{Body, RequestBuilder, Response, StatusCode};

use super::names::encoded;
use super::{OldServer, Protocol, dates};
use crate::download::Download;
use crate::model::{EntryKey, Error, Kind, Result, Stamp};

/// The slowest a body may be taken, in bytes per second.
const BYTES_PER_SECOND_MIN: u64 = 256 * 1024;
/// The slowest it may be unpacked and hashed before the answer comes.
pub const UNPACKED_PER_SECOND_MIN: u64 = 4 << 20;

/// The answer to a deletion.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OldDelete {
    /// The file is gone.
    Deleted,
    /// There was no such file.
    Absent,
    /// The file stays: its version is newer, or the server cannot delete.
    Ignored,
}

/// What an upload says of its content.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Hints<'a> {
    /// Nothing: the server looks for itself, and refuses a body that broke off.
    None,
    /// The digest, as text, and the size: the server believes both.
    Believed(&'a str),
}

impl OldServer {
    /// Stores what a name holds here under the same name and version; returns the version that the server has then, which
    /// may be a newer one.
    ///
    /// The digest is not told to a server of version 2. It would believe it, and keep for ever what there is of a body that
    /// breaks off, under that digest; without, it checks the body first.
    pub async fn put(&self, name: &EntryKey, download: Download) -> Result<Stamp> {
        self.put_with(name, download, Hints::None).await
    }

    /// The same, with a digest of the caller's for a server of version 2 to keep the content under. It believes whatever it is
    /// told, so what it has is to be looked at afterwards.
    pub async fn put_as(&self, name: &EntryKey, download: Download, digest: &str) -> Result<Stamp> {
        self.put_with(name, download, Hints::Believed(digest)).await
    }

    /// Writes over whatever a server of version 1 has, which then takes the time for the version.
    pub async fn put_over(&self, name: &EntryKey, download: Download) -> Result<()> {
        let size = download.entry.logical_size;
        let answer = self.send(name, None, [size; 2], download.decoded(), |request| request).await?;
        if answer.status() == StatusCode::OK { Ok(()) } else { Err(self.refusal(&answer)) }
    }

    async fn put_with(&self, name: &EntryKey, download: Download, hints: Hints<'_>) -> Result<Stamp> {
        let stamp = download.entry.stamp;
        let logical_size = download.entry.logical_size;
        let answer = match self.protocol().await? {
            Protocol::V1 => {
                let set = |request: RequestBuilder| request.header(LAST_MODIFIED, dates::print(stamp));
                self.send(name, None, [logical_size; 2], download.decoded(), set).await?
            }
            Protocol::V2 => {
                let query = format!("last_modified={}", encoded(&dates::print(stamp)));
                let set = |request: RequestBuilder| {
                    let request = request.header(CONTENT_ENCODING, "gzip");
                    match hints {
                        Hints::None => request,
                        Hints::Believed(digest) => {
                            request.header("SHA256-Checksum", digest).header("Logical-Size", logical_size)
                        }
                    }
                };
                self.send(name, Some(&query), [download.stored_size(), logical_size], download.stored(), set).await?
            }
        };
        if answer.status() != StatusCode::OK {
            return Err(self.refusal(&answer));
        }
        let told = answer.headers().get(LAST_MODIFIED).and_then(|value| value.to_str().ok()).and_then(dates::parse);
        told.ok_or_else(|| self.stranger("the old server does not tell which version it has stored"))
    }

    async fn send(
        &self,
        name: &EntryKey,
        query: Option<&str>,
        [size, logical_size]: [u64; 2],
        bytes: BoxStream<'static, Result<Bytes>>,
        set: impl FnOnce(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response> {
        let url = self.0.address.file(name.name(), query);
        let seconds = size / BYTES_PER_SECOND_MIN + logical_size / UNPACKED_PER_SECOND_MIN;
        let time = self.0.limits.silence + Duration::from_secs(seconds);
        let build = |url| {
            let request = self.0.clients.sending.put(url).timeout(time);
            let request = request.header(CONTENT_LENGTH, HeaderValue::from(size)).body(Body::wrap_stream(bytes));
            set(request)
        };
        self.call(&url, build).await
    }

    /// Deletes a file unless its version is newer than `stamp`. A server of version 1 is not asked: it would say that it did.
    pub async fn delete(&self, name: &EntryKey, stamp: Stamp) -> Result<OldDelete> {
        let protocol = self.protocol().await?;
        if protocol == Protocol::V1 {
            return Ok(if self.head(name).await?.is_some() { OldDelete::Ignored } else { OldDelete::Absent });
        }
        let mut until = stamp;
        for _ in 0..2 {
            match self.delete_until(name, until, protocol).await? {
                // It keeps the time of a file for its version when it is killed before it noted the version. That has a
                // fraction of a second, which no date tells, and is newer than the second it shows.
                (OldDelete::Ignored, Some(there)) if there == stamp => until = Stamp::from_seconds(stamp.seconds() + 1),
                (OldDelete::Ignored, Some(there)) if there < stamp => break,
                (outcome, _) => return Ok(outcome),
            }
        }
        Err(Error::new(Kind::Unavailable, "the old server still has a file that it deleted"))
    }

    /// What became of it, and the version that is there now.
    async fn delete_until(
        &self,
        name: &EntryKey,
        stamp: Stamp,
        protocol: Protocol,
    ) -> Result<(OldDelete, Option<Stamp>)> {
        let query = format!("last_modified={}", encoded(&dates::print(stamp)));
        let url = self.0.address.file(name.name(), Some(&query));
        let time = self.0.limits.small;
        let answer = self.call(&url, |url| self.0.clients.asking.delete(url).timeout(time)).await?;
        match answer.status() {
            StatusCode::NOT_FOUND => self.expect_absence(&answer, protocol).await.map(|()| (OldDelete::Absent, None)),
            // It says so whether it did or not.
            StatusCode::OK => Ok(match self.head(name).await? {
                None => (OldDelete::Deleted, None),
                Some(file) => (OldDelete::Ignored, Some(file.stamp)),
            }),
            _ => Err(self.refusal(&answer)),
        }
    }
}
