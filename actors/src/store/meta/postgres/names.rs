//! Names as the database keeps them: an index row cannot hold the longest ones.

use sha2::{Digest as _, Sha256};

use crate::model::EntryKey;

/// So many characters of a name stand in the index as they are: at most 2,400 bytes. Characters and not
/// bytes, because a cut that depends on what stands there would not keep the order of names.
const INDEXED_CHARACTERS_MAX: usize = 600;

/// The columns of a name.
pub(super) struct StoredName<'a> {
    pub(super) namespace: i32,
    /// The first part of the name; all of it, unless it is very long.
    pub(super) name: &'a str,
    /// What follows.
    pub(super) rest: &'a str,
    /// SHA-256 of what follows; empty when nothing does.
    pub(super) rest_hash: Vec<u8>,
}

impl<'a> StoredName<'a> {
    pub(super) fn new(key: &'a EntryKey) -> Self {
        let (name, rest) = split(key.name());
        let rest_hash = if rest.is_empty() { Vec::new() } else { Sha256::digest(rest).to_vec() };
        Self { namespace: namespace(key.namespace()), name, rest, rest_hash }
    }
}

/// The number of a namespace as the database has it.
pub(super) fn namespace(namespace: crate::model::Namespace) -> i32 {
    // The same 32 bits: numbers are compared for equality only.
    namespace.id().cast_signed()
}

/// The two columns a text is kept in. Texts in their order have pairs in the same order.
pub(super) fn split(text: &str) -> (&str, &str) {
    let cut = text.char_indices().nth(INDEXED_CHARACTERS_MAX).map_or(text.len(), |(at, _)| at);
    text.split_at(cut)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_between_characters_and_keep_their_order() {
        let long = "a".repeat(INDEXED_CHARACTERS_MAX - 1);
        let ends = ["", "a", "ź", "aa", "aź", "źa", "zz", "z", "\u{10ffff}\u{10ffff}"];
        let mut texts: Vec<String> = ends.iter().map(|end| format!("{long}{end}")).collect();
        texts.extend(["a".into(), "ź".repeat(600), "ź".repeat(601), "\u{10ffff}".repeat(1024)]);
        let mut sorted = texts.clone();
        sorted.sort();
        let mut by_parts = texts.clone();
        by_parts.sort_by(|one, other| split(one).cmp(&split(other)));
        assert_eq!(by_parts, sorted);
        for text in &texts {
            let (name, rest) = split(text);
            assert_eq!(format!("{name}{rest}"), *text);
            assert!(name.len() <= 2400, "an index row holds no more than 2,704 bytes");
        }
    }
}
