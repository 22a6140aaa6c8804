//! Storing an object: one request when it is small, parts when it is not.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use reqwest::Response;
use reqwest::header::{ETAG, HeaderMap};
use s3::command::{Command, Multipart};
use s3::serde_types::{CompleteMultipartUploadData, Part};
use serde::Deserialize;

use super::body::Slice;
use super::fault::Fault;
use super::retry::Patience;
use super::settings::PART_BYTES_MAX;
use super::wire::{EMPTY_SHA256, Wire, answer};
use super::{S3Store, describe};
use crate::failpoint::{self, Point};
use crate::model::{BlobInfo, BlobKey, Error, Kind, Result};
use crate::runtime::behalf::Behalf;
use crate::store::blob::{BlobStore, SpooledBytes};

/// The most parts S3 takes for one object.
const PARTS_MAX: u64 = 10_000;
/// What S3 names the hash of a body that is not part of the signature.
const UNSIGNED: &str = "UNSIGNED-PAYLOAD";
const CONTENT_TYPE: &str = "application/octet-stream";

#[derive(Deserialize)]
struct Begun {
    #[serde(rename = "UploadId")]
    upload_id: String,
}

/// An upload in parts that the server knows of. Unless it is finished, dropping it aborts it.
struct Upload {
    wire: Arc<Wire>,
    path: String,
    id: String,
    finished: bool,
}

impl S3Store {
    /// Stores an object in one request.
    pub(super) async fn put_whole(
        &self,
        waited: Duration,
        path: &str,
        bytes: &SpooledBytes,
        info: &BlobInfo,
    ) -> Result<()> {
        let command =
            Command::PutObject { content: b"", content_type: CONTENT_TYPE, custom_headers: None, multipart: None };
        let slice = Slice::new(bytes, 0..bytes.len());
        let sent = self.send_slice(waited, path, command, describe::to_headers(info)?, &slice).await;
        sent.and_then(|response| stored_etag(&response).map(drop))
            .map_err(|fault| fault.into_error(&format!("put {path}")))
    }

    /// Stores an object in parts; it appears under its key when all of them are there.
    pub(super) async fn put_parts(&self, key: &BlobKey, bytes: &SpooledBytes, info: &BlobInfo) -> Result<()> {
        let path = key.to_string();
        let told = |fault: Fault| fault.into_error(&format!("put {key} in parts"));
        let settings = self.wire().settings();
        let ranges = part_ranges(bytes.len(), settings.part_size)?;
        // A task of its own: were it dropped before the answer, nobody would know what to abort.
        let (store, begun, described) = (self.clone(), path.clone(), *info);
        let begin = Behalf::current().scope(async move { store.begin(&begun, &described).await });
        let begun = tokio::spawn(begin).await;
        let lost = |error| Fault::Local(Error::new(Kind::Internal, "internal error").with_source(error));
        let mut upload = begun.map_err(lost).flatten().map_err(told)?;
        let parts: Vec<Part> = stream::iter((1..).zip(ranges))
            .map(|(number, range)| self.send_part(&upload, number, Slice::new(bytes, range)))
            .buffered(settings.parts_in_flight)
            .try_collect()
            .await
            .map_err(told)?;
        failpoint::hit(Point::PutBeforeComplete).await?;
        match self.complete(&upload, parts).await {
            Ok(()) => {}
            // An attempt whose answer was lost may have done it: the object itself tells.
            Err(fault) if is_doubtful(&fault) => match self.head(&path).await {
                Ok(Some(found)) if found == *info => {}
                _ => return Err(told(fault)),
            },
            Err(fault) => return Err(told(fault)),
        }
        upload.finished = true;
        self.check_stored(key, info).await
    }

    async fn begin(&self, path: &str, info: &BlobInfo) -> Result<Upload, Fault> {
        let wire = self.wire();
        let headers = describe::to_headers(info).map_err(Fault::Local)?;
        let attempt = || async {
            let command = Command::InitiateMultipartUpload { content_type: CONTENT_TYPE };
            let body = reqwest::Body::from("");
            answer(wire.send_body(path, command, headers.clone(), body, 0, EMPTY_SHA256).await?).await
        };
        let begun = Patience::small(&wire.settings().timeouts).run(attempt).await?;
        let begun: Begun = quick_xml::de::from_str(&begun)
            .map_err(|error| Fault::Nonsense(format!("an upload has no id: {error}")))?;
        Ok(Upload { wire: Arc::clone(wire), path: path.to_owned(), id: begun.upload_id, finished: false })
    }

    async fn send_part(&self, upload: &Upload, number: u32, slice: Slice) -> Result<Part, Fault> {
        let multipart = Some(Multipart::new(number, &upload.id));
        let command = Command::PutObject { content: b"", content_type: CONTENT_TYPE, custom_headers: None, multipart };
        let response = self.send_slice(Duration::ZERO, &upload.path, command, HeaderMap::new(), &slice).await?;
        failpoint::hit(Point::PutAfterPart).await.map_err(Fault::Local)?;
        Ok(Part { part_number: number, etag: stored_etag(&response)? })
    }

