//! Metadata stores: what names, contents and uploads there are.
//!
//! A method is a *whole transaction*, never a get or a set, so that no caller can read, think and
//! write back something stale. Every write may be repeated with the same arguments: the answer to
//! the first attempt can be lost on its way.

use async_trait::async_trait;

use crate::model::{BlobKey, Digest, Entry, EntryKey, KeyLayout, Namespace, Recipe, Result, Stamp, StoredBlob};

mod postgres;
mod sqlite;

pub use postgres::PostgresStore;
pub use sqlite::{SqliteSettings, SqliteStore};

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
    /// The stored version is newer; nothing was written.
    Stale {
        /// The version that stays.
        current: Stamp,
    },
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

/// A store of metadata. Every implementation passes the contract suite in `testkit::meta_contract`.
#[async_trait]
pub trait MetaStore: Send + Sync + 'static {
    /// The kind of store, for logs: "sqlite".
    fn kind(&self) -> &'static str;

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

    /// Removes a name unless its version is newer than `stamp`.
    async fn delete(&self, key: EntryKey, stamp: Stamp) -> Result<DeleteOutcome>;

    /// One page of names.
    async fn list(&self, page: ListPage) -> Result<NamePage>;

    /// Totals over everything.
    async fn totals(&self) -> Result<Totals>;

    /// First step of cleaning: condemns a content that has had no reference since `unused_since` or
    /// earlier, so that no upload will share it any more: it is as unknown as if it had never been,
    /// but for its generation. `None`, and nothing changed, when it has references, is too young or
    /// unknown. Returns the recipe whose objects may now be deleted.
    async fn condemn(&self, digest: Digest, unused_since: Stamp) -> Result<Option<Recipe>>;

    /// Condemns an intent made at `made_before` or earlier, so that it can no longer be committed.
    /// Returns the object that may now be deleted; `None` when there is no such intent.
    async fn condemn_intent(&self, intent: IntentId, made_before: Stamp) -> Result<Option<BlobKey>>;

    /// Last step of cleaning: forgets a condemned object that was deleted from the content store.
    /// Its generation is never used again.
    async fn forget(&self, key: BlobKey) -> Result<()>;

    /// Cheap proof that the store answers.
    async fn probe(&self) -> Result<()>;
}

/// Looks names up on the calling thread; blocks while it does.
pub trait LocalReader {
    /// What a name points at.
    fn lookup(&self, key: &EntryKey) -> Result<Option<Entry>>;
}
