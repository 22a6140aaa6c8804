//! Metadata stores: what names, contents and uploads there are.
//!
//! A method is a *whole transaction*, never a get or a set, so that no caller can read, think and
//! write back something stale. Every write may be repeated with the same arguments: the answer to
//! the first attempt can be lost on its way.

use std::time::Duration;

use async_trait::async_trait;

use crate::model::{BlobKey, Digest, Entry, EntryKey, KeyLayout, Namespace, Recipe, Result, Stamp, StoredBlob};

mod browse;
mod care;
mod journal;
mod mirror;
mod postgres;
mod sqlite;

pub use browse::{FileRow, FilesPage, MetaBrowser, SharedContent, SharedPage, SharedPart};
pub use care::{
    Audit, AuditTotals, Finding, MetaCare, NamedContent, Quarantined, Restored, SetBlob, SetOutcome, Survey, Unreadable,
};
pub use journal::{Fate, Migration, MigrationCounts, MigrationId, MigrationJournal, MigrationState, Trouble};
pub use mirror::{ClaimId, Claimed, KnownHere, Mark, MarkSummary, MirrorJournal, Origin, Settled};
pub use postgres::PostgresStore;
pub use sqlite::{SqliteSettings, SqliteStore};

/// Using or forgetting an object raises the generation of all later ones above its own. A stranger's made-up number must
/// not use all of them up: an object beyond this is never condemned and never becomes a content's, and leaves as many
/// numbers to uploads as they can ever need.
pub const GENERATION_OF_ORPHAN_MAX: u64 = BlobKey::GENERATION_MAX / 2;

/// No content, and no object of one, is larger, in bytes: a number above this in a row is damage.
const SIZE_MAX: i64 = 1 << 51;

/// The number of an upload intent.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct IntentId(pub i64);

/// A wish to let `key` hold a content.
#[derive(Clone, Debug)]
pub struct PlanPut {
    /// The name.
    pub key: EntryKey,
    /// Its wanted version.
    pub stamp: Stamp,
    /// The content.
    pub digest: Digest,
    /// The content's size in bytes.
    pub logical_size: u64,
    /// With `Some`, an unknown content gets an upload intent; with `None` nothing is written for it.
    pub intent: Option<NewIntent>,
    /// On whose behalf.
    pub origin: Origin,
}

/// Who would upload an unknown content, and where to.
#[derive(Clone, Debug)]
pub struct NewIntent {
    /// The instance that uploads.
    pub instance: String,
    /// The layout of the object's name.
    pub layout: KeyLayout,
}

/// The answer to [`PlanPut`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PutPlan {
    /// The stored version is newer (for a copy: as new, or newer); nothing was written.
    Stale {
        /// The version that stays.
        current: Stamp,
    },
    /// It is a copy of what was deleted here, in this version or a newer one; nothing was written.
    Deleted,
    /// The content was known: the name holds it now.
    Committed,
    /// The content is unknown and no intent was asked for; nothing was written.
    Missing,
    /// The content is unknown: upload it under `key`, then commit.
    Upload {
        /// The intent to commit with.
        intent: IntentId,
        /// The name of the object; used by this intent only.
        key: BlobKey,
    },
}

/// The end of an upload.
#[derive(Clone, Debug)]
pub struct CommitPut {
    /// The name.
    pub key: EntryKey,
    /// Its wanted version.
    pub stamp: Stamp,
    /// The content's size in bytes.
    pub logical_size: u64,
    /// The intent the object was uploaded under.
    pub intent: IntentId,
    /// The uploaded object.
    pub blob: StoredBlob,
    /// On whose behalf.
    pub origin: Origin,
}

/// The answer to [`CommitPut`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PutCommit {
    /// The name holds the content now.
    Committed,
    /// A newer version came in meanwhile and stays. The content is stored, without a reference.
    Stale {
        /// The version that stays.
        current: Stamp,
    },
    /// It is a copy of what was deleted here meanwhile. Nothing was written; the object is left to its intent.
    Deleted,
    /// The intent was withdrawn (the upload took too long) and the content is not known otherwise:
    /// nothing was written; plan anew.
    IntentLost,
}

/// The answer to a deletion.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeleteOutcome {
    /// The name is gone.
    Deleted,
    /// The stored version is newer and stays.
    Stale {
        /// The version that stays.
        current: Stamp,
    },
    /// There was no such name.
    Absent,
}

