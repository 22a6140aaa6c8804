//! Opening an object: exactly the promised number of bytes, or an error in the stream.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE};
use reqwest::{Response, StatusCode};
use s3::command::Command;

use super::S3Store;
use super::fault::Fault;
use super::retry::Patience;
use crate::model::{Error, Kind, Result};
use crate::store::blob::BlobReader;

impl S3Store {
    /// Opens an object; `None` when S3 says that there is no such key.
    pub(super) async fn open_object(&self, path: &str, range: Option<Range<u64>>) -> Result<Option<BlobReader>> {
        if let Some(range) = &range
            && range.start >= range.end
        {
            // HTTP has no empty ranges: all there is to tell is whether the object exists.
            let exists = self.head(path).await?.is_some();
            return Ok(exists.then(|| BlobReader { size: 0, stream: stream::empty().boxed() }));
        }
        let wire = self.wire();
        let attempt = || {
            let command = match &range {
                // rust-s3 and HTTP count the last byte in.
                Some(range) => Command::GetObjectRange { start: range.start, end: Some(range.end - 1) },
                None => Command::GetObject,
            };
            wire.send(path, command)
        };
        let response = match Patience::small(&wire.settings().timeouts).run(attempt).await {
            Ok(response) => response,
            Err(fault) => return self.not_opened(path, fault),
        };
        let size = promised(&response, range)?;
        let pieces = response.bytes_stream().map(|piece| piece.map_err(Fault::Broken)).boxed();
        let stream = exactly(size, wire.settings().timeouts.idle, path.to_owned(), pieces);
        Ok(Some(BlobReader { size, stream }))
    }

    fn not_opened(&self, path: &str, fault: Fault) -> Result<Option<BlobReader>> {
        match fault.refusal() {
            Some(refusal) if refusal.is_absent() => Ok(None),
            Some(refusal) if refusal.status == 416 => {
                Err(Error::new(Kind::Corrupt, "a stored object is shorter than it should be")
                    .with_source(format!("s3 get {path}: {refusal}")))
            }
            _ => Err(fault.into_error(&format!("get {path}"))),
        }
    }
}

/// The length of the body, after a check that it is the body that was asked for.
fn promised(response: &Response, range: Option<Range<u64>>) -> Result<u64> {
    let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
    let strange = |what: &str| Fault::Nonsense(what.to_owned()).into_error("get");
    let size = header(CONTENT_LENGTH).and_then(|value| value.parse().ok());
    let size: u64 = size.ok_or_else(|| strange("an object comes without Content-Length"))?;
    let Some(range) = range else {
        return if response.status() == StatusCode::OK { Ok(size) } else { Err(strange("an object comes in part")) };
    };
    let expected = format!("bytes {}-{}/", range.start, range.end - 1);
    if response.status() != StatusCode::PARTIAL_CONTENT {
        return Err(strange("the server ignores ranges"));
    }
    if size != range.end - range.start || !header(CONTENT_RANGE).is_some_and(|value| value.starts_with(&expected)) {
        return Err(Error::new(Kind::Corrupt, "a stored object is shorter than it should be"));
    }
    Ok(size)
}

/// Passes `pieces` on until there were `size` bytes; anything else, and a gap of `idle`, is an error
/// that ends the stream.
fn exactly(
    size: u64,
    idle: Duration,
    path: String,
    pieces: BoxStream<'static, Result<Bytes, Fault>>,
) -> BoxStream<'static, Result<Bytes>> {
    let state = Some((pieces, size, path));
    let checked = stream::unfold(state, move |state| async move {
        let (mut pieces, left, path) = state?;
        let fault = match tokio::time::timeout(idle, pieces.next()).await {
            Ok(Some(Ok(piece))) if piece.len() as u64 <= left => {
                let left = left - piece.len() as u64;
                return Some((Ok(piece), Some((pieces, left, path))));
            }
            Ok(None) if left == 0 => return None,
            Ok(Some(Ok(_))) => Fault::Nonsense("more bytes than promised".to_owned()),
            Ok(None) => Fault::Nonsense(format!("{left} bytes fewer than promised")),
            Ok(Some(Err(fault))) => fault,
            Err(_) => Fault::Silent,
        };
        Some((Err(fault.into_error(&format!("get {path}"))), None))
    });
    checked.boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn outcome(size: u64, pieces: Vec<Result<Bytes, Fault>>) -> (usize, bool) {
        let pieces = stream::iter(pieces).chain(stream::pending()).take(3).boxed();
        let all: Vec<_> = exactly(size, Duration::from_secs(1), "k".into(), pieces).collect().await;
        let got = all.iter().flatten().map(Bytes::len).sum();
        (got, all.iter().all(Result::is_ok))
    }

    fn pieces(lens: [usize; 3]) -> Vec<Result<Bytes, Fault>> {
        lens.iter().map(|len| Ok(Bytes::from(vec![0; *len]))).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_promised_length_is_good() {
        assert_eq!(outcome(6, pieces([1, 2, 3])).await, (6, true));
        assert_eq!(outcome(7, pieces([1, 2, 3])).await, (6, false));
        assert_eq!(outcome(5, pieces([1, 2, 3])).await, (3, false));
    }

    #[tokio::test(start_paused = true)]
    async fn a_gap_ends_the_stream_with_an_error() {
        assert_eq!(outcome(6, vec![Ok(Bytes::from_static(b"abc"))]).await, (3, false));
    }
}
