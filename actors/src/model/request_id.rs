//! What tells one request from all others.

use std::fmt;
use std::sync::Arc;

/// The longest id that is taken from a client.
const LENGTH_MAX: usize = 64;

/// The id of a request: 1 to 64 of `A-Za-z0-9._-`, fit for a header, a line of a log and a shell. Clones share it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// An id that somebody else gave; `None` when it could be anything but that.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
        if text.is_empty() || text.len() > LENGTH_MAX || !text.iter().all(is_plain) {
            return None;
        }
        std::str::from_utf8(text).ok().map(|text| Self(text.into()))
    }

    /// A new one.
    pub fn random() -> Self {
        Self(format!("{:016x}", rand::random::<u64>()).into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RequestId({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_ids_are_taken() {
        for fine in ["a", "A-Z_09.x", &"x".repeat(64), "01J9Z3K8-4f2a"] {
            assert_eq!(RequestId::parse(fine.as_bytes()).unwrap().as_str(), fine);
        }
        for odd in ["", "a b", "a\nb", "a\"b", "ż", "a/b", "a,b", "a;b", "a=b", "\x1b[2J", &"x".repeat(65)] {
            assert_eq!(RequestId::parse(odd.as_bytes()), None, "{odd:?}");
        }
        assert_eq!(RequestId::parse(b"\xff"), None);
    }

    #[test]
    fn new_ids_differ_and_would_be_taken() {
        let (one, other) = (RequestId::random(), RequestId::random());
        assert_ne!(one, other);
        assert_eq!(RequestId::parse(one.as_str().as_bytes()), Some(one));
    }
}
