//! What the headers of an upload say, checked before any byte of its body is read.

use actix_web::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, HeaderMap, TRANSFER_ENCODING};
use s3dedup_actors::model::Digest;
use s3dedup_actors::{BodyEncoding, Spooled};

use super::error::Failure;

/// Bodies up to this size are received without asking first whether they are wanted at all: that
/// question would cost more than the body.
const SMALL_BODY_BYTES_MAX: u64 = 64 * 1024;

/// What the client announces.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UploadHead {
    /// How the body is encoded.
    pub encoding: BodyEncoding,
    /// The digest the logical bytes should have.
    pub digest: Option<Digest>,
    /// The size the logical bytes should have.
    pub logical_size: Option<u64>,
    /// Whether the body is, or may be, large.
    pub large: bool,
}

impl UploadHead {
    /// Reads and validates the headers.
    pub fn parse(headers: &HeaderMap) -> Result<Self, Failure> {
        Ok(Self {
            encoding: encoding(headers)?,
            digest: parsed(headers, "SHA256-Checksum", "64 hexadecimal digits", |text| text.parse().ok())?,
            logical_size: parsed(headers, "Logical-Size", "a number of bytes", decimal)?,
            large: match headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.trim().parse::<u64>().ok()) {
                Some(length) => length > SMALL_BODY_BYTES_MAX,
                None => headers.contains_key(TRANSFER_ENCODING),
            },
        })
    }

    /// Compares what was announced with what came.
    pub fn verify(&self, spooled: &Spooled) -> Result<(), Failure> {
        if self.logical_size.is_some_and(|announced| announced != spooled.logical_size) {
            return Err(Failure::bad_request(format!(
                "Logical-Size does not match the body, which has {} bytes",
                spooled.logical_size
            )));
        }
        if self.digest.is_some_and(|announced| announced != spooled.digest) {
            return Err(Failure::bad_request("SHA256-Checksum does not match the body"));
        }
        Ok(())
    }
}

fn encoding(headers: &HeaderMap) -> Result<BodyEncoding, Failure> {
    let mut encoding = BodyEncoding::Plain;
    let unsupported = || Failure::unsupported_coding("Content-Encoding is not supported, expected gzip or none");
    for value in headers.get_all(CONTENT_ENCODING) {
        let text = value.to_str().map_err(|_| unsupported())?.trim().to_ascii_lowercase();
        encoding = match (text.as_str(), encoding) {
            ("" | "identity", encoding) => encoding,
            ("gzip" | "x-gzip", BodyEncoding::Plain) => BodyEncoding::Gzip,
            _ => return Err(unsupported()),
        };
    }
    Ok(encoding)
}

/// The value of a header that may be absent, but neither malformed nor given twice.
fn parsed<T>(
    headers: &HeaderMap,
    name: &'static str,
    expected: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, Failure> {
    let mut values = headers.get_all(name);
    let Some(value) = values.next() else { return Ok(None) };
    let good = value.to_str().ok().and_then(|text| parse(text.trim())).filter(|_| values.next().is_none());
    good.map(Some).ok_or_else(|| Failure::bad_request(format!("{name} is malformed, expected {expected}")))
}

fn decimal(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::{HeaderName, HeaderValue};

    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> Result<UploadHead, u16> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::try_from(*name).unwrap(), HeaderValue::from_str(value).unwrap());
        }
        UploadHead::parse(&headers).map_err(|failure| failure.status().as_u16())
    }

    #[test]
    fn codings() {
        for (value, encoding) in [
            ("", BodyEncoding::Plain),
            ("Identity", BodyEncoding::Plain),
            ("gzip", BodyEncoding::Gzip),
            (" GZIP ", BodyEncoding::Gzip),
            ("x-gzip", BodyEncoding::Gzip),
        ] {
            assert_eq!(parse(&[("content-encoding", value)]).unwrap().encoding, encoding, "{value}");
        }
        assert_eq!(parse(&[]).unwrap().encoding, BodyEncoding::Plain);
        for value in ["br", "gzip, gzip", "gzip;q=1", "deflate", "zstd"] {
            assert_eq!(parse(&[("content-encoding", value)]), Err(415), "{value}");
        }
        assert_eq!(parse(&[("content-encoding", "gzip"), ("content-encoding", "gzip")]), Err(415));
    }

    #[test]
    fn hints_are_optional_but_never_malformed() {
        let digest = "Ab".repeat(32);
        let head = parse(&[("sha256-checksum", &digest), ("logical-size", "0042")]).unwrap();
        assert_eq!((head.digest, head.logical_size), (digest.parse().ok(), Some(42)));
        for value in ["", "abc", "../../etc/passwd", &"g".repeat(64), &"a".repeat(65)] {
            assert_eq!(parse(&[("sha256-checksum", value)]), Err(400), "{value}");
        }
        for value in ["", "-1", "+1", "1.5", "0x10", "ten", "18446744073709551616"] {
            assert_eq!(parse(&[("logical-size", value)]), Err(400), "{value}");
        }
        assert_eq!(parse(&[("logical-size", "1"), ("logical-size", "1")]), Err(400));
    }

    #[test]
    fn large_means_large_or_unknown() {
        assert!(!parse(&[]).unwrap().large);
        assert!(!parse(&[("content-length", "65536")]).unwrap().large);
        assert!(parse(&[("content-length", "65537")]).unwrap().large);
        assert!(parse(&[("transfer-encoding", "chunked")]).unwrap().large);
    }
}
