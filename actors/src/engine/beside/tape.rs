//! Bytes that arrive once and are read by many, each from the beginning: in memory at first, then in an unnamed file.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use tokio::sync::watch;

use crate::filetracker::OldFile;
use crate::model::{Error, Kind, Result};
use crate::runtime::budget::Reservation;
use crate::store::blocking::BlockingPool;

/// Bytes of one tape in memory.
pub(super) const MEMORY_BYTES_MAX: u64 = 1 << 20;
/// Bytes read from a file at once.
const PIECE_BYTES: u64 = 256 << 10;

/// How far it is.
#[derive(Clone)]
struct Progress {
    /// What it is, once that is known: `None` when there is no such file.
    file: Option<Option<OldFile>>,
    /// So many bytes may leave: all but the last piece, which waits for the proof.
    released: u64,
    /// Whether the old side failed, and is waited for.
    is_interrupted: bool,
    end: Option<Result<(), Failed>>,
    /// What came of it all, once nothing more is done with it: the end, and whether it was stored.
    outcome: Option<Result<(), Failed>>,
}

/// Why it broke off, for each reader.
#[derive(Clone)]
struct Failed {
    kind: Kind,
    context: String,
}

impl From<&Error> for Failed {
    fn from(error: &Error) -> Self {
        Self { kind: error.kind(), context: error.context().to_owned() }
    }
}

impl Failed {
    fn error(&self) -> Error {
        Error::new(self.kind, self.context.clone())
    }
}

enum Held {
    /// Pieces and where they begin.
    Memory {
        pieces: Vec<(u64, Bytes)>,
        reservation: Reservation,
    },
    File(Arc<File>),
}

/// One file on its way, with one writer and any number of readers.
pub(super) struct Tape {
    progress: watch::Sender<Progress>,
    held: Mutex<Held>,
    pool: BlockingPool,
    temp_dir: PathBuf,
}

impl Tape {
    pub(super) fn new(reservation: Reservation, pool: BlockingPool, temp_dir: PathBuf) -> Self {
        let progress =
            watch::Sender::new(Progress { file: None, released: 0, is_interrupted: false, end: None, outcome: None });
        Self { progress, held: Mutex::new(Held::Memory { pieces: Vec::new(), reservation }), pool, temp_dir }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says what it is.
    pub(super) fn open(&self, file: Option<OldFile>) {
        self.progress.send_modify(|progress| progress.file = Some(file));
    }

    /// Takes the piece that begins at `at`.
    pub(super) async fn push(&self, at: u64, piece: Bytes) -> Result<()> {
        let len = piece.len() as u64;
        let full = {
            match &mut *self.held() {
                Held::Memory { pieces, reservation } => {
                    if at + len <= MEMORY_BYTES_MAX && reservation.try_grow(len) {
                        pieces.push((at, piece.clone()));
                        None
                    } else {
                        // They stay readable until they are in the file.
                        Some((None, pieces.clone()))
                    }
                }
                Held::File(file) => Some((Some(Arc::clone(file)), Vec::new())),
            }
        };
        if let Some((file, pieces)) = full {
            self.write(file, pieces, at, piece).await?;
        }
        self.progress.send_modify(|progress| {
            progress.released = at;
            progress.is_interrupted = false;
        });
        Ok(())
    }

    /// Says that nothing comes until the old side is back.
    pub(super) fn interrupt(&self) {
        self.progress.send_modify(|progress| progress.is_interrupted = true);
    }

    /// An error while nothing comes: there is no promise that the rest ever does.
    pub(super) fn goes_on(&self) -> Result<()> {
        let progress = self.progress.borrow();
        if progress.is_interrupted && progress.end.is_none() {
            return Err(Error::new(Kind::Unavailable, "the old server does not answer"));
        }
        Ok(())
    }

    /// Whether the bytes from `at` on, all of which came, are these.
    pub(super) async fn holds(&self, mut at: u64, mut bytes: &[u8]) -> Result<bool> {
        while !bytes.is_empty() {
            let piece = self.piece(at, at + bytes.len() as u64).await?;
            let len = piece.len().min(bytes.len());
            if piece[..len] != bytes[..len] {
                return Ok(false);
            }
            at += len as u64;
            bytes = &bytes[len..];
        }
        Ok(true)
    }

    async fn write(&self, file: Option<Arc<File>>, pieces: Vec<(u64, Bytes)>, at: u64, piece: Bytes) -> Result<()> {
        let temp_dir = self.temp_dir.clone();
        let work = move |_: &mut ()| {
            let file = match file {
                Some(file) => file,
                None => Arc::new(tempfile::tempfile_in(temp_dir)?),
            };
            pieces.iter().try_for_each(|(at, piece)| file.write_all_at(piece, *at))?;
            file.write_all_at(&piece, at)?;
            Ok(file)
        };
        let written: std::io::Result<Arc<File>> = self.pool.run(work).await?;
        let file = written.map_err(|error| Error::io("can't keep the file while it arrives", error))?;
        *self.held() = Held::File(file);
        Ok(())
    }

    /// The end: proven right after `len` bytes, or why not.
    pub(super) fn end(&self, outcome: Result<u64, &Error>) {
        self.progress.send_modify(|progress| {
            if progress.end.is_some() {
                return;
            }
            progress.end = Some(match outcome {
                Ok(len) => {
                    progress.released = len;
                    Ok(())
                }
                Err(error) => Err(Failed::from(error)),
            });
        });
    }

    /// Nothing more is done with it; the first word counts.
    pub(super) fn settle(&self, outcome: Result<(), &Error>) {
        let outcome = outcome.map_err(Failed::from);
        self.progress.send_modify(|progress| {
            progress.outcome.get_or_insert(outcome);
        });
    }

    /// What came of it all, as soon as nothing more is done with it.
    pub(super) async fn settled(&self) -> Result<()> {
        let mut progress = self.progress.subscribe();
        let settled = progress.wait_for(|progress| progress.outcome.is_some()).await;
        let settled = settled.map_err(|_| Error::new(Kind::Internal, "internal error"))?;
        settled.outcome.clone().unwrap_or(Ok(())).map_err(|failed| failed.error())
    }

    /// Whether all came and is right, as soon as that is known.
    pub(super) async fn ended(&self) -> Result<()> {
        let mut progress = self.progress.subscribe();
        let ended = progress.wait_for(|progress| progress.end.is_some()).await;
        let ended = ended.map_err(|_| Error::new(Kind::Internal, "internal error"))?;
        ended.end.clone().unwrap_or(Ok(())).map_err(|failed| failed.error())
    }

    /// What it is, as soon as that is known.
    pub(super) async fn file(&self) -> Result<Option<OldFile>> {
        let mut progress = self.progress.subscribe();
        let known = progress.wait_for(|progress| progress.file.is_some() || progress.end.is_some()).await;
        let known = known.map_err(|_| Error::new(Kind::Internal, "internal error"))?;
        match (&known.file, &known.end) {
            (Some(file), _) => Ok(file.clone()),
            (None, Some(Err(failed))) => Err(failed.error()),
            (None, _) => Ok(None),
        }
    }

    /// All bytes, from the beginning.
    pub(super) fn read(self: Arc<Self>) -> BoxStream<'static, Result<Bytes>> {
        let progress = self.progress.subscribe();
        stream::try_unfold((self, progress, 0_u64), |(tape, mut progress, at)| async move {
            loop {
                let (released, end) = {
                    let now = progress.borrow_and_update();
                    (now.released, now.end.clone())
                };
                if at < released {
                    let piece = tape.piece(at, released).await?;
                    let next = at + piece.len() as u64;
                    return Ok(Some((piece, (tape, progress, next))));
                }
                match end {
                    Some(Ok(())) => return Ok(None),
                    Some(Err(failed)) => return Err(failed.error()),
                    None => progress.changed().await.map_err(|_| Error::new(Kind::Internal, "internal error"))?,
                }
            }
        })
        .boxed()
    }

