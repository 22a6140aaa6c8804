//! The files of a server of version 1, read from its disk.

mod reading;
mod root;
mod walk;

use std::io;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream;

use self::reading::{Reading, Seen, expect_regular, is_absent, pieces, unreadable};
use self::root::Root;
use self::walk::Walk;
use super::Source;
use crate::filetracker::{NameLines, OldDownload, OldFile};
use crate::model::{EntryKey, Error, Kind, Result};
use crate::store::blocking::BlockingPool;

/// The folder of a server's directory that holds the files.
const FILES: &str = "files";
/// Jobs that may wait.
const BACKLOG: usize = 64;

/// A directory tree: a file's time of modification, without fractions, is its version.
pub struct Tree {
    root: Root,
    pool: BlockingPool,
}

impl Tree {
    /// The tree of a server whose directory this is; `threads` files are read at once.
    pub fn new(directory: &Path, threads: usize) -> Result<Self> {
        let failed = |error: io::Error| {
            let what = format!("{} is not the directory of a Filetracker server of version 1", directory.display());
            Error::new(Kind::Invalid, what).with_source(error)
        };
        let root = directory.join(FILES).canonicalize().map_err(failed)?;
        let root = Root::find(root).map_err(failed)?;
        let pool = BlockingPool::start("tree", threads.max(1), BACKLOG).map_err(failed)?;
        Ok(Self { root, pool })
    }

    /// The path of a file, by bytes: the kernel does not care whether they are text.
    fn path(&self, name: &EntryKey) -> PathBuf {
        self.root.path.join(name.name())
    }
}

#[async_trait]
impl Source for Tree {
    fn kind(&self) -> &'static str {
        "v1"
    }

    fn place(&self) -> String {
        self.root.path.parent().unwrap_or(&self.root.path).display().to_string()
    }

    async fn probe(&self) -> Result<()> {
        let root = self.root.clone();
        let failed = |error| Error::new(Kind::Unavailable, "the old server's files cannot be read").with_source(error);
        let read = move || root.expect_there().and_then(|()| root.path.read_dir().map(drop).map_err(failed));
        self.pool.run(move |_| read()).await?
    }

    async fn list(&self) -> Result<NameLines> {
        let root = self.root.clone();
        let opened = self.pool.run(move |_| Walk::new(root)).await?;
        let failed = |error| Error::new(Kind::Unavailable, "the old server's files cannot be read").with_source(error);
        let walk = opened.map_err(failed)?;
        let names = stream::try_unfold((walk, self.pool.clone()), |(mut walk, pool)| async move {
            let (found, walk) = pool.run(move |_| (walk.next(), walk)).await?;
            let found = found?;
            Ok(if found.is_empty() { None } else { Some((found, (walk, pool))) })
        });
        Ok(names.boxed())
    }

    async fn head(&self, name: &EntryKey) -> Result<Option<OldFile>> {
        let (path, root) = (self.path(name), self.root.clone());
        let look = move || match path.symlink_metadata() {
            Ok(metadata) if metadata.is_dir() => Ok(None),
            Ok(metadata) => {
                expect_regular(&metadata)?;
                Ok(Some(Seen::of(&metadata).file()))
            }
            Err(error) if is_absent(&error) => root.absent(),
            Err(error) => Err(unreadable(error)),
        };
        self.pool.run(move |_| look()).await?
    }

    async fn open(&self, name: &EntryKey) -> Result<Option<OldDownload>> {
        let (path, root) = (self.path(name), self.root.clone());
        let open = move || match Reading::open(path)? {
            None => root.absent(),
            opened => Ok(opened),
        };
        let opened = self.pool.run(move |_| open()).await??;
        Ok(opened.map(|(reading, first)| OldDownload {
            file: reading.before.file(),
            stream: pieces(reading, first, self.pool.clone()),
        }))
    }
}

#[cfg(test)]
mod tests;
