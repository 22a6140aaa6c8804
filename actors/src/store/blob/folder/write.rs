//! Writing an object: complete and synced before it counts.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, CWD, linkat};

use super::super::SpooledBytes;
use super::describe;
use crate::model::{BlobInfo, BlobKey};

/// Files that wait for their name where the file system can't make files without one.
const WAITING_PREFIX: &str = ".waiting-";

/// Bytes copied at once from a spool file.
const COPY_BYTES: usize = 256 * 1024;

/// Writes objects below a folder; clones share what they know of it.
#[derive(Clone)]
pub(super) struct Writer {
    root: PathBuf,
    /// Folders that are known to exist durably.
    folders: Arc<Mutex<HashSet<PathBuf>>>,
}

impl Writer {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root, folders: Arc::default() }
    }

    /// Writes an object and its description; the object is durable when it returns.
    pub(super) fn write(&self, key: &BlobKey, body: &SpooledBytes, info: &BlobInfo) -> io::Result<()> {
        let path = self.root.join(key.to_string());
        let folder = path.parent().unwrap_or(&self.root);
        self.ensure_folder(folder)?;
        describe::write(&path, info)?;
        // A large body is in an unnamed file already: when that is on the same file system, it
        // only needs a name.
        let named = body.file().is_some_and(|spool| spool.metadata().is_ok_and(|it| it.len() == body.len()))
            && body.file().is_some_and(|spool| name_file(spool, &path).is_ok());
        let file = if named {
            File::open(&path)?
        } else {
            let file = self.unnamed_file(folder)?;
            copy(body, file.as_ref())?;
            file.name(&path)?
        };
        file.sync_all()?;
        File::open(folder)?.sync_all()
    }

    /// Makes a folder and syncs the entries that lead to it.
    fn ensure_folder(&self, folder: &Path) -> io::Result<()> {
        let known = |path: &Path| self.folders.lock().unwrap_or_else(PoisonError::into_inner).contains(path);
        if folder == self.root || known(folder) {
            return Ok(());
        }
        let parent = folder.parent().unwrap_or(&self.root);
        self.ensure_folder(parent)?;
        match std::fs::create_dir(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        File::open(parent)?.sync_all()?;
        self.folders.lock().unwrap_or_else(PoisonError::into_inner).insert(folder.to_owned());
        Ok(())
    }

    fn unnamed_file(&self, folder: &Path) -> io::Result<Unnamed> {
        use rustix::fs::{Mode, OFlags, open};
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        match open(folder, flags, Mode::RUSR | Mode::WUSR | Mode::RGRP) {
            Ok(file) => Ok(Unnamed::Nameless(file.into())),
            // Some file systems (NFS, older overlays) have no files without a name.
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::ISDIR | rustix::io::Errno::INVAL) => {
                let builder = tempfile::Builder::new().prefix(WAITING_PREFIX).tempfile_in(&self.root)?;
                Ok(Unnamed::Waiting(builder))
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// A file that goes away unless it gets its name.
enum Unnamed {
    Nameless(File),
    Waiting(tempfile::NamedTempFile),
}

impl Unnamed {
    fn name(self, path: &Path) -> io::Result<File> {
        match self {
            Self::Nameless(file) => name_file(&file, path).map(|()| file),
            Self::Waiting(file) => file.persist(path).map_err(|error| error.error),
        }
    }
}

impl AsRef<File> for Unnamed {
    fn as_ref(&self) -> &File {
        match self {
            Self::Nameless(file) => file,
            Self::Waiting(file) => file.as_file(),
        }
    }
}

/// Gives a file without a name its name. A file of that name can only be an earlier attempt of the
/// same upload: it is replaced.
fn name_file(file: &File, path: &Path) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let source = format!("/proc/self/fd/{}", file.as_raw_fd());
    let link = || linkat(CWD, &source, CWD, path, AtFlags::SYMLINK_FOLLOW);
    match link() {
        Err(rustix::io::Errno::EXIST) => {
            std::fs::remove_file(path)?;
            link().map_err(io::Error::from)
        }
        other => other.map_err(io::Error::from),
    }
}

fn copy(body: &SpooledBytes, mut target: &File) -> io::Result<()> {
    if let Some(pieces) = body.memory() {
        return pieces.iter().try_for_each(|piece| target.write_all(piece));
    }
    let Some(spool) = body.file() else { return Ok(()) };
    let mut buffer = vec![0; COPY_BYTES];
    let mut offset = 0;
    while offset < body.len() {
        let wanted = usize::try_from(body.len() - offset).map_or(COPY_BYTES, |left| left.min(COPY_BYTES));
        let piece = &mut buffer[..wanted];
        spool.read_exact_at(piece, offset)?;
        target.write_all(piece)?;
        offset += piece.len() as u64;
    }
    Ok(())
}

/// Removes files that never got their name because the process was killed.
pub(super) fn remove_leftovers(root: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(root)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(WAITING_PREFIX) {
            std::fs::remove_file(entry.path())?;
        }
    }
    // Proves that the folder can be written before the first client finds out.
    let probe = root.join(format!("{WAITING_PREFIX}probe-{}", std::process::id()));
    OpenOptions::new().write(true).create(true).truncate(true).open(&probe)?;
    std::fs::remove_file(probe)
}
