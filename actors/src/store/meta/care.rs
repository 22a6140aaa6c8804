//! Looking metadata over and putting them right: what `s3dedup verify`, `repair`, `export` and `import` need
//! and no server does.

use async_trait::async_trait;

use super::{IntentId, MetaStore, NewIntent, StoredContent, Totals};
use crate::model::{BlobKey, Digest, EntryKey, Result, Stamp, StoredBlob};

/// The time since which held contents are unused: later than any time.
pub(super) const HELD: Stamp = Stamp::from_seconds(i64::MAX);

/// Why an object is in quarantine that an upload of its content replaced.
pub(super) const HEALED: &str = "it was found missing or damaged, and its content was uploaded anew";

/// Rows that contradict each other.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Finding {
    /// The number of references of a content is noted wrong.
    WrongCount {
        /// The content.
        digest: Digest,
        /// What is noted.
        stored: u64,
        /// How many names hold it.
        counted: u64,
    },
    /// A content without a reference is noted to have one, so that it would never be cleaned.
    NotMarkedUnused {
        /// The content.
        digest: Digest,
    },
    /// Names hold a content that is unknown.
    UnknownContent {
        /// The content.
        digest: Digest,
    },
    /// A content is known, but not where its bytes are.
    NoRepresentation {
        /// The content.
        digest: Digest,
    },
    /// It is known where the bytes of a content are, but not the content.
    StrayRepresentation {
        /// The content.
        digest: Digest,
        /// Where its bytes are.
        key: BlobKey,
    },
}

impl Finding {
    /// The content it is about.
    pub fn digest(&self) -> Digest {
        match *self {
            Self::WrongCount { digest, .. }
            | Self::NotMarkedUnused { digest }
            | Self::UnknownContent { digest }
            | Self::NoRepresentation { digest }
            | Self::StrayRepresentation { digest, .. } => digest,
        }
    }
}

/// The metadata at one moment, looked over.
#[derive(Clone, Default, Debug)]
pub struct Audit {
    /// What contradicts itself, up to the number asked for.
    pub findings: Vec<Finding>,
    /// How many more there are.
    pub left_off: u64,
    /// What cannot be read, up to the number asked for.
    pub unreadable: Vec<Unreadable>,
    /// Whether some rows were not reached at all, so that nothing was counted to its end.
    pub is_cut: bool,
    /// Totals as they are noted.
    pub noted: AuditTotals,
    /// Totals as they are counted.
    pub counted: AuditTotals,
}

impl Audit {
    /// Notes what cannot be read.
    pub(super) fn unreadable(&mut self, findings_max: usize, place: String, why: impl ToString) {
        if self.unreadable.len() < findings_max {
            self.unreadable.push(Unreadable { place, why: why.to_string() });
        } else {
            self.left_off += 1;
        }
    }
}

/// A row, or a part of the database, that is not what was written.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Unreadable {
    /// Where it is: the table, and what tells the row from others.
    pub place: String,
    /// What is wrong with it.
    pub why: String,
}

impl Unreadable {
    /// The rows of a content.
    pub(super) fn content(digest: &[u8], why: impl ToString) -> Self {
        Self { place: format!("{CONTENTS}{}", hex::encode(digest)), why: why.to_string() }
    }

    /// The content that they are the rows of, if it is known which.
    pub fn digest(&self) -> Option<Digest> {
        self.place.strip_prefix(CONTENTS)?.parse().ok()
    }
}

/// What the place of a content's rows begins with.
const CONTENTS: &str = "contents ";

/// A page of contents, however damaged they are.
#[derive(Clone, Default, Debug)]
pub struct Survey {
    /// Those that can be read, by digest.
    pub contents: Vec<StoredContent>,
    /// Rows among them that cannot be read.
    pub unreadable: Vec<Unreadable>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<Vec<u8>>,
}

/// [`Totals`] that may be as wrong as they are noted.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[expect(missing_docs, reason = "the names are those of the totals")]
pub struct AuditTotals {
    pub entries: i64,
    pub contents: i64,
    pub logical_bytes: i64,
    pub stored_bytes: i64,
}

impl From<Totals> for AuditTotals {
    fn from(totals: Totals) -> Self {
        let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        Self {
            entries: signed(totals.entries),
            contents: signed(totals.contents),
            logical_bytes: signed(totals.logical_bytes),
            stored_bytes: signed(totals.stored_bytes),
        }
    }
}

/// A name with what it holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NamedContent {
    /// The name.
    pub key: EntryKey,
    /// Its version.
    pub stamp: Stamp,
    /// What it holds.
    pub digest: Digest,
    /// The size of that in bytes; `None` when the content is unknown, which is damage.
    pub logical_size: Option<u64>,
}

