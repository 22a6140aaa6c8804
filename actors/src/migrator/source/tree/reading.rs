//! One file of the tree: what it is, and its bytes.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream;
use rustix::fs::OFlags;

use crate::filetracker::OldFile;
use crate::model::{Error, Kind, Result, Stamp};
use crate::spool::BodyEncoding;
use crate::store::blocking::BlockingPool;

/// Bytes read by one job.
pub(super) const PIECE_BYTES: u64 = 256 * 1024;
/// The old server writes in place and sets the version at the end: a file that was touched less than this ago is looked at
/// again when the time has passed.
const SETTLED_AFTER: Duration = Duration::from_secs(2);

/// What tells one state of a file from another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Seen {
    inode: u64,
    size: u64,
    modified: (i64, i64),
    touched: (i64, i64),
}

impl Seen {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            inode: metadata.ino(),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            touched: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    pub(super) fn file(&self) -> OldFile {
        OldFile {
            // Seconds are rounded down, before 1970 too: nanoseconds are never negative.
            stamp: Stamp::from_seconds(self.modified.0),
            logical_size: Some(self.size),
            length: Some(self.size),
            encoding: BodyEncoding::Plain,
            tag: None,
            is_young: self.is_young(),
        }
    }

    /// Whether the version is about now: it is the real one when the old server notes it at the end.
    fn is_young(&self) -> bool {
        self.modified.0.abs_diff(Stamp::now().seconds()) <= SETTLED_AFTER.as_secs()
    }

    /// How long until it counts as written.
    fn unsettled_for(&self) -> Option<Duration> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
        let touched = Duration::new(u64::try_from(self.touched.0).ok()?, u32::try_from(self.touched.1).ok()?);
        // One from the future has another clock, which says nothing.
        SETTLED_AFTER.checked_sub(now.checked_sub(touched)?)
    }
}

/// A file that is being read.
pub(super) struct Reading {
    path: PathBuf,
    file: File,
    pub(super) before: Seen,
    read: u64,
}

impl Reading {
    /// Opens a file and reads its first piece; `None` when there is no such file.
    pub(super) fn open(path: PathBuf) -> Result<Option<(Self, Bytes)>> {
        // Neither a link is followed nor a pipe waited for.
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
        let opened = File::options().read(true).custom_flags(flags).open(&path);
        let file = match opened {
            Ok(file) => file,
            Err(error) if is_absent(&error) => return Ok(None),
            Err(error) => {
                // What was not opened may be something else than a file, which is worth saying.
                path.symlink_metadata().map_or(Ok(()), |metadata| expect_regular(&metadata))?;
                return Err(unreadable(error));
            }
        };
        let metadata = file.metadata().map_err(unreadable)?;
        if metadata.is_dir() {
            return Ok(None);
        }
        expect_regular(&metadata)?;
        let mut reading = Self { path, file, before: Seen::of(&metadata), read: 0 };
        let first = reading.piece()?;
        Ok(Some((reading, first)))
    }

    /// The next bytes; none at the end.
    fn piece(&mut self) -> Result<Bytes> {
        let expected = self.before.size.saturating_sub(self.read).min(PIECE_BYTES) + 1;
        let mut piece = Vec::with_capacity(usize::try_from(expected).unwrap_or_default());
        (&self.file).take(PIECE_BYTES).read_to_end(&mut piece).map_err(unreadable)?;
        self.read += piece.len() as u64;
        Ok(piece.into())
    }

    /// Whether the path still leads to what was read.
    fn check(&self) -> Result<()> {
        let now = self.path.symlink_metadata().ok().map(|metadata| Seen::of(&metadata));
        if self.read == self.before.size && now == Some(self.before) {
            return Ok(());
        }
        Err(Error::new(Kind::Unavailable, "the file was changed while it was read"))
    }
}

/// The bytes of a file; the end says whether it is still what was read.
pub(super) fn pieces(reading: Reading, first: Bytes, pool: BlockingPool) -> stream::BoxStream<'static, Result<Bytes>> {
    let state = Some((reading, first, pool));
    stream::try_unfold(state, |state| async move {
        let Some((mut reading, piece, pool)) = state else { return Ok(None) };
        if piece.is_empty() {
            if let Some(wait) = reading.before.unsettled_for() {
                tokio::time::sleep(wait).await;
            }
            pool.run(move |_| reading.check()).await??;
            return Ok(None);
        }
        // A small file is looked at once more in the same job that reads its end.
        let is_short = reading.read == reading.before.size && reading.before.unsettled_for().is_none();
        let next = pool.run(move |_| {
            let next = reading.piece()?;
            if next.is_empty() && is_short {
                return reading.check().map(|()| None);
            }
            Ok(Some((reading, next)))
        });
        let next: Option<(Reading, Bytes)> = next.await??;
        Ok(Some((piece, next.map(|(reading, next)| (reading, next, pool)))))
    })
    .boxed()
}

pub(super) fn expect_regular(metadata: &Metadata) -> Result<()> {
    match oddity(metadata.file_type()) {
        Some(what) => Err(Error::new(Kind::Invalid, what)),
        None => Ok(()),
    }
}

/// What it is instead of a file or a directory.
pub(super) fn oddity(kind: std::fs::FileType) -> Option<&'static str> {
    if kind.is_file() || kind.is_dir() {
        return None;
    }
    Some(if kind.is_symlink() {
        "a symbolic link, which is not followed"
    } else if kind.is_fifo() {
        "a pipe, not a file"
    } else if kind.is_socket() {
        "a socket, not a file"
    } else {
        "a device, not a file"
    })
}

/// A path through a file leads nowhere either, and what no file can be called is not there.
pub(super) fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::InvalidFilename)
}

pub(super) fn unreadable(error: io::Error) -> Error {
    Error::new(Kind::Unavailable, format!("the file cannot be read: {error}"))
}
