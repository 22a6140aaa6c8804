//! A server that speaks the Filetracker protocol.

use async_trait::async_trait;
use futures_util::StreamExt;

use super::{Fallback, Source};
use crate::filetracker::{OldServer, OldServerLimits};
use crate::model::{Digest, EntryKey, Error, Kind, Namespace, Result};
use crate::runtime::budget::MemoryBudget;
use crate::spool::{SpoolLimits, Spooler};
use crate::store::blob::Spooled;
use crate::store::blocking::BlockingPool;

/// Memory for bodies.
const MEMORY_BYTES: u64 = 64 << 20;

/// A server that speaks the Filetracker protocol: an old one, or another s3dedup.
pub struct Filetracker {
    server: OldServer,
    pool: BlockingPool,
    limits: SpoolLimits,
    budget: MemoryBudget,
}

impl Filetracker {
    /// The server at `url`, without `/files`. A user and password in it are sent along, and never shown.
    pub fn new(url: &str, limits: SpoolLimits, threads: usize) -> Result<Self> {
        let failed = |error| Error::new(Kind::Internal, "cannot start threads for the fallback").with_source(error);
        // What it gives is compared with a digest anyway.
        let patience = OldServerLimits { looks_again: false, ..OldServerLimits::default() };
        Ok(Self {
            server: OldServer::new(url, patience)?,
            pool: BlockingPool::start("fallback", threads.max(1), 16).map_err(failed)?,
            limits,
            budget: MemoryBudget::new(MEMORY_BYTES),
        })
    }
}

#[async_trait(?Send)]
impl Fallback for Filetracker {
    async fn sources(&self, _: Digest, names: &[EntryKey]) -> Result<Vec<Source>> {
        let names = names.iter().filter(|name| name.namespace() == Namespace::FILETRACKER);
        Ok(names.cloned().map(Source::Name).collect())
    }

    async fn fetch(&self, source: &Source) -> Result<Option<Spooled>> {
        let Source::Name(name) = source else { return Ok(None) };
        let Some(mut download) = self.server.get(name).await? else { return Ok(None) };
        let encoding = download.file.encoding;
        let mut spooler = Spooler::new(encoding, self.limits.clone(), &self.budget, self.pool.clone());
        let received = async {
            while let Some(piece) = download.stream.next().await {
                spooler.write(piece?).await?;
            }
            spooler.finish().await
        };
        match received.await {
            Ok(spooled) => Ok(Some(spooled)),
            // What it has is broken, too.
            Err(error) if matches!(error.kind(), Kind::Invalid | Kind::TooLarge) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
