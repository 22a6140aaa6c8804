//! Reading an object and finding out what it holds.

use std::io::{self, Write};

use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use sha2::{Digest as _, Sha256};

use super::{DamageKind, Pace};
use crate::model::{BlobHash, BlobInfo, BlobKey, Digest, Encoding, Result, StoredBlob};
use crate::spool::BodyEncoding;
use crate::store::blob::BlobStore;
use crate::store::blocking::{BlockingPool, Running};

/// Bytes collected before a thread works on them: a change of threads must cost little beside the work.
const BATCH_BYTES: usize = 512 * 1024;

/// Reads objects at a pace; threads of its own compute.
pub struct Examiner {
    pool: BlockingPool,
    pace: Pace,
}

/// What an object proved to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Examined {
    /// Its size in bytes.
    pub stored_size: u64,
    /// BLAKE3 of its bytes.
    pub stored_hash: BlobHash,
    /// SHA-256 and number of the bytes that it decodes to; `None` when it does not.
    pub logical: Option<(Digest, u64)>,
}

impl Examined {
    /// What the object says of itself, if it holds the content that it is named after.
    pub fn describe(&self, key: &BlobKey) -> Option<BlobInfo> {
        let (digest, logical_size) = self.logical.filter(|(digest, _)| *digest == key.digest)?;
        let (stored_size, stored_hash) = (self.stored_size, self.stored_hash);
        Some(BlobInfo { digest, logical_size, encoding: Encoding::Gzip, stored_size, stored_hash })
    }

    /// What is wrong with it beside what is noted of it.
    pub(super) fn compare(&self, logical_size: u64, blob: &StoredBlob) -> Option<DamageKind> {
        let Some(info) = self.describe(&blob.key) else {
            let (expected, found) = (blob.stored_size, self.stored_size);
            let is_other_size = expected != found;
            return Some(if is_other_size {
                DamageKind::WrongSize { expected, found }
            } else {
                DamageKind::WrongContent
            });
        };
        let noted = (logical_size, blob.stored_size, blob.stored_hash);
        ((info.logical_size, info.stored_size, info.stored_hash) != noted).then_some(DamageKind::WrongDescription)
    }
}

impl Examiner {
    /// Computes on `threads` threads.
    pub fn start(threads: usize, pace: Pace) -> io::Result<Self> {
        let threads = threads.max(1);
        Ok(Self { pool: BlockingPool::start("examine", threads, threads * 4)?, pace })
    }

    /// Reads all of an object; `None` when there is none. Bytes that do not decode are no error.
    pub async fn examine(&self, contents: &dyn BlobStore, key: &BlobKey) -> Result<Option<Examined>> {
        let Some(reader) = contents.open(key, None).await? else { return Ok(None) };
        self.examine_body(reader.stream, BodyEncoding::Gzip).await.map(Some)
    }

    /// Reads all of a body. Bytes that do not decode are no error.
    pub async fn examine_body(
        &self,
        mut body: BoxStream<'static, Result<Bytes>>,
        encoding: BodyEncoding,
    ) -> Result<Examined> {
        let mut turn = Turn::Idle(Box::new(Work::new(encoding)));
        let (mut batch, mut batch_bytes) = (Vec::new(), 0);
        while let Some(piece) = body.next().await {
            let piece: Bytes = piece?;
            self.pace.take(piece.len()).await;
            batch_bytes += piece.len();
            batch.push(piece);
            if batch_bytes >= BATCH_BYTES {
                let pieces = std::mem::take(&mut batch);
                batch_bytes = 0;
                let mut work = turn.work().await?;
                let step = move |_: &mut ()| {
                    work.take(&pieces);
                    work
                };
                // The next batch is read meanwhile.
                turn = Turn::Running(self.pool.begin(step).await?);
            }
        }
        let mut work = turn.work().await?;
        let finish = move |_: &mut ()| {
            work.take(&batch);
            work.finish()
        };
        self.pool.run(finish).await
    }
}

/// Who has the work: this side, or a thread that is at a batch.
enum Turn {
    Idle(Box<Work>),
    Running(Running<Box<Work>>),
}

impl Turn {
    async fn work(self) -> Result<Box<Work>> {
        match self {
            Self::Idle(work) => Ok(work),
            Self::Running(running) => running.await,
        }
    }
}

/// Logical bytes: hashed, counted, forgotten.
struct Measure {
    sha256: Sha256,
    bytes: u64,
}

impl Write for Measure {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.sha256.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Work {
    blake3: blake3::Hasher,
    bytes: u64,
    front: Front,
}

/// What makes logical bytes of stored ones.
#[expect(clippy::large_enum_variant, reason = "one at a time, in a box")]
enum Front {
    Gzip(MultiGzDecoder<Measure>),
    Plain(Measure),
    /// The bytes proved not to be gzip.
    Broken,
}

impl Work {
    fn new(encoding: BodyEncoding) -> Self {
        let measure = Measure { sha256: Sha256::new(), bytes: 0 };
        let front = match encoding {
            BodyEncoding::Gzip => Front::Gzip(MultiGzDecoder::new(measure)),
            BodyEncoding::Plain => Front::Plain(measure),
        };
        Self { blake3: blake3::Hasher::new(), bytes: 0, front }
    }

    fn take(&mut self, pieces: &[Bytes]) {
        for piece in pieces {
            self.blake3.update(piece);
            self.bytes += piece.len() as u64;
            let taken = match &mut self.front {
                Front::Gzip(decoder) => decoder.write_all(piece),
                Front::Plain(measure) => measure.write_all(piece),
                Front::Broken => Ok(()),
            };
            if taken.is_err() {
                self.front = Front::Broken;
            }
        }
    }

    fn finish(self) -> Examined {
        let measure = match self.front {
            Front::Gzip(decoder) => decoder.finish().ok(),
            Front::Plain(measure) => Some(measure),
            Front::Broken => None,
        };
        let logical = measure.map(|measure| (Digest::from_bytes(measure.sha256.finalize().into()), measure.bytes));
        let stored_hash = BlobHash::from_bytes(*self.blake3.finalize().as_bytes());
        Examined { stored_size: self.bytes, stored_hash, logical }
    }
}
