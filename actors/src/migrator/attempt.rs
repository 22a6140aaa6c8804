//! One name: from the source into the store.

use std::time::Duration;

use futures_util::StreamExt;

use super::copier::Copier;
use super::patience::{Pauses, Stopped};
use crate::engine::Migrated;
use crate::filetracker::OldDownload;
use crate::model::{EntryKey, Error, Kind, Namespace, Result, Retry};
use crate::store::blob::Spooled;
use crate::store::meta::Fate;

/// Attempts at a file that the source answers for, but not with the file.
const ATTEMPTS_MAX: u32 = 5;
/// Attempts at a file that is not what it should be.
const ATTEMPTS_AT_BROKEN_MAX: u32 = 2;
/// Attempts at a file that this store does not take although it answers.
const ATTEMPTS_HERE_MAX: u32 = 30;

/// Until an absent file is asked for once more.
const ABSENT_AGAIN_AFTER: Duration = Duration::from_millis(300);

/// The largest object, in bytes, that is stored while others are fetched.
const SMALL_BYTES_MAX: u64 = 256 * 1024;

/// Whose fault it is.
enum Failure {
    Source(Error),
    Here(Error),
}

impl Copier {
    /// What comes of a name.
    pub(super) async fn settle(&self, name: &str) -> Result<Fate, Stopped> {
        let key = match EntryKey::parse(Namespace::FILETRACKER, name.as_bytes()) {
            Ok(key) => key,
            // Only fit names become pending.
            Err(why) => return Ok(Fate::Failed { reason: why.to_string(), attempts: 1 }),
        };
        let (mut attempts, mut attempts_here) = (0, 0);
        let mut pauses = Pauses::new();
        loop {
            let error = match self.attempt(&key).await {
                Ok(fate) => return Ok(fate),
                Err(Failure::Source(error)) => {
                    if error.retry() == Retry::Later && self.source().probe().await.is_err() {
                        self.patience().outlive("the source", async || self.source().probe().await).await?;
                        continue;
                    }
                    attempts += 1;
                    error
                }
                Err(Failure::Here(error)) => {
                    if error.retry() == Retry::Later && self.expect_ready().await.is_err() {
                        self.patience().outlive("this store", async || self.expect_ready().await).await?;
                        continue;
                    }
                    attempts_here += 1;
                    error
                }
            };
            let attempts_max = if error.retry() == Retry::Later { ATTEMPTS_MAX } else { ATTEMPTS_AT_BROKEN_MAX };
            // A disk that is full says nothing about the file.
            let is_over = attempts_here >= ATTEMPTS_HERE_MAX && error.kind() != Kind::NoSpace;
            if attempts >= attempts_max || is_over {
                log::warn!("a file is not copied name={name:?} error=\"{error}\"");
                let reason = error.to_string().replace(char::is_control, " ");
                return Ok(Fate::Failed { reason, attempts: attempts + attempts_here });
            }
            log::debug!("a file is tried again name={name:?} error=\"{error}\"");
            self.progress().retried();
            self.patience().pause(&mut pauses).await?;
        }
    }

    async fn attempt(&self, key: &EntryKey) -> Result<Fate, Failure> {
        let turn = self.turn().await.map_err(Failure::Here)?;
        if let Some(here) = self.engine().stat(key).await.map_err(Failure::Here)? {
            let there = self.twice(async || self.source().head(key).await).await?;
            let Some(there) = there else { return Ok(Fate::Gone) };
            if here.stamp >= there.stamp {
                return Ok(Fate::Skipped);
            }
        }
        if self.engine().doubts_old_server(key).await.map_err(Failure::Here)? {
            return Ok(Fate::Skipped);
        }
        let download = self.twice(async || self.source().open(key).await).await?;
        let Some(download) = download else { return Ok(Fate::Gone) };
        let stamp = download.file.stamp;
        let body = self.receive(download).await?;
        let bytes = body.logical_size;
        let stored = body.bytes.len();
        // What came may be what the old server was being told just then.
        if self.engine().doubts_old_server(key).await.map_err(Failure::Here)? {
            return Ok(Fate::Skipped);
        }
        // What is left to do is to wait for disks: others may be fetched meanwhile, unless there is much to hold.
        let _turn = (stored > SMALL_BYTES_MAX).then_some(turn);
        match self.engine().migrate(key.clone(), stamp, body).await.map_err(Failure::Here)? {
            Migrated::Stored { is_new } => Ok(Fate::Copied { bytes, stored: is_new.then_some(stored) }),
            Migrated::Stale => Ok(Fate::Skipped),
            Migrated::Deleted => Ok(Fate::Refused),
        }
    }

    /// Asks once more for what is absent: the old server overwrites a file by removing it first.
    async fn twice<T>(&self, ask: impl AsyncFn() -> Result<Option<T>>) -> Result<Option<T>, Failure> {
        if let Some(found) = ask().await.map_err(Failure::Source)? {
            return Ok(Some(found));
        }
        tokio::time::sleep(ABSENT_AGAIN_AFTER).await;
        ask().await.map_err(Failure::Source)
    }

    /// Takes a body the way an upload is taken: hashed and checked while it comes.
    async fn receive(&self, mut download: OldDownload) -> Result<Spooled, Failure> {
        let mut spooler = self.engine().spooler(download.file.encoding);
        while let Some(piece) = download.stream.next().await {
            let piece = piece.map_err(Failure::Source)?;
            self.progress().received(piece.len());
            spooler.write(piece).await.map_err(blamed)?;
        }
        let body = spooler.finish().await.map_err(blamed)?;
        match download.file.logical_size.filter(|size| *size != body.logical_size) {
            None => Ok(body),
            Some(claimed) => {
                let what = format!("it has {} bytes, the source says {claimed}", body.logical_size);
                Err(Failure::Source(Error::new(Kind::Invalid, what)))
            }
        }
    }
}

/// Broken bytes are the source's fault, a full disk is ours.
fn blamed(error: Error) -> Failure {
    match error.kind() {
        Kind::Invalid | Kind::TooLarge => Failure::Source(error),
        _ => Failure::Here(error),
    }
}
