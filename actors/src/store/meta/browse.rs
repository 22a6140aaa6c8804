//! Looking around in a metadata store, for people: nothing that serves a request.

use async_trait::async_trait;

use crate::model::{Digest, Namespace, Result, Stamp};

/// Which names to show.
#[derive(Clone, Debug)]
pub struct FilesPage {
    /// The namespace.
    pub namespace: Namespace,
    /// Only names that begin so.
    pub prefix: String,
    /// Only names after this one.
    pub after: Option<String>,
    /// At most so many.
    pub rows: usize,
}

/// A name and what it holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileRow {
    /// The name.
    pub name: String,
    /// Its version.
    pub stamp: Stamp,
    /// The content.
    pub digest: Digest,
    /// The content's size in bytes; `None` when it is not known, which is damage.
    pub logical_size: Option<u64>,
}

/// A content that several names hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SharedContent {
    /// The content.
    pub digest: Digest,
    /// How many names hold it.
    pub names: u64,
    /// Its size in bytes; `None` when it is not known, which is damage.
    pub logical_size: Option<u64>,
    /// The size of its object; the same.
    pub stored_size: Option<u64>,
}

/// Which contents are looked at, in the order of their digests.
#[derive(Clone, Copy, Debug)]
pub struct SharedPart {
    /// The part begins after this one; `None`: at the first.
    pub after: Option<Digest>,
    /// About how many rows the store looks at.
    pub looked_at: usize,
    /// How many are told at most.
    pub rows: usize,
}

/// What a part has.
#[derive(Clone, Debug)]
pub struct SharedPage {
    /// The most shared first, and of those alike in the order of their digests. What only one name holds is not shared.
    pub contents: Vec<SharedContent>,
    /// Where the next part begins; `None`: this one was the last.
    pub next: Option<Digest>,
}

/// What people ask a store. Every answer is bounded.
#[async_trait]
pub trait MetaBrowser: Send + Sync + 'static {
    /// One page of names, ascending by bytes: a range of an index.
    async fn files(&self, page: FilesPage) -> Result<Vec<FileRow>>;

    /// Names that hold a content, at most so many; which ones, and in what order, is up to the store.
    async fn names_of(&self, namespace: Namespace, digest: Digest, rows: usize) -> Result<Vec<String>>;

    /// The contents of a part of the store that most names hold. All parts together are the whole store: to be asked now
    /// and then only.
    async fn most_shared(&self, part: SharedPart) -> Result<SharedPage>;
}

/// The first text after all those that begin with `prefix`, in the order of bytes; `None` when there is none.
pub(super) fn end_of(prefix: &str) -> Option<String> {
    let mut end = prefix.to_owned();
    while let Some(last) = end.pop() {
        // Surrogates are no characters: the one after U+D7FF is U+E000.
        let next = (u32::from(last) + 1..=u32::from(char::MAX)).find_map(char::from_u32);
        if let Some(next) = next {
            end.push(next);
            return Some(end);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_before_the_next_text() {
        assert_eq!(end_of("a/"), Some("a0".into()));
        assert_eq!(end_of("ż"), Some("\u{17d}".into()));
        assert_eq!(end_of("a\u{d7ff}"), Some("a\u{e000}".into()));
        assert_eq!(end_of("a\u{10ffff}"), Some("b".into()));
        assert_eq!((end_of(""), end_of("\u{10ffff}")), (None, None));
    }
}