    /// Some bytes from `at` on; none from `released` on, where they are in the file.
    async fn piece(&self, at: u64, released: u64) -> Result<Bytes> {
        let broken = || Error::new(Kind::Internal, "internal error");
        let file = match &*self.held() {
            Held::Memory { pieces, .. } => {
                let index = pieces.partition_point(|(begin, _)| *begin <= at).checked_sub(1).ok_or_else(broken)?;
                let (begin, piece) = &pieces[index];
                let from = usize::try_from(at - begin).map_err(|_| broken())?;
                if from >= piece.len() {
                    return Err(broken());
                }
                return Ok(piece.slice(from..));
            }
            Held::File(file) => Arc::clone(file),
        };
        let wanted = usize::try_from((released - at).min(PIECE_BYTES)).map_err(|_| broken())?;
        let work = move |_: &mut ()| {
            let mut bytes = vec![0; wanted];
            file.read_exact_at(&mut bytes, at).map(|()| Bytes::from(bytes))
        };
        self.pool.run(work).await?.map_err(|error| Error::io("can't read back what has arrived", error))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::TryStreamExt;

    use super::*;
    use crate::runtime::budget::MemoryBudget;

    fn tape(budget: u64) -> (Arc<Tape>, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let pool = BlockingPool::start("test", 2, 8).unwrap();
        let reservation = MemoryBudget::new(budget).reserve_nothing();
        (Arc::new(Tape::new(reservation, pool, dir.path().to_owned())), dir)
    }

    #[actix_rt::test]
    async fn early_and_late_readers_get_all_from_memory_and_from_the_file() {
        for (budget, total) in [(1 << 20, 500_000_usize), (100_000, 500_000), (4 << 20, 3_000_000), (0, 1)] {
            let (tape, dir) = tape(budget);
            let content: Vec<u8> = (0..total).map(|at| (at % 251) as u8).collect();
            let early = actix_rt::spawn(Arc::clone(&tape).read().try_collect::<Vec<_>>());
            let mut at = 0;
            for piece in content.chunks(70_000) {
                tape.push(at, Bytes::copy_from_slice(piece)).await.unwrap();
                at += piece.len() as u64;
                tokio::task::yield_now().await;
            }
            let middle = actix_rt::spawn(Arc::clone(&tape).read().try_collect::<Vec<_>>());
            tokio::task::yield_now().await;
            tape.end(Ok(at));
            let late = Arc::clone(&tape).read().try_collect::<Vec<_>>().await.unwrap();
            for read in [early.await.unwrap().unwrap(), middle.await.unwrap().unwrap(), late] {
                assert!(read.concat() == content, "{budget} {total}");
            }
            assert_eq!(dir.path().read_dir().unwrap().count(), 0);
        }
    }

    #[actix_rt::test]
    async fn the_last_piece_is_held_back_until_the_end_is_proven() {
        let (tape, _dir) = tape(1 << 20);
        tape.push(0, Bytes::from_static(b"abc")).await.unwrap();
        tape.push(3, Bytes::from_static(b"def")).await.unwrap();
        let mut reader = Arc::clone(&tape).read();
        assert_eq!(reader.next().await.unwrap().unwrap(), "abc");
        tape.end(Err(&Error::new(Kind::Corrupt, "broken")));
        assert_eq!(reader.next().await.unwrap().unwrap_err().kind(), Kind::Corrupt);
    }
}
