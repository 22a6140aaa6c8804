//! An old server, asked over HTTP.

use async_trait::async_trait;

use super::Source;
use crate::filetracker::{NameLines, OldDownload, OldFile, OldServer};
use crate::model::{EntryKey, Error, Kind, Result, Stamp};

/// Files of the year 9999 are the newest that an old server can list: without it, it hides those of the future.
const NEWEST: Stamp = Stamp::from_seconds(253_402_300_799);

/// A server of version 2.
pub struct Server(OldServer);

impl Server {
    /// Files of this server.
    pub fn new(server: OldServer) -> Self {
        Self(server)
    }
}

#[async_trait]
impl Source for Server {
    fn kind(&self) -> &'static str {
        "v2"
    }

    fn place(&self) -> String {
        self.0.to_string()
    }

    async fn probe(&self) -> Result<()> {
        self.0.probe().await
    }

    async fn list(&self) -> Result<NameLines> {
        let listing = self.0.list("", NEWEST).await?;
        listing.ok_or_else(|| Error::new(Kind::Unavailable, "the old server does not list its files"))
    }

    fn is_listed_in_haste(&self) -> bool {
        true
    }

    async fn head(&self, name: &EntryKey) -> Result<Option<OldFile>> {
        self.0.head(name).await
    }

    async fn open(&self, name: &EntryKey) -> Result<Option<OldDownload>> {
        self.0.get(name).await
    }
}
