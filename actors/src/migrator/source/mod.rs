//! Where a migration gets names and files from.

mod drained;
mod names;
mod server;
mod tree;

use async_trait::async_trait;

pub(super) use drained::drained;
pub use names::NamesInFile;
pub use server::Server;
pub use tree::Tree;

use crate::filetracker::{NameLines, OldDownload, OldFile};
use crate::model::{EntryKey, Result};

/// An old server's files. Absence is a value; an outage is [`Kind::Unavailable`](crate::model::Kind::Unavailable); what will
/// not get better by waiting is [`Kind::Invalid`](crate::model::Kind::Invalid).
#[async_trait]
pub trait Source: Send + Sync + 'static {
    /// The kind of source, in the journal and in reports.
    fn kind(&self) -> &'static str;

    /// Which one it is: the same text when the program is started again.
    fn place(&self) -> String;

    /// Asks now whether files can be had from it.
    async fn probe(&self) -> Result<()>;

    /// All names, some at a time, in no order.
    async fn list(&self) -> Result<NameLines>;

    /// Whether a listing should be taken as fast as it comes: it may break off while it is open.
    fn is_listed_in_haste(&self) -> bool {
        false
    }

    /// What is known of a file without its bytes; `None` when there is no such file.
    async fn head(&self, name: &EntryKey) -> Result<Option<OldFile>>;

    /// Opens a file; `None` when there is no such file. The stream ends with an error when the file changed meanwhile.
    async fn open(&self, name: &EntryKey) -> Result<Option<OldDownload>>;
}
