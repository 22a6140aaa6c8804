//! Writing an object: complete and synced before it counts.

use std::collections::HashSet;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, CWD, linkat};

use super::super::SpooledBytes;
use super::describe;
use crate::failpoint::{self, Point};
use crate::model::{BlobInfo, BlobKey};

/// Files that wait for their name where the file system can't make files without one.
const WAITING_PREFIX: &str = ".waiting-";

/// Folders that are remembered: all of a layout of depth two. Forgetting them costs only syncs.
const FOLDERS_MAX: usize = 70_000;

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
        match self.try_write(key, body, info) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Somebody tidied empty folders away: none of them is known any more.
                self.folders.lock().unwrap_or_else(PoisonError::into_inner).clear();
                self.try_write(key, body, info)
            }
            outcome => outcome,
        }
    }

    fn try_write(&self, key: &BlobKey, body: &SpooledBytes, info: &BlobInfo) -> io::Result<()> {
        let path = self.root.join(key.to_string());
        let folder = path.parent().unwrap_or(&self.root);
        let new_entries = self.make_folders(folder)?;
        let waiting = waiting_name(&self.root);
        let described = describe::write(&path, info, &waiting);
        let written = described.and_then(|()| self.write_object(&path, folder, body));
        if written.is_err() {
            // Best effort: a description without an object says nothing.
            drop(std::fs::remove_file(&waiting));
            if !path.exists() {
                drop(std::fs::remove_file(describe::path(&path)));
            }
        }
        // The object first: where the file system keeps a journal, its sync takes along the entries
        // that lead to it, and the syncs of the folders find nothing left to do.
        written?.sync_all()?;
        File::open(folder)?.sync_all()?;
        for made in new_entries {
            File::open(made.parent().unwrap_or(&self.root))?.sync_all()?;
            let mut folders = self.folders.lock().unwrap_or_else(PoisonError::into_inner);
            if folders.len() >= FOLDERS_MAX {
                folders.clear();
            }
            folders.insert(made);
        }
        Ok(())
    }

    /// Writes the bytes and gives them their name.
    fn write_object(&self, path: &Path, folder: &Path, body: &SpooledBytes) -> io::Result<File> {
        // A large body is in an unnamed file already: when that is on the same file system, it
        // only needs a name.
        if body.file().is_some() {
            mid_upload()?;
        }
        if let Some(spool) = body.file()
            && spool.metadata()?.len() == body.len()
            && spool.set_permissions(Permissions::from_mode(describe::FILE_MODE)).is_ok()
            && name_file(&self.root, spool, path).is_ok()
        {
            return File::open(path);
        }
        let file = self.unnamed_file(folder)?;
        copy(body, file.as_ref())?;
        mid_upload()?;
        file.name(&self.root, path)
    }

    /// Makes a folder and those above it; returns those, the folder first, whose entries are not
    /// known to be durable yet.
    fn make_folders(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        let is_known = |path: &Path| self.folders.lock().unwrap_or_else(PoisonError::into_inner).contains(path);
        let new: Vec<_> = folder.ancestors().take_while(|path| *path != self.root && !is_known(path)).collect();
        for folder in new.iter().rev() {
            match std::fs::create_dir(folder) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        Ok(new.into_iter().map(Path::to_owned).collect())
    }

    fn unnamed_file(&self, folder: &Path) -> io::Result<Unnamed> {
        use rustix::fs::{Mode, OFlags, open};
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        match open(folder, flags, Mode::from_raw_mode(describe::FILE_MODE)) {
            Ok(file) => Ok(Unnamed::Nameless(file.into())),
            // Some file systems (NFS, older overlays) have no files without a name.
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::ISDIR | rustix::io::Errno::INVAL) => {
                let mode = Permissions::from_mode(describe::FILE_MODE);
                let builder =
                    tempfile::Builder::new().prefix(WAITING_PREFIX).permissions(mode).tempfile_in(&self.root)?;
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
    fn name(self, root: &Path, path: &Path) -> io::Result<File> {
        match self {
            Self::Nameless(file) => name_file(root, &file, path).map(|()| file),
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

/// A name that nothing else has, for what gets its real name later.
fn waiting_name(root: &Path) -> PathBuf {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    root.join(format!("{WAITING_PREFIX}{}-{number}", std::process::id()))
}

/// Gives a file without a name its name. A file of that name can only be another attempt of the same
/// upload: it is replaced in one step, since a reader may open it at any time.
fn name_file(root: &Path, file: &File, path: &Path) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let source = format!("/proc/self/fd/{}", file.as_raw_fd());
    let link = |target: &Path| linkat(CWD, &source, CWD, target, AtFlags::SYMLINK_FOLLOW);
    match link(path) {
        Err(rustix::io::Errno::EXIST) => {
            let waiting = waiting_name(root);
            link(&waiting)?;
            std::fs::rename(&waiting, path)?;
            // When both were names of one file already, renaming leaves both.
            match std::fs::remove_file(&waiting) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            }
        }
        other => other.map_err(io::Error::from),
    }
}

/// The bytes are there, or some of them; the name is not.
fn mid_upload() -> io::Result<()> {
    failpoint::hit_blocking(Point::PutMidUpload).map_err(io::Error::other)
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::model::{BlobHash, Digest, Encoding, KeyLayout};

    #[test]
    fn folders_that_were_removed_are_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let spool = tempfile::tempfile_in(dir.path()).unwrap();
        let body = SpooledBytes::in_file(spool, 0);
        let digest = Digest::from_bytes([2; 32]);
        let key = BlobKey { digest, generation: 0, layout: KeyLayout::new(2) };
        let stored_hash = BlobHash::from_bytes(*blake3::hash(b"").as_bytes());
        let info = BlobInfo { digest, logical_size: 0, encoding: Encoding::Gzip, stored_size: 0, stored_hash };
        let writer = Writer::new(dir.path().to_owned());
        writer.write(&key, &body, &info).unwrap();
        std::fs::remove_dir_all(dir.path().join("02")).unwrap();
        let again = BlobKey { generation: 1, ..key };
        let body = SpooledBytes::in_file(tempfile::tempfile_in(dir.path()).unwrap(), 0);
        writer.write(&again, &body, &info).unwrap();
        assert!(dir.path().join(again.to_string()).exists());
    }

    #[test]
    fn a_body_in_a_file_is_named_not_copied_where_possible() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = tempfile::tempfile_in(dir.path()).unwrap();
        spool.write_all(b"hello").unwrap();
        let inode = spool.metadata().unwrap().ino();
        let body = SpooledBytes::in_file(spool, 5);
        let digest = Digest::from_bytes([1; 32]);
        let key = BlobKey { digest, generation: 0, layout: KeyLayout::new(2) };
        let stored_hash = BlobHash::from_bytes(*blake3::hash(b"hello").as_bytes());
        let info = BlobInfo { digest, logical_size: 9, encoding: Encoding::Gzip, stored_size: 5, stored_hash };
        let writer = Writer::new(dir.path().to_owned());
        for _ in 0..2 {
            writer.write(&key, &body, &info).unwrap();
            let path = dir.path().join(key.to_string());
            assert_eq!(std::fs::read(&path).unwrap(), b"hello");
            assert_eq!(std::fs::metadata(&path).unwrap().ino(), inode);
        }
        let names: Vec<_> = dir.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["01"], "something was left behind");
    }
}
