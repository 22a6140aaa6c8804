//! How the bytes of a content are kept, apart from what the content is.

use std::fmt;
use std::str::FromStr;

use super::{BlobHash, Digest};

/// How stored bytes turn into logical bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Encoding {
    /// One or more gzip members (RFC 1952).
    Gzip,
}

impl Encoding {
    /// The name used in object metadata and in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
        }
    }
}

impl FromStr for Encoding {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "gzip" => Ok(Self::Gzip),
            other => Err(format!("unknown encoding {other:?}")),
        }
    }
}

/// How keys are spread over prefixes: `depth` leading components of two hex digits each.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct KeyLayout {
    depth: u8,
}

impl KeyLayout {
    /// The deepest layout.
    pub const DEPTH_MAX: u8 = 8;

    /// A layout with `depth` components (0 is flat), capped at [`KeyLayout::DEPTH_MAX`].
    pub const fn new(depth: u8) -> Self {
        let depth = if depth > Self::DEPTH_MAX { Self::DEPTH_MAX } else { depth };
        Self { depth }
    }

    /// The number of leading components.
    pub const fn depth(self) -> u8 {
        self.depth
    }
}

/// The name of one stored object: `ab/cd/<sha256>` for generation 0, `ab/cd/<sha256>.<n>` after.
///
/// A generation is used for one upload only, so a late delete of an old one cannot hit a new one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct BlobKey {
    /// The content.
    pub digest: Digest,
    /// Which upload of the content this is.
    pub generation: u64,
    /// The layout in force when it was uploaded: kept, so that a changed setting loses nothing.
    pub layout: KeyLayout,
}

impl fmt::Display for BlobKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digest = self.digest.to_string();
        for component in 0..usize::from(self.layout.depth) {
            write!(f, "{}/", &digest[component * 2..component * 2 + 2])?;
        }
        f.write_str(&digest)?;
        if self.generation > 0 {
            write!(f, ".{}", self.generation)?;
        }
        Ok(())
    }
}

impl FromStr for BlobKey {
    type Err = String;

    /// Reads a name back; anything that [`BlobKey`] would not print itself is refused.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = || format!("{text:?} is not the name of a stored object");
        let depth = text.matches('/').count();
        let last = text.rsplit('/').next().unwrap_or(text);
        let (digest, generation) = match last.split_once('.') {
            // No larger one was ever given, and no database could hold it.
            Some((digest, generation)) => (
                digest,
                generation.parse::<i64>().ok().and_then(|number| u64::try_from(number).ok()).ok_or_else(refuse)?,
            ),
            None => (last, 0),
        };
        let key = Self {
            digest: digest.parse().map_err(|_| refuse())?,
            generation,
            layout: KeyLayout::new(u8::try_from(depth).map_err(|_| refuse())?),
        };
        if key.to_string() == text { Ok(key) } else { Err(refuse()) }
    }
}

/// What every stored object says of itself, so that lost metadata can be rebuilt from the objects.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlobInfo {
    /// The content.
    pub digest: Digest,
    /// Size of the content in bytes, uncompressed.
    pub logical_size: u64,
    /// How the stored bytes are encoded.
    pub encoding: Encoding,
    /// Size of the object in bytes.
    pub stored_size: u64,
    /// BLAKE3 of the object's bytes.
    pub stored_hash: BlobHash,
}

/// One object that holds a whole content.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StoredBlob {
    /// Its name in the content store.
    pub key: BlobKey,
    /// How its bytes are encoded.
    pub encoding: Encoding,
    /// Its size in bytes.
    pub stored_size: u64,
    /// BLAKE3 of its bytes.
    pub stored_hash: BlobHash,
}

/// How a content's bytes are kept. Later kinds (chunks, deltas) become further variants.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Recipe {
    /// In one object.
    Whole(StoredBlob),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(generation: u64, depth: u8) -> BlobKey {
        BlobKey { digest: "ab".repeat(32).parse().unwrap(), generation, layout: KeyLayout::new(depth) }
    }

    #[test]
    fn names_follow_layout_and_generation() {
        let hex = "ab".repeat(32);
        assert_eq!(key(0, 2).to_string(), format!("ab/ab/{hex}"));
        assert_eq!(key(0, 0).to_string(), hex);
        assert_eq!(key(7, 1).to_string(), format!("ab/{hex}.7"));
    }

    #[test]
    fn names_read_back_and_strangers_are_refused() {
        for (generation, depth) in [(0, 0), (0, 2), (3, 2), (12, 8)] {
            let key = key(generation, depth);
            assert_eq!(key.to_string().parse(), Ok(key));
        }
        let hex = "ab".repeat(32);
        for stranger in [
            format!("{hex}.9223372036854775808"),
            format!("{hex}.-1"),
            format!("cd/ab/{hex}"),
            format!("{hex}.0"),
            format!("{hex}.01"),
            "x".into(),
            format!("/{hex}"),
        ] {
            assert!(stranger.parse::<BlobKey>().is_err(), "{stranger}");
        }
    }
}
