//! Objects as files of a local folder, each with a description beside it.
//!
//! `ab/cd/<sha256>` holds the bytes, `ab/cd/<sha256>.json` describes them. An object is written
//! into a file without a name, which gets its name when it is complete, so that not even a kill
//! leaves part of one. The file and its folder entry are synced before `put` returns; the
//! description is not synced by itself: it only serves to rebuild lost metadata faster, and what
//! it says can be computed again from the bytes.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use async_trait::async_trait;

use self::write::Writer;
use super::{BlobPage, BlobReader, BlobStore, SpooledBytes};
use crate::model::{BlobInfo, BlobKey, Error, Kind, Result};
use crate::store::blocking::BlockingPool;

mod describe;
mod owners;
mod read;
mod scan;
mod write;

/// Where the objects are, and how much is done at once.
#[derive(Clone, Debug)]
pub struct FolderSettings {
    /// The folder; made when it does not exist.
    pub root: PathBuf,
    /// Objects that are written (and synced) at the same time.
    pub write_threads: usize,
    /// Pieces that are read at the same time.
    pub read_threads: usize,
}

/// The store.
pub struct FolderStore {
    root: PathBuf,
    writer: Writer,
    writes: BlockingPool,
    reads: BlockingPool,
}

impl FolderStore {
    /// Opens the folder, makes it when it is missing. Blocks.
    pub fn open(settings: &FolderSettings) -> Result<Self> {
        let failed = |error| Error::io("open the content folder", error);
        std::fs::create_dir_all(&settings.root).map_err(failed)?;
        write::remove_leftovers(&settings.root).map_err(failed)?;
        Self::attach(settings)
    }

    /// The folder as it is: nothing is made or removed, a server may use it meanwhile. Blocks.
    pub fn attach(settings: &FolderSettings) -> Result<Self> {
        let failed = |error| Error::io("open the content folder", error);
        let root = settings.root.canonicalize().map_err(failed)?;
        let backlog = |threads: usize| threads * 4;
        let writes = BlockingPool::start("folder-write", settings.write_threads, backlog(settings.write_threads));
        let reads = BlockingPool::start("folder-read", settings.read_threads, backlog(settings.read_threads));
        let writer = Writer::new(root.clone());
        Ok(Self { root, writer, writes: writes.map_err(failed)?, reads: reads.map_err(failed)? })
    }

    fn path(&self, key: &BlobKey) -> PathBuf {
        self.root.join(key.to_string())
    }
}

#[async_trait]
impl BlobStore for FolderStore {
    fn kind(&self) -> &'static str {
        "folder"
    }

    async fn put(&self, key: &BlobKey, body: &SpooledBytes, info: &BlobInfo) -> Result<()> {
        let (writer, key, body, info) = (self.writer.clone(), *key, body.clone(), *info);
        let written = self.writes.run(move |_| writer.write(&key, &body, &info)).await?;
        written.map_err(|error| Error::io("can't write to the content folder", error))
    }

    async fn open(&self, key: &BlobKey, range: Option<Range<u64>>) -> Result<Option<BlobReader>> {
        read::open(&self.reads, self.path(key), range).await
    }

    async fn stat(&self, key: &BlobKey) -> Result<Option<BlobInfo>> {
        let path = self.path(key);
        self.reads.run(move |_| describe::stat(&path)).await?
    }

    async fn delete(&self, keys: &[BlobKey]) -> Result<()> {
        let paths: Vec<_> = keys.iter().map(|key| self.path(key)).collect();
        let deleted = self.writes.run(move |_| paths.iter().try_for_each(|path| remove(path))).await?;
        deleted.map_err(|error| Error::io("can't delete from the content folder", error))
    }

    async fn list(&self, after: Option<&str>, limit: usize) -> Result<BlobPage> {
        let (root, after) = (self.root.clone(), after.map(str::to_owned));
        let listed = self.reads.run(move |_| scan::page(&root, after.as_deref(), limit)).await?;
        listed.map_err(|error| Error::io("can't list the content folder", error))
    }

    async fn owners(&self) -> Result<Vec<String>> {
        let root = self.root.clone();
        let read = self.reads.run(move |_| owners::read(&root)).await?;
        read.map_err(|error| Error::io("can't read the content folder", error))
    }

    async fn add_owner(&self, owner: &str) -> Result<()> {
        let (root, owner) = (self.root.clone(), owner.to_owned());
        let added = self.writes.run(move |_| owners::add(&root, &owner)).await?;
        added.map_err(|error| Error::io("can't write to the content folder", error))
    }

    async fn remove_owner(&self, owner: &str) -> Result<()> {
        let (root, owner) = (self.root.clone(), owner.to_owned());
        let removed = self.writes.run(move |_| owners::remove(&root, &owner)).await?;
        removed.map_err(|error| Error::io("can't write to the content folder", error))
    }

    async fn probe(&self) -> Result<()> {
        let root = self.root.clone();
        let is_dir = self.reads.run(move |_| root.is_dir()).await?;
        if is_dir { Ok(()) } else { Err(Error::new(Kind::Unavailable, "the content folder is gone")) }
    }
}

/// Removes an object before its description, so that an interrupted removal can be told.
fn remove(path: &Path) -> io::Result<()> {
    for path in [path, &describe::path(path)] {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
