//! What an object says of itself: user metadata on the object.

use reqwest::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue};

use crate::model::{BlobInfo, Error, Kind, Result};

const SHA256: HeaderName = HeaderName::from_static("x-amz-meta-sha256");
const LOGICAL_SIZE: HeaderName = HeaderName::from_static("x-amz-meta-logical-size");
const ENCODING: HeaderName = HeaderName::from_static("x-amz-meta-encoding");
const BLAKE3: HeaderName = HeaderName::from_static("x-amz-meta-blake3");

/// The headers that describe an object. The encoding is not told as Content-Encoding: servers and
/// proxies on the way would act on it.
pub(super) fn to_headers(info: &BlobInfo) -> Result<HeaderMap> {
    let text = |value: String| {
        HeaderValue::from_str(&value)
            .map_err(|error| Error::new(Kind::Internal, "an object cannot be described").with_source(error))
    };
    let mut headers = HeaderMap::new();
    headers.insert(SHA256, text(info.digest.to_string())?);
    headers.insert(LOGICAL_SIZE, info.logical_size.into());
    headers.insert(ENCODING, HeaderValue::from_static(info.encoding.as_str()));
    headers.insert(BLAKE3, text(info.stored_hash.to_string())?);
    Ok(headers)
}

/// Reads the description back; the stored size is the length of the body.
pub(super) fn from_headers(headers: &HeaderMap) -> Result<BlobInfo> {
    Ok(BlobInfo {
        digest: read(headers, &SHA256)?,
        logical_size: read(headers, &LOGICAL_SIZE)?,
        encoding: read(headers, &ENCODING)?,
        stored_size: read(headers, &CONTENT_LENGTH)?,
        stored_hash: read(headers, &BLAKE3)?,
    })
}

fn read<T: std::str::FromStr>(headers: &HeaderMap, name: &HeaderName) -> Result<T> {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    value.and_then(|value| value.trim().parse().ok()).ok_or_else(|| {
        Error::new(Kind::Corrupt, "a stored object does not describe itself")
            .with_source(format!("header {name} is missing or unreadable"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{BlobHash, Digest, Encoding};

    fn info() -> BlobInfo {
        BlobInfo {
            digest: Digest::from_bytes([1; 32]),
            logical_size: u64::MAX,
            encoding: Encoding::Gzip,
            stored_size: 7,
            stored_hash: BlobHash::from_bytes([2; 32]),
        }
    }

    fn headers() -> HeaderMap {
        let mut headers = to_headers(&info()).unwrap();
        headers.insert(CONTENT_LENGTH, 7.into());
        headers
    }

    #[test]
    fn a_description_reads_back() {
        assert_eq!(from_headers(&headers()).unwrap(), info());
    }

    #[test]
    fn a_missing_or_unreadable_description_is_corruption() {
        for name in [SHA256, LOGICAL_SIZE, ENCODING, BLAKE3, CONTENT_LENGTH] {
            let mut missing = headers();
            missing.remove(&name);
            assert_eq!(from_headers(&missing).unwrap_err().kind(), Kind::Corrupt);
            let mut broken = headers();
            broken.insert(&name, HeaderValue::from_static("nothing of ours"));
            assert_eq!(from_headers(&broken).unwrap_err().kind(), Kind::Corrupt);
        }
    }
}
