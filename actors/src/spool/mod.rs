//! Receiving a body: hashed, checked and compressed while it comes.
//!
//! Pieces are collected into batches; a batch is worked on by a computing thread while the next
//! one is collected. Only bodies so small that a thread switch would cost more than the work are
//! finished on the caller's thread.

mod intake;
mod place;

use std::path::PathBuf;

use bytes::Bytes;

use self::intake::Intake;
use crate::model::{Error, Kind, Result};
use crate::runtime::budget::MemoryBudget;
use crate::store::blob::Spooled;
use crate::store::blocking::{BlockingPool, Running};

/// Bytes collected before a thread works on them.
const BATCH_BYTES: usize = 256 * 1024;
/// The largest gzip body, in bytes, that is finished on the caller's thread.
const INLINE_GZIP_BYTES_MAX: usize = 16 * 1024;
/// What such a body may claim to decode to, in bytes.
const INLINE_LOGICAL_BYTES_MAX: u32 = 128 * 1024;
/// The largest plain body, in bytes, that is compressed on the caller's thread.
const INLINE_PLAIN_BYTES_MAX: usize = 8 * 1024;

/// How a body arrives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BodyEncoding {
    /// Logical bytes; they are compressed here.
    Plain,
    /// gzip; checked and kept as it is.
    Gzip,
}

/// What bounds a body.
#[derive(Clone, Debug)]
pub struct SpoolLimits {
    /// The most bytes of one body that are held in memory; more go to a file.
    pub memory_bytes_max: u64,
    /// Where such files are; they never have a name.
    pub temp_dir: PathBuf,
    /// Whether such a file becomes the object: then it is written to disk while the rest comes, and the sync at its end finds
    /// little left to do.
    pub files_are_kept: bool,
    /// The most logical bytes of one body.
    pub logical_bytes_max: u64,
    /// gzip level (0 to 9) for bodies that arrive plain.
    pub compression_level: u32,
}

/// A body in the middle of being received. Dropping it forgets the body.
pub struct Spooler {
    encoding: BodyEncoding,
    pool: BlockingPool,
    collected: Vec<Bytes>,
    collected_bytes: usize,
    work: Work,
}

enum Work {
    Idle(Box<Intake>),
    Running(Running<Result<Box<Intake>>>),
    /// An earlier piece failed.
    Failed,
}

impl Spooler {
    /// Starts to receive a body.
    pub fn new(encoding: BodyEncoding, limits: SpoolLimits, budget: &MemoryBudget, pool: BlockingPool) -> Self {
        let intake = Box::new(Intake::new(encoding, limits, budget));
        Self { encoding, pool, collected: Vec::new(), collected_bytes: 0, work: Work::Idle(intake) }
    }

    /// Takes the next piece. Errors: [`Kind::Invalid`] for broken gzip, [`Kind::TooLarge`] past the
    /// limit on logical size, [`Kind::NoSpace`] when the temporary folder is full. After an error
    /// the body is lost.
    pub async fn write(&mut self, piece: Bytes) -> Result<()> {
        self.collected_bytes += piece.len();
        self.collected.push(piece);
        if self.collected_bytes < BATCH_BYTES {
            return Ok(());
        }
        let mut intake = self.idle().await?;
        let batch = self.collect();
        let running = self.pool.begin(move |_| {
            intake.take(batch)?;
            Ok(intake)
        });
        self.work = Work::Running(running.await?);
        Ok(())
    }

    /// The end of the body. Truncated gzip is [`Kind::Invalid`].
    pub async fn finish(mut self) -> Result<Spooled> {
        let mut intake = self.idle().await?;
        let last = self.collect();
        let is_small = intake.is_untouched() && self.is_small(&last);
        let finish = move || {
            intake.take(last)?;
            intake.finish()
        };
        if is_small { finish() } else { self.pool.run(move |_| finish()).await? }
    }

    /// What was collected, in a buffer of just its size: arriving pieces are parts of larger ones.
    fn collect(&mut self) -> Bytes {
        let batch = match self.collected.as_slice() {
            [only] => only.clone(),
            pieces => pieces.concat().into(),
        };
        self.collected.clear();
        self.collected_bytes = 0;
        batch
    }

    /// Waits for the batch that is being worked on.
    async fn idle(&mut self) -> Result<Box<Intake>> {
        match std::mem::replace(&mut self.work, Work::Failed) {
            Work::Idle(intake) => Ok(intake),
            Work::Running(running) => running.await?,
            Work::Failed => Err(Error::new(Kind::Invalid, "the body failed before")),
        }
    }

    fn is_small(&self, body: &[u8]) -> bool {
        match self.encoding {
            BodyEncoding::Plain => body.len() <= INLINE_PLAIN_BYTES_MAX,
            // The last four bytes tell the size of the last member: a lie costs some milliseconds.
            BodyEncoding::Gzip => {
                let claim = body.last_chunk::<4>().map(|claim| u32::from_le_bytes(*claim));
                body.len() <= INLINE_GZIP_BYTES_MAX && claim.is_none_or(|claim| claim <= INLINE_LOGICAL_BYTES_MAX)
            }
        }
    }
}

#[cfg(test)]
mod tests;