    async fn send_slice(
        &self,
        waited: Duration,
        path: &str,
        command: Command<'_>,
        headers: HeaderMap,
        slice: &Slice,
    ) -> Result<Response, Fault> {
        let (wire, pool) = (self.wire(), self.pool());
        let sha256 = match wire.settings().sign_payloads {
            true => slice.sha256(pool).await.map_err(Fault::Local)?,
            false => UNSIGNED.to_owned(),
        };
        let attempt = |progress| {
            let (body, mishap) = slice.body(pool, &progress);
            let sent = wire.send_body(path, command.clone(), headers.clone(), body, slice.len(), &sha256);
            async move { sent.await.map_err(|fault| mishap.take().map_or(fault, Fault::Local)) }
        };
        Patience::upload(&wire.settings().timeouts, slice.len()).after(waited).run_watched(attempt).await
    }

    async fn complete(&self, upload: &Upload, parts: Vec<Part>) -> Result<(), Fault> {
        let wire = self.wire();
        let attempt = || async {
            let data = CompleteMultipartUploadData { parts: parts.clone() };
            let command = Command::CompleteMultipartUpload { upload_id: &upload.id, data };
            let response = wire.send(&upload.path, command).await?;
            let status = response.status().as_u16();
            let body = answer(response).await?;
            // The status line is sent before the outcome is known: only the document tells it.
            if body.contains("<CompleteMultipartUploadResult") {
                return Ok(());
            }
            let refusal = wire.refusal(status, body.as_bytes());
            let known = !refusal.code.is_empty();
            Err(if known { Fault::Refused(refusal) } else { Fault::Nonsense("no outcome of an upload".to_owned()) })
        };
        Patience::patient(&wire.settings().timeouts).run(attempt).await
    }

    /// Makes sure that what was assembled is what was sent.
    async fn check_stored(&self, key: &BlobKey, info: &BlobInfo) -> Result<()> {
        match self.head(&key.to_string()).await {
            Ok(Some(found)) if found == *info => return Ok(()),
            Err(error) if error.kind() != Kind::Corrupt => return Err(error),
            Ok(_) | Err(_) => {}
        }
        // Nobody refers to it yet, and a key is used for one upload only.
        BlobStore::delete(self, std::slice::from_ref(key)).await?;
        Err(Error::new(Kind::Unavailable, "the content store did not keep what it was given")
            .with_source(format!("s3 put {key} in parts: size or metadata differ")))
    }
}

/// The ETag of what was stored. S3 answers 200 and tells one; whatever else answers a PUT with
/// success may have stored nothing.
pub(super) fn stored_etag(response: &Response) -> Result<String, Fault> {
    let status = response.status().as_u16();
    let etag = response.headers().get(ETAG).and_then(|etag| etag.to_str().ok());
    match etag {
        Some(etag) if status == 200 => Ok(etag.to_owned()),
        Some(_) => Err(Fault::Nonsense(format!("a PUT is answered with status {status}"))),
        None => Err(Fault::Nonsense(format!("a PUT is answered with status {status} and no ETag"))),
    }
}

/// Whether the upload may be complete although the answer says otherwise.
fn is_doubtful(fault: &Fault) -> bool {
    match fault {
        Fault::Refused(refusal) => refusal.status == 404 && refusal.code == "NoSuchUpload",
        Fault::Nonsense(_) => true,
        Fault::Broken(_) | Fault::Silent | Fault::Local(_) => false,
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        let (wire, path, id) = (Arc::clone(&self.wire), self.path.clone(), std::mem::take(&mut self.id));
        let abort = async move {
            let attempt = || wire.send(&path, Command::AbortMultipartUpload { upload_id: &id });
            if let Err(fault) = Patience::small(&wire.settings().timeouts).run(attempt).await
                && fault.refusal().is_none_or(|refusal| refusal.status != 404)
            {
                log::warn!(
                    "an upload in parts could not be aborted and takes room until it is key={path} cause={fault}"
                );
            }
        };
        // The caller waits for its answer, or is gone: neither is held up. Without a runtime the
        // process is ending.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            drop(runtime.spawn(Behalf::current().scope(abort)));
        }
    }
}

/// Ranges of equal size, at least `part_size`, larger when there would be too many.
fn part_ranges(size: u64, part_size: u64) -> Result<impl Iterator<Item = Range<u64>>> {
    let part_size = part_size.max(size.div_ceil(PARTS_MAX));
    if part_size > PART_BYTES_MAX {
        return Err(Error::new(Kind::TooLarge, "the content is larger than S3 can store in one object"));
    }
    let count = size.div_ceil(part_size);
    Ok((0..count).map(move |n| n * part_size..size.min((n + 1) * part_size)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_everything_once_and_are_never_too_many() {
        let mib = 1 << 20;
        for (size, part_size, count) in [
            (16 * mib, 8 * mib, 2),
            (16 * mib + 1, 8 * mib, 3),
            (80_000 * mib, 8 * mib, 10_000),
            (80_000 * mib + 1, 8 * mib, 10_000),
            (5 << 40, 8 * mib, 10_000),
        ] {
            let ranges: Vec<_> = part_ranges(size, part_size).unwrap().collect();
            assert_eq!(ranges.len(), count, "{size}");
            assert_eq!(ranges[0].start, 0);
            assert_eq!(ranges[count - 1].end, size);
            assert!(ranges.windows(2).all(|pair| pair[0].end == pair[1].start));
            assert!(ranges[..count - 1].iter().all(|range| range.end - range.start >= part_size));
        }
        assert!(part_ranges(u64::MAX, 8 * mib).is_err());
    }
}
