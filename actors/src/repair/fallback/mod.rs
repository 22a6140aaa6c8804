//! Where a content may be had from that is lost here. Nothing is ever written there.

mod bucket;
mod filetracker;

use async_trait::async_trait;
use serde_json::{Value, json};

pub use bucket::OtherStore;
pub use filetracker::Filetracker;

use crate::model::{BlobKey, Digest, EntryKey, Result};
use crate::store::blob::Spooled;

/// Where a fallback has a content.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Source {
    /// Under this name, on a server.
    Name(EntryKey),
    /// In this object, of another store.
    Object(BlobKey),
}

impl Source {
    /// The source for a report.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Name(name) => json!({ "name": name.name() }),
            Self::Object(key) => json!({ "object": key.to_string() }),
        }
    }
}

/// A place that may have lost contents.
#[async_trait(?Send)]
pub trait Fallback {
    /// Where the content could be; `names` are some that hold it here.
    async fn sources(&self, digest: Digest, names: &[EntryKey]) -> Result<Vec<Source>>;

    /// What is there, hashed; `None` when there is nothing, or it is broken, or the source is not of this kind. It may be
    /// another content than the one that is lost.
    async fn fetch(&self, source: &Source) -> Result<Option<Spooled>>;
}
