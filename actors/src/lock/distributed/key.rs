//! The two numbers by which the database knows the lock of a content.

use crate::model::Digest;

/// The keys of one content.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct LockKey {
    /// Who holds this one holds the content's lock.
    pub(super) lock: i64,
    /// Who holds this one is first in line for the other.
    pub(super) first: i64,
}

impl LockKey {
    /// The keys of a content of a bucket; every instance comes to the same ones.
    pub fn new(bucket: &str, digest: &Digest) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(bucket.as_bytes()).update(&[0]).update(digest.as_bytes());
        let hash = hasher.finalize();
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, ..] = *hash.as_bytes();
        Self { lock: i64::from_be_bytes([a, b, c, d, e, f, g, h]), first: i64::from_be_bytes([i, j, k, l, m, n, o, p]) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_told_apart_by_bucket_and_digest_and_never_change() {
        let digest = Digest::from_bytes([7; 32]);
        let key = LockKey::new("bucket", &digest);
        assert_eq!(key, LockKey::new("bucket", &digest));
        assert_ne!(key, LockKey::new("bucket2", &digest));
        assert_ne!(key, LockKey::new("bucket", &Digest::from_bytes([8; 32])));
        assert_ne!(key.lock, key.first);
        // Instances of other releases must come to the same keys.
        assert_eq!((key.lock, key.first), (-8_650_641_725_773_577_730, 1_805_071_344_998_592_687));
    }
}