/// Which names to list.
#[derive(Clone, Debug)]
pub struct ListPage {
    /// The namespace.
    pub namespace: Namespace,
    /// Only names below this directory (without a slash at the end); empty for all.
    pub directory: String,
    /// Only names after this one (full name).
    pub after: Option<String>,
    /// Only versions up to and including this one.
    pub not_after: Stamp,
    /// At most this many rows are *looked at*, whether or not their version fits.
    pub rows: usize,
}

/// Names below a directory, ascending by bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NamePage {
    /// Names relative to the directory.
    pub names: Vec<String>,
    /// The last name looked at, to go on after; `None` when there is nothing more.
    pub next: Option<String>,
    /// Whether any row was looked at, its version fitting or not.
    pub any: bool,
}

/// Which contents without references to list.
#[derive(Clone, Copy, Debug)]
pub struct UnusedPage {
    /// Only those that lost the last one at this time or earlier.
    pub unused_since: Stamp,
    /// Only those after this one, in the order of the listing.
    pub after: Option<(Stamp, Digest)>,
    /// At most so many.
    pub rows: usize,
    /// What looked unused and turns out to have a name may be noted as used. Otherwise nothing is written.
    pub settle: bool,
}

/// A content without a reference.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnusedContent {
    /// The content.
    pub digest: Digest,
    /// When it lost its last reference, or was stored without one.
    pub unused_since: Stamp,
    /// Size of its objects in bytes.
    pub stored_size: u64,
}

/// An upload that was begun some time ago and not committed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OldIntent {
    /// Its number.
    pub id: IntentId,
    /// The object that it may have made.
    pub key: BlobKey,
    /// When it was made.
    pub made_at: Stamp,
}

/// A content and how it is kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredContent {
    /// The content.
    pub digest: Digest,
    /// Its size in bytes, uncompressed.
    pub logical_size: u64,
    /// Its objects.
    pub recipe: Recipe,
    /// How many names hold it, as the store has it noted; `None` when the store counts them itself.
    pub references: Option<u64>,
    /// Whether its object is noted to be missing or damaged.
    pub is_suspect: bool,
}

/// Totals, kept in the same transactions as what they count.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Totals {
    /// Names.
    pub entries: u64,
    /// Contents that are stored, referenced or not.
    pub contents: u64,
    /// Sum of the sizes of the contents of all names, in bytes.
    pub logical_bytes: u64,
    /// Sum of the sizes of all stored objects, in bytes.
    pub stored_bytes: u64,
    /// Uploads that were ever begun, those that failed included.
    pub uploads_begun: u64,
}

/// The connections of a store that is reached over a network.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Connections {
    /// Open ones.
    pub open: usize,
    /// Those of them that nobody uses.
    pub idle: usize,
    /// The state of the circuit breaker in front of them.
    pub breaker: &'static str,
}

