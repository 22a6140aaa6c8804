//! Entries: names and what they point at.

use std::fmt;

use super::{Digest, Recipe, Stamp};

/// The longest name an entry may have, in bytes of UTF-8.
pub const NAME_BYTES_MAX: usize = 4096;

/// A separate set of names. Filetracker has one; each bucket of a later front end gets its own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Namespace(u32);

impl Namespace {
    /// The one namespace of the Filetracker protocol.
    pub const FILETRACKER: Self = Self(1);

    /// The namespace with this number.
    pub const fn from_id(id: u32) -> Self {
        Self(id)
    }

    /// The number under which metadata stores keep it.
    pub const fn id(self) -> u32 {
        self.0
    }
}

/// The validated name of an entry: `a/b/c`, no leading, trailing or double slash, no `.` or `..`
/// component, no control characters, at most [`NAME_BYTES_MAX`] bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct EntryKey {
    namespace: Namespace,
    name: String,
}

/// Why a name was refused; the text is fit for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidName {
    /// No component is left.
    Empty,
    /// Longer than [`NAME_BYTES_MAX`].
    TooLong,
    /// A component is `.` or `..`.
    DotComponent,
    /// A NUL or another control character, which would break listings.
    ControlCharacter,
    /// The bytes are no UTF-8.
    NotUtf8,
}

impl fmt::Display for InvalidName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("path is empty"),
            Self::TooLong => write!(f, "path is longer than {NAME_BYTES_MAX} bytes"),
            Self::DotComponent => f.write_str("path has a '.' or '..' component"),
            Self::ControlCharacter => f.write_str("path has a control character"),
            Self::NotUtf8 => f.write_str("path is not valid UTF-8"),
        }
    }
}

impl std::error::Error for InvalidName {}

impl EntryKey {
    /// Validates `raw` (percent-decoded bytes) and collapses runs of `/` and slashes at the ends.
    pub fn parse(namespace: Namespace, raw: &[u8]) -> Result<Self, InvalidName> {
        let name = Self::normalize(raw)?;
        if name.is_empty() {
            return Err(InvalidName::Empty);
        }
        Ok(Self { namespace, name })
    }

    /// The rules of [`EntryKey::parse`] for a prefix, which may be empty (everything).
    pub fn normalize(raw: &[u8]) -> Result<String, InvalidName> {
        let text = std::str::from_utf8(raw).map_err(|_| InvalidName::NotUtf8)?;
        if text.chars().any(char::is_control) {
            return Err(InvalidName::ControlCharacter);
        }
        let mut name = String::with_capacity(text.len());
        for component in text.split('/').filter(|component| !component.is_empty()) {
            if component == "." || component == ".." {
                return Err(InvalidName::DotComponent);
            }
            if !name.is_empty() {
                name.push('/');
            }
            name.push_str(component);
        }
        if name.len() > NAME_BYTES_MAX {
            return Err(InvalidName::TooLong);
        }
        Ok(name)
    }

    /// The namespace the name lives in.
    pub fn namespace(&self) -> Namespace {
        self.namespace
    }

    /// The name, without a leading slash.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// What a name points at, as one read of the metadata saw it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The version of the entry.
    pub stamp: Stamp,
    /// The content it holds.
    pub digest: Digest,
    /// Size of the content in bytes, uncompressed.
    pub logical_size: u64,
    /// How the content's bytes are kept.
    pub recipe: Recipe,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(raw: &[u8]) -> Result<String, InvalidName> {
        EntryKey::parse(Namespace::FILETRACKER, raw).map(|key| key.name().to_owned())
    }

    #[test]
    fn slashes_collapse() {
        assert_eq!(parse(b"//a///b//").unwrap(), "a/b");
    }

    #[test]
    fn odd_but_legal_names_are_kept() {
        for name in ["a..b", "...", "..;", "zażółć", "a b+%41", "@"] {
            assert_eq!(parse(name.as_bytes()).unwrap(), name);
        }
    }

    #[test]
    fn bad_names_are_refused_with_their_reason() {
        assert_eq!(parse(b""), Err(InvalidName::Empty));
        assert_eq!(parse(b"///"), Err(InvalidName::Empty));
        assert_eq!(parse(b"a/../b"), Err(InvalidName::DotComponent));
        assert_eq!(parse(b"./a"), Err(InvalidName::DotComponent));
        assert_eq!(parse(b"a\0b"), Err(InvalidName::ControlCharacter));
        assert_eq!(parse(b"a\nb"), Err(InvalidName::ControlCharacter));
        assert_eq!(parse("a\u{85}b".as_bytes()), Err(InvalidName::ControlCharacter));
        assert_eq!(parse(b"\xff"), Err(InvalidName::NotUtf8));
        assert_eq!(parse(&[b'a'; NAME_BYTES_MAX + 1]), Err(InvalidName::TooLong));
        assert!(parse(&[b'a'; NAME_BYTES_MAX]).is_ok());
    }
}