/// An object that proved to hold a content is to become the one that is read.
#[derive(Clone, Debug)]
pub struct SetBlob {
    /// The object.
    pub blob: StoredBlob,
    /// The size of the content in bytes.
    pub logical_size: u64,
    /// Where the bytes were until now; `None` when that was not known.
    pub expected: Option<BlobKey>,
    /// The intent the object was uploaded under, if it is new.
    pub intent: Option<IntentId>,
    /// How many names hold the content, where it is unknown: who sets it is alone, so the number stays true. A store that
    /// does not keep numbers does without.
    pub references: u64,
    /// Why the former object is put into quarantine.
    pub reason: String,
}

/// The answer to [`SetBlob`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SetOutcome {
    /// The object is the content's now.
    Set,
    /// The content's bytes are elsewhere than was expected: nothing was changed.
    Moved,
    /// The object is given up to cleaning, is in quarantine, or its intent does not stand: nothing was changed.
    Refused,
}

/// The answer to [`MetaCare::restore`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Restored {
    /// The name holds the content now.
    Held,
    /// The name has a newer version, or another content of the same one, which stays.
    Newer,
    /// The content has no row: nothing was changed.
    Unknown,
}

/// An object that nobody may use or delete.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Quarantined {
    /// The object.
    pub key: BlobKey,
    /// Why.
    pub reason: String,
    /// Since when.
    pub since: Stamp,
}

/// A store of metadata that can be looked over and put right.
#[async_trait]
pub trait MetaCare: MetaStore {
    /// Looks everything over as it is at one moment, however long that takes, in memory that does not grow with
    /// the store. At most `findings_max` findings are told. Rows that cannot be read are told, too.
    async fn audit(&self, findings_max: usize) -> Result<Audit>;

    /// Names that hold one of the contents, at most `each_max` for each.
    async fn holders(&self, digests: Vec<Digest>, each_max: usize) -> Result<Vec<(Digest, EntryKey)>>;

    /// Names with what they hold, in the order of namespaces and names, after the name `after`.
    async fn names(&self, after: Option<EntryKey>, rows: usize) -> Result<Vec<NamedContent>>;

    /// Makes a name hold a content again. That is not asked to be readable: an upload or a repair may bring it back, for
    /// all its names. May be repeated.
    async fn restore(&self, key: EntryKey, stamp: Stamp, digest: Digest) -> Result<Restored>;

    /// How many names hold each of these contents.
    async fn references(&self, digests: Vec<Digest>) -> Result<Vec<u64>>;

    /// Counts the references of these contents anew.
    async fn recount(&self, digests: Vec<Digest>) -> Result<()>;

    /// Makes the totals what they count.
    async fn recount_totals(&self) -> Result<()>;

    /// An upload intent for a content whose bytes are to be replaced, or which is unknown. Its generation is above
    /// all that the content has had.
    async fn begin_replacement(&self, digest: Digest, intent: NewIntent) -> Result<(IntentId, BlobKey)>;

    /// Makes an object the one that is read for its content; a content that is unknown becomes known, without
    /// references, and is held: its name may be still to come, so it is not cleaned until it had one. Another object
    /// that was the content's before is put into quarantine.
    async fn set_blob(&self, set: SetBlob) -> Result<SetOutcome>;

    /// Ends the hold of up to `rows` contents that never had a name: they are unused from now on. Returns how many.
    async fn release_held(&self, rows: usize) -> Result<u64>;

    /// Puts an object into quarantine: it is not deleted and never becomes the object of a content again. Where it
    /// is a content's object it stays that until the content is uploaded anew, see
    /// [`note_damaged`](MetaStore::note_damaged). One beyond
    /// [`GENERATION_OF_ORPHAN_MAX`](super::GENERATION_OF_ORPHAN_MAX) needs no quarantine.
    async fn quarantine(&self, key: BlobKey, reason: String) -> Result<()>;

    /// Objects in quarantine, by digest and generation, after `after`.
    async fn list_quarantined(&self, after: Option<BlobKey>, rows: usize) -> Result<Vec<Quarantined>>;

    /// Takes an object out of quarantine: it is what it was before. `false` when it was not there. What
    /// [`note_damaged`](MetaStore::note_damaged) noted of it is taken back in any case.
    async fn lift_quarantine(&self, key: BlobKey) -> Result<bool>;

    /// Condemns an object in quarantine, so that the cleaner deletes it. Only when its content has the object `instead`,
    /// which is not in quarantine; otherwise nothing is changed and the answer is `false`.
    async fn condemn_quarantined(&self, key: BlobKey, instead: BlobKey) -> Result<bool>;

    /// Sees to it that no later upload has this generation or a lower one.
    async fn spend_generation(&self, generation: u64) -> Result<()>;
}
