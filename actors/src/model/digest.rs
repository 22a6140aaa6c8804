//! Identities of bytes: [`Digest`] names a content, [`BlobHash`] checks stored bytes.

use std::fmt;
use std::str::FromStr;

/// SHA-256 of the *logical* (uncompressed) bytes of a content: its name in the store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

/// BLAKE3 of the bytes as they are *stored* (after encoding): checked on every full read.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobHash([u8; 32]);

/// The text was not exactly 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParseDigestError;

impl fmt::Display for ParseDigestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected 64 hexadecimal digits")
    }
}

impl std::error::Error for ParseDigestError {}

macro_rules! hash_newtype {
    ($name:ident) => {
        impl $name {
            /// Wraps 32 raw bytes.
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The 32 raw bytes.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// Wraps a slice; `None` unless it is exactly 32 bytes long.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        /// Accepts either letter case; everything but 64 hexadecimal digits is refused.
        impl FromStr for $name {
            type Err = ParseDigestError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let mut bytes = [0; 32];
                hex::decode_to_slice(text, &mut bytes).map_err(|_| ParseDigestError)?;
                Ok(Self(bytes))
            }
        }
    };
}

hash_newtype!(Digest);
hash_newtype!(BlobHash);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_reads_either_case_and_prints_lower() {
        let upper = "AB".repeat(32);
        let digest: Digest = upper.parse().unwrap();
        assert_eq!(digest.to_string(), "ab".repeat(32));
    }

    #[test]
    fn digest_refuses_other_lengths_and_letters() {
        for bad in ["", "ab", &"g".repeat(64), &"a".repeat(63), &"a".repeat(65), "../../etc/passwd"] {
            assert_eq!(bad.parse::<Digest>(), Err(ParseDigestError), "{bad:?}");
        }
    }
}
