//! What a migration from an old server has done and has yet to do, so that one that was cut off goes on.
//!
//! First the names are listed: all of them are *pending*. Then each is dealt with once, and is not pending any more. Every
//! write may be repeated: a name counts when it becomes pending, and again when it stops being that.

use async_trait::async_trait;

use super::MetaStore;
use crate::model::{Result, Stamp};

/// The number of a migration.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct MigrationId(pub i64);

/// How far a migration is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MigrationState {
    /// Not all names are known.
    Listing,
    /// All names are known; some are pending.
    Copying,
    /// No name is pending.
    Done,
}

impl MigrationState {
    /// Its name in the database and in reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Listing => "listing",
            Self::Copying => "copying",
            Self::Done => "done",
        }
    }

    /// The state of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Listing, Self::Copying, Self::Done].into_iter().find(|state| state.as_str() == name)
    }
}

/// A migration, as it is noted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Migration {
    /// Its number.
    pub id: MigrationId,
    /// The kind of source.
    pub kind: String,
    /// The source.
    pub source: String,
    /// How far it is.
    pub state: MigrationState,
    /// What came of the names so far.
    pub counts: MigrationCounts,
    /// When it was begun.
    pub started_at: Stamp,
    /// When all names were known.
    pub listed_at: Option<Stamp>,
}

/// Numbers of a migration. Every name that is not pending any more is in exactly one of `copied`, `skipped`, `gone`,
/// `refused` and `failed`.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct MigrationCounts {
    /// Names that were found.
    pub total: u64,
    /// Names that were copied.
    pub copied: u64,
    /// The sizes of what they hold, in bytes, uncompressed.
    pub copied_bytes: u64,
    /// Contents that were new here and were stored for that.
    pub contents: u64,
    /// The sizes of their objects, in bytes.
    pub stored_bytes: u64,
    /// Names that were here, as new or newer.
    pub skipped: u64,
    /// Names that were not there any more when they were to be copied.
    pub gone: u64,
    /// Names that were deleted here meanwhile.
    pub refused: u64,
    /// Names that could not be copied.
    pub failed: u64,
}

impl MigrationCounts {
    /// Names that are not pending any more.
    pub fn settled(&self) -> u64 {
        self.copied + self.skipped + self.gone + self.refused + self.failed
    }

    /// Adds what came of one name.
    pub fn add(&mut self, fate: &Fate) {
        match fate {
            Fate::Copied { bytes, stored } => {
                self.copied += 1;
                self.copied_bytes += bytes;
                self.contents += u64::from(stored.is_some());
                self.stored_bytes += stored.unwrap_or_default();
            }
            Fate::Skipped => self.skipped += 1,
            Fate::Gone => self.gone += 1,
            Fate::Refused => self.refused += 1,
            Fate::Failed { .. } => self.failed += 1,
        }
    }
}

/// What came of a name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It was copied.
    Copied {
        /// The size of what it holds, in bytes, uncompressed.
        bytes: u64,
        /// The size of the object, when the content was new here.
        stored: Option<u64>,
    },
    /// It was here, as new or newer.
    Skipped,
    /// The source does not have it any more.
    Gone,
    /// It was deleted here meanwhile.
    Refused,
    /// It could not be copied.
    Failed {
        /// Why, in one line.
        reason: String,
        /// How often it was tried.
        attempts: u32,
    },
}

impl Fate {
    /// Its name in the database and in reports.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Copied { .. } => "copied",
            Self::Skipped => "skipped",
            Self::Gone => "gone",
            Self::Refused => "refused",
            Self::Failed { .. } => "failed",
        }
    }

    /// What people are told of it; `None` when it is as it should be.
    pub(crate) fn trouble(&self) -> Option<(&str, u32)> {
        match self {
            Self::Copied { .. } | Self::Skipped => None,
            Self::Gone => Some(("the source does not have it", 1)),
            Self::Refused => Some(("it was deleted here", 1)),
            Self::Failed { reason, attempts } => Some((reason, *attempts)),
        }
    }
}

/// A name that was not copied.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trouble {
    /// The name; what is no text is escaped.
    pub name: String,
    /// `failed`, `gone` or `refused`.
    pub fate: String,
    /// Why, in one line.
    pub reason: String,
    /// How often it was tried.
    pub attempts: u32,
    /// When it was given up.
    pub noted_at: Stamp,
}

/// Keeps migrations. Every implementation passes the contract suite in `testkit::meta_contract`.
#[async_trait]
pub trait MigrationJournal: MetaStore {
    /// The unfinished migration from this source, or a new one.
    async fn begin_migration(&self, kind: &'static str, source: String) -> Result<Migration>;

    /// Makes names pending that were not noted yet, and notes names that cannot be copied at all, with the reasons.
    async fn add_names(&self, id: MigrationId, names: Vec<String>, unfit: Vec<(String, String)>) -> Result<()>;

    /// All names are known now.
    async fn end_listing(&self, id: MigrationId) -> Result<()>;

    /// The migration as it is noted; `None` when there is no such.
    async fn migration(&self, id: MigrationId) -> Result<Option<Migration>>;

    /// Pending names after the name `after`, ascending by bytes.
    async fn pending_names(&self, id: MigrationId, after: Option<String>, rows: usize) -> Result<Vec<String>>;

    /// Notes what came of names; those that are not pending do not count.
    async fn settle_names(&self, id: MigrationId, settled: Vec<(String, Fate)>) -> Result<()>;

    /// Nothing is left to be done.
    async fn end_migration(&self, id: MigrationId) -> Result<()>;

    /// Names that were not copied, after the name `after`, ascending by bytes.
    async fn troubles(&self, id: MigrationId, after: Option<String>, rows: usize) -> Result<Vec<Trouble>>;

    /// Migrations that are not done, oldest first.
    async fn unfinished_migrations(&self) -> Result<Vec<Migration>>;

    /// Forgets up to `rows` rows of what is noted of migrations that are not done, and in the end the migrations; from then on
    /// nothing is remembered for the sake of those that are done either. Whether there is more to forget.
    async fn abandon_migrations(&self, rows: usize) -> Result<bool>;

    /// Forgets some of what is noted of finished migrations from the same source, this one excepted. `false` when nothing
    /// is left of them.
    async fn forget_former(&self, id: MigrationId) -> Result<bool>;
}
