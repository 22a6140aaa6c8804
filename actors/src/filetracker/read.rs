//! Files: what a server says of them, and their bytes.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use reqwest::header::{CONTENT_ENCODING, CONTENT_LENGTH, DATE, ETAG, HeaderMap, LAST_MODIFIED};
use reqwest::{Method, Response, StatusCode};

use super::call::Asked;
use super::{OldFile, OldServer, Protocol, dates};
use crate::model::{EntryKey, Error, Kind, Result, Stamp};
use crate::spool::BodyEncoding;

/// A server of version 1 writes files in place, with the time as the version until they are whole; and what stands before it
/// remembers for a second how long a file was. One of version 2 makes a link and notes the version then.
const SETTLED_AFTER_SECONDS: i64 = 2;
/// How often a file that is being written is given that time.
const SETTLES_MAX: usize = 3;

/// The longest body, in bytes, that a server of version 2 is believed without being asked again. It looks at a file before it
/// opens it, so a write in between gives the new bytes with the old version; their two sizes, which are checked, tell of
/// that unless they are the same. What remains is mended by whoever looks next, as the version there is the newer one. A
/// second question would make the copying of small files half as fast.
const BELIEVED_BYTES_MAX: u64 = 256 * 1024;

/// A file on its way here. The last bytes prove nothing: only the end of the stream says that all came.
pub struct OldDownload {
    /// What the server said of the file before its bytes.
    pub file: OldFile,
    /// The bytes, encoded as [`OldFile::encoding`] says. Ends with an error when they are not `length` bytes, or when the
    /// file was changed meanwhile.
    pub stream: BoxStream<'static, Result<Bytes>>,
}

impl OldServer {
    /// What the server says of a file; `None` when it has no such file.
    pub async fn head(&self, name: &EntryKey) -> Result<Option<OldFile>> {
        let asked = self.ask_file(Method::HEAD, name, Some(self.0.limits.small)).await?;
        self.described(&asked).await
    }

    /// Opens a file; `None` when the server has no such file.
    pub async fn get(&self, name: &EntryKey) -> Result<Option<OldDownload>> {
        let mut seen = None;
        for _ in 0..=SETTLES_MAX {
            let asked = self.ask_file(Method::GET, name, None).await?;
            let Some(file) = self.described(&asked).await? else { return Ok(None) };
            if file.length.is_none() && file.encoding == BodyEncoding::Plain {
                let what = "the old server does not say how long a file is";
                return Err(Error::new(Kind::Unavailable, what).with_source(self.to_string()));
            }
            if file.is_young && seen.as_ref() != Some(&file) {
                // Written again within the second, it would look the same after it was read as before.
                seen = Some(file);
                drop(asked);
                tokio::time::sleep(Duration::from_secs(SETTLED_AFTER_SECONDS.unsigned_abs())).await;
                continue;
            }
            let is_long = file.length.is_none_or(|length| length > BELIEVED_BYTES_MAX) || file.logical_size.is_none();
            let looks_again = asked.protocol == Protocol::V1 || (self.0.limits.looks_again && is_long);
            let check = Check { server: self.clone(), name: name.clone(), file: file.clone(), looks_again };
            return Ok(Some(OldDownload { file, stream: checked(asked.answer, check) }));
        }
        let what = "the file is being written on the old server";
        Err(Error::new(Kind::Unavailable, what).with_source(self.to_string()))
    }

    async fn described(&self, asked: &Asked) -> Result<Option<OldFile>> {
        let Asked { protocol, answer } = asked;
        match answer.status() {
            StatusCode::OK => self.file(*protocol, answer.headers()).map(Some),
            // A directory of version 1.
            status if status.is_redirection() => Ok(None),
            StatusCode::NOT_FOUND => self.expect_absence(answer, *protocol).await.map(|()| None),
            _ => Err(self.refusal(answer)),
        }
    }

    fn file(&self, protocol: Protocol, headers: &HeaderMap) -> Result<OldFile> {
        let text = |name| headers.get(name).and_then(|value: &reqwest::header::HeaderValue| value.to_str().ok());
        let number = |text: &str| text.trim().parse::<u64>().ok();
        let wrong = |what: &str| self.stranger(&format!("the old server {what}"));
        let stamp =
            text(LAST_MODIFIED).and_then(dates::parse).ok_or_else(|| wrong("does not tell a file's version"))?;
        let encoding = match text(CONTENT_ENCODING).map(str::trim) {
            Some("gzip") => BodyEncoding::Gzip,
            None | Some("" | "identity") => BodyEncoding::Plain,
            Some(other) => return Err(wrong(&format!("sends an encoding that is not known: {other:?}"))),
        };
        let length = text(CONTENT_LENGTH).and_then(number);
        let logical_size = match (protocol, encoding) {
            (Protocol::V1, BodyEncoding::Plain) => length,
            _ => headers.get("logical-size").and_then(|value| value.to_str().ok()).and_then(number),
        };
        let tag = text(ETAG).map(str::to_owned);
        Ok(OldFile { stamp, logical_size, length, encoding, tag, is_young: is_young(stamp, headers) })
    }
}

/// By the clock of the server, which is that of its files.
fn is_young(stamp: Stamp, headers: &HeaderMap) -> bool {
    let date = headers.get(DATE).and_then(|value| value.to_str().ok()).and_then(dates::parse);
    let now = date.unwrap_or_else(Stamp::now).seconds();
    stamp.seconds().abs_diff(now) <= SETTLED_AFTER_SECONDS.unsigned_abs()
}

/// What has to be right at the end of a body.
struct Check {
    server: OldServer,
    name: EntryKey,
    file: OldFile,
    looks_again: bool,
}

impl Check {
    async fn at_end(&self, seen: u64) -> Result<()> {
        if let Some(length) = self.file.length.filter(|length| *length != seen) {
            let what = format!("the old server sent {seen} of {length} bytes");
            return Err(Error::new(Kind::Unavailable, what).with_source(self.server.to_string()));
        }
        if self.looks_again && !self.server.head(&self.name).await?.is_some_and(|now| now.is_same(&self.file)) {
            let what = "the file was changed on the old server while it was read";
            return Err(Error::new(Kind::Unavailable, what).with_source(self.server.to_string()));
        }
        Ok(())
    }
}

fn checked(answer: Response, check: Check) -> BoxStream<'static, Result<Bytes>> {
    let body = answer.bytes_stream().boxed();
    stream::try_unfold((body, 0_u64, check), |(mut body, seen, check)| async move {
        match body.next().await {
            Some(Ok(piece)) => {
                let seen = seen + piece.len() as u64;
                Ok(Some((piece, (body, seen, check))))
            }
            Some(Err(error)) => Err(check.server.silent(error)),
            None => check.at_end(seen).await.map(|()| None),
        }
    })
    .boxed()
}
