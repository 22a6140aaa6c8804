//! What the S3 store has to be told.

use std::fmt;
use std::time::Duration;

use crate::model::{Error, Kind, Result};

/// The smallest part S3 allows, except for the last one.
pub const PART_BYTES_MIN: u64 = 5 << 20;
/// The largest part S3 allows.
pub const PART_BYTES_MAX: u64 = 5 << 30;

/// Where the bucket is and how to talk to it.
#[derive(Clone)]
pub struct S3Settings {
    /// The server's URL, `http://` or `https://`.
    pub endpoint: String,
    /// The bucket; it must exist.
    pub bucket: String,
    /// The key id.
    pub access_key: String,
    /// The secret key.
    pub secret_key: String,
    /// The region that signatures name; it must be the server's.
    pub region: String,
    /// `endpoint/bucket/key` instead of `bucket.endpoint/key`.
    pub force_path_style: bool,
    /// Up to this size an object is one request; above, parts of at least this size.
    pub part_size: u64,
    /// Parts of one object that are sent at once.
    pub parts_in_flight: usize,
    /// Hash every body before it is sent, so that the server refuses what was damaged on its way. It
    /// takes about a second of processor time per GiB here and as much in the server; over
    /// `https://` the line is protected anyway.
    pub sign_payloads: bool,
    /// Limits on waiting.
    pub timeouts: S3Timeouts,
}

/// How long the store waits, and how often it tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct S3Timeouts {
    /// For a connection.
    pub connect: Duration,
    /// For the whole of a small request with all its retries, for the head of a download, or for
    /// an upload that does not move.
    pub request: Duration,
    /// Between two pieces of a download, and for a server to assemble an object from its parts.
    pub idle: Duration,
    /// An attempt of an upload gets [`request`](Self::request) plus its size at this rate, in bytes
    /// per second, as long as it moves.
    pub upload_rate_min: u64,
    /// How often one request is tried.
    pub tries: u32,
}

impl Default for S3Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(2),
            request: Duration::from_secs(4),
            idle: Duration::from_secs(30),
            upload_rate_min: 1 << 20,
            tries: 6,
        }
    }
}

impl S3Settings {
    /// Settings with the defaults of everything that has one.
    pub fn new(endpoint: &str, bucket: &str, access_key: &str, secret_key: &str, region: &str) -> Self {
        Self {
            endpoint: endpoint.to_owned(),
            bucket: bucket.to_owned(),
            access_key: access_key.to_owned(),
            secret_key: secret_key.to_owned(),
            region: region.to_owned(),
            force_path_style: true,
            part_size: 8 << 20,
            parts_in_flight: 2,
            sign_payloads: !endpoint.starts_with("https://"),
            timeouts: S3Timeouts::default(),
        }
    }

    /// Refuses what could never work.
    pub(super) fn check(&self) -> Result<()> {
        let refuse = |what: &str| Err(Error::new(Kind::Invalid, what));
        if !self.endpoint.starts_with("http://") && !self.endpoint.starts_with("https://") {
            return refuse("the S3 endpoint must start with http:// or https://");
        }
        for (value, what) in [
            (&self.bucket, "the S3 bucket is empty"),
            (&self.access_key, "the S3 access key is empty"),
            (&self.secret_key, "the S3 secret key is empty"),
            (&self.region, "the S3 region is empty"),
        ] {
            if value.is_empty() {
                return refuse(what);
            }
        }
        if !(PART_BYTES_MIN..=PART_BYTES_MAX).contains(&self.part_size) {
            return refuse("the S3 part size must be from 5 MiB to 5 GiB");
        }
        if self.parts_in_flight == 0 || self.timeouts.tries == 0 || self.timeouts.upload_rate_min == 0 {
            return refuse("S3 parts in flight, tries and upload rate must be at least 1");
        }
        Ok(())
    }
}

/// Everything but the keys.
impl fmt::Debug for S3Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Settings")
            .field("endpoint", &self.endpoint)
            .field("bucket", &self.bucket)
            .field("access_key", &"***")
            .field("secret_key", &"***")
            .field("region", &self.region)
            .field("force_path_style", &self.force_path_style)
            .field("part_size", &self.part_size)
            .field("parts_in_flight", &self.parts_in_flight)
            .field("sign_payloads", &self.sign_payloads)
            .field("timeouts", &self.timeouts)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> S3Settings {
        S3Settings::new("http://127.0.0.1:1", "bucket", "GKabcdef", "5ec4e7", "garage")
    }

    #[test]
    fn keys_are_never_printed() {
        let printed = format!("{:?}", settings());
        assert!(!printed.contains("GKabcdef") && !printed.contains("5ec4e7"), "{printed}");
    }

    #[test]
    fn impossible_settings_are_refused() {
        assert!(settings().check().is_ok());
        for broken in [
            S3Settings { endpoint: "localhost:3900".into(), ..settings() },
            S3Settings { secret_key: String::new(), ..settings() },
            S3Settings { part_size: PART_BYTES_MIN - 1, ..settings() },
            S3Settings { parts_in_flight: 0, ..settings() },
        ] {
            assert_eq!(broken.check().unwrap_err().kind(), Kind::Invalid);
        }
    }
}
