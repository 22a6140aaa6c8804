//! The one door for front ends.

use bytes::Bytes;
use futures_util::stream::BoxStream;

use crate::model::{Entry, EntryKey, Namespace, Result, Stamp};
use crate::runtime::admission::Permit;
use crate::spool::{BodyEncoding, Spooler};
use crate::store::blob::Spooled;
use crate::store::meta::{DeleteOutcome, Totals};

/// The answer to [`Engine::put`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PutOutcome {
    /// The name holds the content in the wanted version, durably.
    Stored,
    /// A newer version was there and stays.
    Stale {
        /// The version that stays.
        current: Stamp,
    },
}

/// A content on its way out.
pub struct Download {
    /// What the name points at.
    pub entry: Entry,
    body: BoxStream<'static, Result<Bytes>>,
}

impl Download {
    /// Number of bytes of [`Download::stored`]: the gzip bytes.
    pub fn stored_size(&self) -> u64 {
        unimplemented!()
    }

    /// The bytes as stored (gzip). The last piece comes only when all are proven right; otherwise
    /// the stream ends with an error before it.
    pub fn stored(self) -> BoxStream<'static, Result<Bytes>> {
        self.body
    }

    /// The logical bytes (`entry.logical_size` of them), with the same promise.
    pub fn decoded(self) -> BoxStream<'static, Result<Bytes>> {
        unimplemented!()
    }
}

/// Pages of names, relative to the listed directory, ascending by bytes; a page may be empty.
pub type NameStream = BoxStream<'static, Result<Vec<String>>>;

/// The engine, as front ends see it. Clones are cheap and share everything.
#[derive(Clone)]
pub struct Engine {}

impl Engine {
    /// A place for one request, to be held until its answer is complete (for a download: until the
    /// body is sent); [`Kind::Overloaded`](crate::model::Kind::Overloaded) at once when there is none.
    pub fn admit(&self) -> Result<Permit> {
        unimplemented!()
    }

    /// Starts to receive a body.
    pub fn spooler(&self, encoding: BodyEncoding) -> Spooler {
        let _ = encoding;
        unimplemented!()
    }

    /// What a name points at.
    pub async fn stat(&self, key: &EntryKey) -> Result<Option<Entry>> {
        let _ = key;
        unimplemented!()
    }

    /// Lets a name hold a content; newest wins. Durable when it returns.
    pub async fn put(&self, key: EntryKey, stamp: Stamp, body: Spooled) -> Result<PutOutcome> {
        let _ = (key, stamp, body);
        unimplemented!()
    }

    /// Opens what a name points at; `None` when there is no such name.
    pub async fn open(&self, key: &EntryKey) -> Result<Option<Download>> {
        let _ = key;
        unimplemented!()
    }

    /// Removes a name unless its version is newer than `stamp`.
    pub async fn delete(&self, key: EntryKey, stamp: Stamp) -> Result<DeleteOutcome> {
        let _ = (key, stamp);
        unimplemented!()
    }

    /// Names below `directory` (normalised, empty for all) with versions up to `not_after`;
    /// `None` when there is no name below it at all, whatever its version.
    pub async fn list(&self, namespace: Namespace, directory: String, not_after: Stamp) -> Result<Option<NameStream>> {
        let _ = (namespace, directory, not_after);
        unimplemented!()
    }

    /// Totals over everything.
    pub async fn totals(&self) -> Result<Totals> {
        unimplemented!()
    }
}
