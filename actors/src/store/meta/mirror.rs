//! What has to be remembered while an old server is there beside this store.
//!
//! A write of a client *marks* its name in the same transaction; the mark goes when the old server has the state of the name
//! that was written. So whatever happens between the two, the mark stays and somebody brings the state there later. Who does
//! that *claims* the mark, so that one name is never brought there by two at once. A deletion leaves a *tombstone*, so that no
//! copy from the old server brings the name back.

use std::time::Duration;

use async_trait::async_trait;

use super::MetaStore;
use crate::model::{Digest, EntryKey, Namespace, Result, Stamp};

/// On whose behalf a name is written.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Origin {
    /// A client's, with no old server beside this store.
    #[default]
    Client,
    /// A client's, with an old server that is to have it, too: the name is marked.
    Mirrored,
    /// It is copied from an old server: only when it is newer than what is here and than the name's deletion.
    Copied,
}

/// Who claims marks; a random number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ClaimId(pub i64);

/// A name whose state the old server may not have.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mark {
    /// The name.
    pub key: EntryKey,
    /// The last write of the name.
    pub seq: i64,
    /// How often it was tried in vain to tell the old server.
    pub attempts: u32,
}

/// The answer to a claim.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Claimed {
    /// It is the caller's.
    Yes(Mark),
    /// It is somebody else's.
    Held,
    /// The name is not marked.
    Absent,
}

/// What became of a mark.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Settled {
    /// It is gone.
    Done,
    /// The name was written since: the mark stays, for anybody.
    Changed,
    /// The claim had run out: somebody else may have told the old server something older or newer meanwhile.
    Lost,
}

/// All marks together.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct MarkSummary {
    /// How many there are.
    pub marks: u64,
    /// When the oldest was made.
    pub oldest: Option<Stamp>,
    /// The error of one that was tried in vain.
    pub last_error: Option<String>,
}

impl MarkSummary {
    /// For how long the oldest has been there.
    pub fn oldest_seconds(&self) -> Option<u64> {
        self.oldest.map(|since| (Stamp::now().seconds() - since.seconds()).max(0).unsigned_abs())
    }
}

/// What is known here of a name that the old server has.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct KnownHere {
    /// Whether it is here, in some version.
    pub is_here: bool,
    /// The newest version that was deleted here; it may have been stored again since.
    pub deleted: Option<Stamp>,
    /// The content that the old server is being told of it, or was told without an answer.
    pub telling: Option<Digest>,
}

/// Keeps marks and tombstones. Every implementation passes the contract suite in `testkit::meta_contract`.
#[async_trait]
pub trait MirrorJournal: MetaStore {
    /// Marks a name.
    async fn mark(&self, key: EntryKey) -> Result<()>;

    /// Claims the mark of a name for the time `lease`; also prolongs a claim of the caller's.
    async fn claim_mark(&self, key: EntryKey, claim: ClaimId, lease: Duration) -> Result<Claimed>;

    /// Whether somebody has claimed the mark of a name; changes nothing.
    async fn is_claimed(&self, key: EntryKey) -> Result<bool>;

    /// Claims marks whose time has come.
    async fn claim_due_marks(&self, claim: ClaimId, lease: Duration, rows: usize) -> Result<Vec<Mark>>;

    /// The caller, whose mark it is, is about to tell the old server that the name holds this content; it may take the time
    /// `lease`. `false` when the mark is not the caller's any more.
    async fn begin_telling(&self, key: EntryKey, claim: ClaimId, digest: Digest, lease: Duration) -> Result<bool>;

    /// The old server has the state of the name as of the mark's last write.
    async fn settle_mark(&self, mark: Mark, claim: ClaimId) -> Result<Settled>;

    /// The old server could not be told: again after the time `pause`, and by nobody at all for the time `hold`.
    async fn fail_mark(
        &self,
        key: EntryKey,
        claim: ClaimId,
        error: String,
        pause: Duration,
        hold: Duration,
    ) -> Result<()>;

    /// All marks together.
    async fn mark_summary(&self) -> Result<MarkSummary>;

    /// What is known here of each of the names.
    async fn are_here(&self, namespace: Namespace, names: Vec<String>) -> Result<Vec<KnownHere>>;

    /// Forgets up to `rows` marks: the old server is never told of those writes. Whether there may be more.
    async fn forget_marks(&self, rows: usize) -> Result<bool>;

    /// How many tombstones there are.
    async fn count_tombstones(&self) -> Result<u64>;

    /// Forgets up to `rows` tombstones, when no old server is there any more; whether there may be more.
    async fn forget_tombstones(&self, rows: usize) -> Result<bool>;
}
