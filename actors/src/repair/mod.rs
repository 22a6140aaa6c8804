//! Putting a store right. Nothing is ever deleted: an object that is not what it should be goes into quarantine.
//!
//! [`plan()`] looks and decides, [`apply()`] does what was decided and nothing else; a dry run is a plan. [`rebuild()`] makes
//! the rows of contents anew from objects, when the database is lost.

mod apply;
mod emptied;
mod fallback;
mod plan;
mod quarantine;
mod rebuild;

pub use apply::{Applied, apply};
pub use emptied::note_emptied;
pub use fallback::{Fallback, Filetracker, OtherStore, Source};
pub use plan::{Action, Plan, plan};
pub use quarantine::{GivenUp, give_up};
pub use rebuild::{Rebuilt, rebuild};

use crate::model::{BlobInfo, BlobKey, KeyLayout, StoredBlob};
use crate::verify::{Examiner, Progress, Stores};

/// Objects that a plan adopts at most, unless told otherwise: a plan is kept in memory.
pub const ADOPTED_MAX: usize = 100_000;

/// What a repair works with.
pub struct Repairer<'a> {
    /// The stores.
    pub stores: &'a Stores,
    /// Reads objects.
    pub examiner: &'a Examiner,
    /// Told how far it is.
    pub progress: &'a Progress,
    /// Where contents may be had from that are lost here, in this order.
    pub fallbacks: &'a [&'a dyn Fallback],
    /// Who repairs: noted with what is uploaded.
    pub instance: String,
    /// The layout of names of new objects.
    pub layout: KeyLayout,
    /// Objects that are read at once.
    pub concurrency: usize,
    /// Objects that nothing knows of which one plan takes up.
    pub adopted_max: usize,
}

fn stored(key: BlobKey, info: &BlobInfo) -> StoredBlob {
    StoredBlob { key, encoding: info.encoding, stored_size: info.stored_size, stored_hash: info.stored_hash }
}