/// A store of metadata. Every implementation passes the contract suite in `testkit::meta_contract`.
#[async_trait]
pub trait MetaStore: Send + Sync + 'static {
    /// The kind of store, for logs: "sqlite".
    fn kind(&self) -> &'static str;

    /// Whether a look-up costs next to nothing: no network is in between.
    fn is_near(&self) -> bool {
        false
    }

    /// How its connections do; `None` when it has none.
    fn connections(&self) -> Option<Connections> {
        None
    }

    /// Connections that read or write now, and those that wait for work, as far as the store counts them.
    fn connection_use(&self) -> (usize, usize) {
        let count = |it: Connections| (it.open.saturating_sub(it.idle), it.idle);
        self.connections().map_or((0, 0), count)
    }

    /// What a name points at.
    async fn lookup(&self, key: EntryKey) -> Result<Option<Entry>>;

    /// A reader of its own for the calling thread, when the store is so near that answering there
    /// costs less than switching threads. A thread that uses it must not have other duties.
    fn local_reader(&self) -> Result<Option<Box<dyn LocalReader>>> {
        Ok(None)
    }

    /// Lets a name hold a known content at once, or prepares the upload of an unknown one.
    async fn plan_put(&self, plan: PlanPut) -> Result<PutPlan>;

    /// Makes an uploaded object the content's recipe and lets the name hold it.
    ///
    /// When the content became known by another upload meanwhile, that one is used and the intent
    /// stays, so that this upload's object is cleaned away.
    async fn commit_put(&self, commit: CommitPut) -> Result<PutCommit>;

    /// Notes that an object is missing or damaged. While it is the object of a content, uploads find that content unknown,
    /// so that the next one takes its place, for all names; the object goes into quarantine then. Reads go on as before.
    async fn note_damaged(&self, key: BlobKey) -> Result<()>;

    /// Removes a name unless its version is newer than `stamp`.
    async fn delete(&self, key: EntryKey, stamp: Stamp) -> Result<DeleteOutcome>;

    /// Removes a name unless its version is newer, with an old server beside this store: unless a newer version stays, the
    /// deletion is remembered and the name marked, also when it is not here.
    async fn delete_beside(&self, key: EntryKey, stamp: Stamp) -> Result<DeleteOutcome>;

    /// One page of names.
    async fn list(&self, page: ListPage) -> Result<NamePage>;

    /// A number, in hexadecimal digits, that no other database has; see [`crate::store::tie`].
    async fn identity(&self) -> Result<String>;

    /// Totals over everything.
    async fn totals(&self) -> Result<Totals>;

    /// The time by the clock that dates what is stored.
    async fn now(&self) -> Result<Stamp> {
        Ok(Stamp::now())
    }

    /// Contents without a reference that may be condemned when they are old enough, oldest first: those whose object is
    /// in quarantine, or not known, are for repairs.
    async fn list_unused(&self, page: UnusedPage) -> Result<Vec<UnusedContent>>;

    /// First step of cleaning: condemns those of the contents that have had no reference since
    /// `unused_since` or earlier, so that no upload will share them any more: they are as unknown as if
    /// they had never been, but for their generations. Those that have references, are too young or
    /// unknown stay as they are. Returns the objects that may now be deleted.
    async fn condemn(&self, digests: Vec<Digest>, unused_since: Stamp) -> Result<Vec<StoredBlob>>;

    /// Intents made at `made_before` or earlier, by number, after the number `after`. Those whose object is in quarantine
    /// are left out.
    async fn list_intents(&self, made_before: Stamp, after: Option<IntentId>, rows: usize) -> Result<Vec<OldIntent>>;

    /// Condemns those of the intents that were made at `made_before` or earlier, so that they can no longer
    /// be committed; those whose object is in quarantine stay. Returns the objects that may now be deleted.
    async fn condemn_intents(&self, intents: Vec<IntentId>, made_before: Stamp) -> Result<Vec<BlobKey>>;

    /// Condemned objects that are not forgotten yet, by digest and generation, after `after`.
    async fn list_condemned(&self, after: Option<BlobKey>, rows: usize) -> Result<Vec<BlobKey>>;

    /// Last step of cleaning: forgets condemned objects that were deleted from the content store. Their
    /// generations are never used again.
    async fn forget(&self, keys: Vec<BlobKey>) -> Result<()>;

    /// Stored contents, by digest, after a digest or the beginning of one. Rows that cannot be read are told, and what is
    /// behind them is read all the same.
    async fn survey(&self, after: Vec<u8>, rows: usize) -> Result<Survey>;

    /// For each object whether anything is known of it: it is that of a content, an intent has its name, or it is
    /// condemned.
    async fn are_known(&self, keys: Vec<BlobKey>) -> Result<Vec<bool>>;

    /// Condemns those of the objects that nothing is known of, so that no upload gets their names any more, unless a repair
    /// may need them: their content has names or a row, and no object of its own that is taken for good. Returns them:
    /// they may now be deleted.
    async fn condemn_unknown(&self, keys: Vec<BlobKey>) -> Result<Vec<BlobKey>>;

    /// Lets `holder` be the only one to do `task` for `term` from now on: `false` when somebody else is. To be
    /// said again before the term is over. With a `term` of zero the holder gives it up.
    async fn lead(&self, task: &str, holder: &str, term: Duration) -> Result<bool>;

    /// Cheap proof that the store answers.
    async fn probe(&self) -> Result<()>;
}

/// Looks names up on the calling thread; blocks while it does.
pub trait LocalReader {
    /// What a name points at.
    fn lookup(&self, key: &EntryKey) -> Result<Option<Entry>>;
}
