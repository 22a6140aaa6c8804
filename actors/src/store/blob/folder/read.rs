//! Reading an object in pieces, on threads that may block.

use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use rustix::fs::Advice;

use super::super::BlobReader;
use crate::model::{Error, Kind, Result};
use crate::store::blocking::BlockingPool;

/// Bytes read at once; an object up to this size is read by the call that opens it.
const PIECE_BYTES: u64 = 256 * 1024;

/// An open object and what is left to read of it.
struct Rest {
    file: Arc<File>,
    offset: u64,
    end: u64,
    pool: BlockingPool,
}

/// Opens a file and reads its first piece; `None` when there is no such file.
pub(super) async fn open(pool: &BlockingPool, path: PathBuf, range: Option<Range<u64>>) -> Result<Option<BlobReader>> {
    let opened = pool.run(move |_| open_now(&path, range)).await?;
    let Some((file, range, first)) = opened.map_err(|error| Error::io("can't read the content folder", error))? else {
        return Ok(None);
    };
    let size = range.end - range.start;
    let offset = range.start + first.len() as u64;
    let rest = Rest { file: Arc::new(file), offset, end: range.end, pool: pool.clone() };
    let first = stream::iter((!first.is_empty()).then_some(Ok(first)));
    let stream: BoxStream<'static, Result<Bytes>> =
        if rest.offset == rest.end { first.boxed() } else { first.chain(pieces(rest)).boxed() };
    Ok(Some(BlobReader { size, stream }))
}

type Opened = (File, Range<u64>, Bytes);

fn open_now(path: &std::path::Path, range: Option<Range<u64>>) -> io::Result<Option<Opened>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let size = file.metadata()?.len();
    let range = range.unwrap_or(0..size);
    if range.start > range.end || range.end > size {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "range is outside of the object"));
    }
    if range.end - range.start > PIECE_BYTES {
        // The disk reads ahead while pieces are worked on. Only a hint: nothing depends on it.
        let _ = rustix::fs::fadvise(&file, range.start, NonZeroU64::new(range.end - range.start), Advice::Sequential);
    }
    let first = read_piece(&file, range.start, range.end)?;
    Ok(Some((file, range, first)))
}

fn pieces(rest: Rest) -> impl futures_util::Stream<Item = Result<Bytes>> + Send {
    stream::try_unfold(rest, |mut rest| async move {
        if rest.offset == rest.end {
            return Ok(None);
        }
        let (file, offset, end) = (Arc::clone(&rest.file), rest.offset, rest.end);
        let piece = rest.pool.run(move |_| read_piece(&file, offset, end)).await?;
        let piece = piece.map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => Error::new(Kind::Corrupt, "a stored object got shorter").with_source(error),
            _ => Error::io("can't read the content folder", error),
        })?;
        rest.offset += piece.len() as u64;
        Ok(Some((piece, rest)))
    })
}

fn read_piece(file: &File, offset: u64, end: u64) -> io::Result<Bytes> {
    let wanted = usize::try_from((end - offset).min(PIECE_BYTES)).map_err(io::Error::other)?;
    let mut piece = vec![0; wanted];
    file.read_exact_at(&mut piece, offset)?;
    Ok(piece.into())
}
