//! Objects as files of a local folder, each with a description beside it.
//!
//! `ab/cd/<sha256>` holds the bytes, `ab/cd/<sha256>.json` describes them. An object is written
//! into a file without a name, which gets its name when it is complete, so that not even a kill
//! leaves part of one. The file and its folder entry are synced before `put` returns; the
//! description is not synced by itself: it only serves to rebuild lost metadata faster, and what
//! it says can be computed again from the bytes.

use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use async_trait::async_trait;

use self::write::Writer;
use super::{BlobPage, BlobReader, BlobStore, Deletion, SpooledBytes};
use crate::model::{BlobInfo, BlobKey, Error, Result};
use crate::store::blocking::BlockingPool;

mod describe;
mod owners;
mod read;
mod scan;
mod write;

/// Objects that are deleted without a break, so that the end of a server does not wait for many.
const DELETES_PER_JOB: usize = 100;

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
    root: Root,
    writer: Writer,
    writes: BlockingPool,
    deletes: BlockingPool,
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
        let root = Root::at(settings.root.canonicalize().map_err(failed)?).map_err(failed)?;
        let backlog = |threads: usize| threads * 4;
        let writes = BlockingPool::start("folder-write", settings.write_threads, backlog(settings.write_threads));
        // Uploads do not wait behind a cleaner.
        let deletes = BlockingPool::start("folder-delete", 1, backlog(1));
        let reads = BlockingPool::start("folder-read", settings.read_threads, backlog(settings.read_threads));
        let writer = Writer::new(root.path.clone());
        let (writes, deletes) = (writes.map_err(failed)?, deletes.map_err(failed)?);
        Ok(Self { root, writer, writes, deletes, reads: reads.map_err(failed)? })
    }

    /// [`Kind::Unavailable`](crate::model::Kind::Unavailable) while the folder is gone.
    async fn expect_there(&self) -> Result<()> {
        let root = self.root.clone();
        let found = self.reads.run(move |_| root.expect_there()).await?;
        found.map_err(|error| Error::io("the content folder is gone", error))
    }

    fn path(&self, key: &BlobKey) -> PathBuf {
        self.root.path.join(key.to_string())
    }
}

#[async_trait]
impl BlobStore for FolderStore {
    fn kind(&self) -> &'static str {
        "folder"
    }

    async fn put(&self, key: &BlobKey, body: &SpooledBytes, info: &BlobInfo) -> Result<()> {
        let (writer, root, key, body, info) = (self.writer.clone(), self.root.clone(), *key, body.clone(), *info);
        // Not below a mount point whose volume is away.
        let write = move || root.expect_there().and_then(|()| writer.write(&key, &body, &info));
        let written = self.writes.run(move |_| write()).await?;
        written.map_err(|error| Error::io("can't write to the content folder", error))
    }

    async fn open(&self, key: &BlobKey, range: Option<Range<u64>>) -> Result<Option<BlobReader>> {
        let opened = read::open(&self.reads, self.path(key), range).await?;
        if opened.is_none() {
            self.expect_there().await?;
        }
        Ok(opened)
    }

    async fn stat(&self, key: &BlobKey) -> Result<Option<BlobInfo>> {
        let path = self.path(key);
        let info = self.reads.run(move |_| describe::stat(&path)).await??;
        if info.is_none() {
            self.expect_there().await?;
        }
        Ok(info)
    }

    async fn delete(&self, keys: &[BlobKey]) -> Result<()> {
        self.delete_each(keys).await?.complete()
    }

    async fn delete_each(&self, keys: &[BlobKey]) -> Result<Deletion> {
        let mut deletion = Deletion::default();
        for keys in keys.chunks(DELETES_PER_JOB) {
            let objects: Vec<_> = keys.iter().map(|key| (*key, self.path(key))).collect();
            let kept = self.deletes.run(move |_| {
                let mut kept = Vec::new();
                for (key, path) in objects {
                    if let Err(error) = remove(&path) {
                        kept.push((key, error));
                    }
                }
                kept
            });
            for (key, error) in kept.await? {
                deletion.keep(key, || Error::io("can't delete from the content folder", error));
            }
            // What is away is not deleted.
            self.expect_there().await?;
        }
        Ok(deletion)
    }

    async fn list(&self, after: Option<&str>, limit: usize) -> Result<BlobPage> {
        let (root, after) = (self.root.path.clone(), after.map(str::to_owned));
        let listed = self.reads.run(move |_| scan::page(&root, after.as_deref(), limit)).await?;
        let listed = listed.map_err(|error| Error::io("can't list the content folder", error))?;
        self.expect_there().await?;
        Ok(listed)
    }

    async fn owners(&self) -> Result<Vec<String>> {
        let root = self.root.path.clone();
        let read = self.reads.run(move |_| owners::read(&root)).await?;
        let owners = read.map_err(|error| Error::io("can't read the content folder", error))?;
        self.expect_there().await?;
        Ok(owners)
    }

    async fn add_owner(&self, owner: &str) -> Result<()> {
        let (root, owner) = (self.root.path.clone(), owner.to_owned());
        let added = self.writes.run(move |_| owners::add(&root, &owner)).await?;
        added.map_err(|error| Error::io("can't write to the content folder", error))
    }

    async fn remove_owner(&self, owner: &str) -> Result<()> {
        let (root, owner) = (self.root.path.clone(), owner.to_owned());
        let removed = self.writes.run(move |_| owners::remove(&root, &owner)).await?;
        removed.map_err(|error| Error::io("can't write to the content folder", error))
    }

    async fn probe(&self) -> Result<()> {
        self.expect_there().await
    }
}

/// The folder as it was when it was opened. Where nothing is found the folder itself may be gone: unmounted, it is
/// missing, or it is another, empty one.
#[derive(Clone)]
struct Root {
    path: PathBuf,
    /// Its device and inode.
    identity: (u64, u64),
}

impl Root {
    fn at(path: PathBuf) -> io::Result<Self> {
        let metadata = std::fs::metadata(&path)?;
        Ok(Self { path, identity: (metadata.dev(), metadata.ino()) })
    }

    fn expect_there(&self) -> io::Result<()> {
        let metadata = std::fs::metadata(&self.path)?;
        if (metadata.dev(), metadata.ino()) == self.identity {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::NotFound, "another folder is in its place"))
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
