//! The folder of all files.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use crate::model::{Error, Kind, Result};

/// The folder of all files, as it was found. A disk that is not mounted any more leaves nothing, or another, empty folder:
/// then no file is absent, all are out of reach.
#[derive(Clone, Debug)]
pub(super) struct Root {
    pub(super) path: PathBuf,
    device: u64,
    inode: u64,
}

impl Root {
    pub(super) fn find(path: PathBuf) -> io::Result<Self> {
        path.read_dir()?;
        let metadata = path.metadata()?;
        Ok(Self { path, device: metadata.dev(), inode: metadata.ino() })
    }

    /// Blocks.
    pub(super) fn expect_there(&self) -> Result<()> {
        let away = |what: &dyn std::fmt::Display| {
            Error::new(Kind::Unavailable, "the old server's files are out of reach").with_source(what.to_string())
        };
        let metadata = self.path.metadata().map_err(|error| away(&error))?;
        if (metadata.dev(), metadata.ino()) == (self.device, self.inode) {
            return Ok(());
        }
        Err(away(&format!("{} is another folder than before: is its disk mounted?", self.path.display())))
    }

    /// What an absence means: that there is no such file, or that the root is away.
    pub(super) fn absent<T>(&self) -> Result<Option<T>> {
        self.expect_there().map(|()| None)
    }
}
