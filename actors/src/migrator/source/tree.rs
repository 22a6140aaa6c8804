//! The files of a server of version 1, read from its disk.

use std::ffi::OsStr;
use std::fs::{File, Metadata, ReadDir};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream;
use rustix::fs::OFlags;

use super::Source;
use crate::filetracker::{ListedName, NameLines, OldDownload, OldFile};
use crate::model::{EntryKey, Error, Kind, Namespace, Result, Stamp};
use crate::spool::BodyEncoding;
use crate::store::blocking::BlockingPool;

/// The folder of a server's directory that holds the files.
const FILES: &str = "files";
/// Entries of directories that are looked at by one job.
const ENTRIES_MAX: usize = 1000;
/// Bytes read by one job.
const PIECE_BYTES: u64 = 256 * 1024;
/// Jobs that may wait.
const BACKLOG: usize = 64;
/// The old server writes in place and sets the version at the end: a file that was touched less than this ago is looked at
/// again when the time has passed.
const SETTLED_AFTER: Duration = Duration::from_secs(2);

/// A directory tree: a file's time of modification, without fractions, is its version.
pub struct Tree {
    root: Root,
    pool: BlockingPool,
}

/// The folder of all files, as it was found. A disk that is not mounted any more leaves nothing, or another, empty folder:
/// then no file is absent, all are out of reach.
#[derive(Clone, Debug)]
struct Root {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Root {
    fn find(path: PathBuf) -> io::Result<Self> {
        path.read_dir()?;
        let metadata = path.metadata()?;
        Ok(Self { path, device: metadata.dev(), inode: metadata.ino() })
    }

    /// Blocks.
    fn expect_there(&self) -> Result<()> {
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
    fn absent<T>(&self) -> Result<Option<T>> {
        self.expect_there().map(|()| None)
    }
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

/// What tells one state of a file from another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Seen {
    inode: u64,
    size: u64,
    modified: (i64, i64),
    touched: (i64, i64),
}

impl Seen {
    fn of(metadata: &Metadata) -> Self {
        Self {
            inode: metadata.ino(),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            touched: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    fn file(&self) -> OldFile {
        OldFile {
            // Seconds are rounded down, before 1970 too: nanoseconds are never negative.
            stamp: Stamp::from_seconds(self.modified.0),
            logical_size: Some(self.size),
            length: Some(self.size),
            encoding: BodyEncoding::Plain,
            tag: None,
        }
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
struct Reading {
    path: PathBuf,
    file: File,
    before: Seen,
    read: u64,
}

impl Reading {
    /// Opens a file and reads its first piece; `None` when there is no such file.
    fn open(path: PathBuf) -> Result<Option<(Self, Bytes)>> {
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

fn pieces(reading: Reading, first: Bytes, pool: BlockingPool) -> stream::BoxStream<'static, Result<Bytes>> {
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

fn expect_regular(metadata: &Metadata) -> Result<()> {
    match oddity(metadata.file_type()) {
        Some(what) => Err(Error::new(Kind::Invalid, what)),
        None => Ok(()),
    }
}

/// What it is instead of a file or a directory.
fn oddity(kind: std::fs::FileType) -> Option<&'static str> {
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

/// A path through a file leads nowhere either.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn unreadable(error: io::Error) -> Error {
    // Waiting will not help.
    let kind = match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidFilename => Kind::Invalid,
        _ => Kind::Unavailable,
    };
    Error::new(kind, format!("the file cannot be read: {error}"))
}

/// A walk through the tree, in memory that grows with its depth only.
struct Walk {
    /// From the root down: directories, with their names below the root, and where they are read.
    open: Vec<(PathBuf, ReadDir)>,
    root: Root,
}

impl Walk {
    fn new(root: Root) -> io::Result<Self> {
        Ok(Self { open: vec![(PathBuf::new(), root.path.read_dir()?)], root })
    }

    /// What is found next; nothing at the end. An error when the root went away meanwhile.
    fn next(&mut self) -> Result<Vec<ListedName>> {
        let mut found = Vec::new();
        while found.is_empty() && !self.open.is_empty() {
            for _ in 0..ENTRIES_MAX {
                if let Err(error) = self.step(&mut found) {
                    self.open.clear();
                    return Err(error);
                }
            }
        }
        if found.is_empty() {
            self.root.expect_there()?;
        }
        Ok(found)
    }

    fn step(&mut self, found: &mut Vec<ListedName>) -> Result<()> {
        let Some((directory, entries)) = self.open.last_mut() else { return Ok(()) };
        let entry = match entries.next() {
            Some(Ok(entry)) => entry,
            Some(Err(error)) => {
                found.push(odd(directory, &format!("the directory cannot be read to its end: {error}")));
                self.open.pop();
                return self.root.expect_there();
            }
            None => {
                self.open.pop();
                return Ok(());
            }
        };
        let name = directory.join(entry.file_name());
        let kind = match entry.file_type() {
            Ok(kind) => kind,
            // Gone meanwhile.
            Err(error) if is_absent(&error) => return self.root.expect_there(),
            Err(error) => {
                found.push(odd(&name, &format!("it cannot be looked at: {error}")));
                return Ok(());
            }
        };
        if kind.is_dir() {
            match self.root.path.join(&name).read_dir() {
                Ok(entries) => self.open.push((name, entries)),
                Err(error) if is_absent(&error) => return self.root.expect_there(),
                Err(error) => found.push(odd(&name, &format!("the directory cannot be read: {error}"))),
            }
            return Ok(());
        }
        found.push(match oddity(kind) {
            Some(what) => odd(&name, what),
            None => listed(name.as_os_str()),
        });
        Ok(())
    }
}

fn listed(name: &OsStr) -> ListedName {
    match EntryKey::parse(Namespace::FILETRACKER, name.as_bytes()) {
        Ok(key) => ListedName::Name(key),
        Err(why) => odd(Path::new(name), &why.to_string()),
    }
}

fn odd(name: &Path, why: &str) -> ListedName {
    let shown = match name.to_str() {
        Some("") => ".".to_owned(),
        Some(text) if !text.contains(char::is_control) => text.to_owned(),
        _ => name.as_os_str().as_bytes().escape_ascii().to_string(),
    };
    ListedName::Odd { line: shown, why: why.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn tree() -> (tempfile::TempDir, Tree) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(FILES)).unwrap();
        let tree = Tree::new(dir.path(), 2).unwrap();
        (dir, tree)
    }

    fn key(name: &str) -> EntryKey {
        EntryKey::parse(Namespace::FILETRACKER, name.as_bytes()).unwrap()
    }

    fn write(tree: &Tree, name: &str, bytes: &[u8], modified: SystemTime) {
        let path = tree.root.path.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        File::options().write(true).open(path).unwrap().set_modified(modified).unwrap();
    }

    async fn content(tree: &Tree, name: &str) -> Result<Option<(i64, Vec<u8>)>> {
        let Some(mut download) = tree.open(&key(name)).await? else { return Ok(None) };
        let mut bytes = Vec::new();
        while let Some(piece) = download.stream.next().await {
            bytes.extend_from_slice(&piece?);
        }
        Ok(Some((download.file.stamp.seconds(), bytes)))
    }

    async fn names(tree: &Tree) -> BTreeMap<String, String> {
        let mut names = BTreeMap::new();
        let mut listing = tree.list().await.unwrap();
        while let Some(found) = listing.next().await {
            for listed in found.unwrap() {
                match listed {
                    ListedName::Name(name) => names.insert(name.name().to_owned(), String::new()),
                    ListedName::Odd { line, why } => names.insert(line, why),
                };
            }
        }
        names
    }

    #[actix_rt::test]
    async fn files_are_listed_and_everything_else_is_named_as_what_it_is() {
        let (_dir, tree) = tree();
        assert!(names(&tree).await.is_empty());
        for name in ["a", "b/c/d", "żółć/ł", "odd\nname"] {
            write(&tree, name, b"x", UNIX_EPOCH);
        }
        let bad = tree.root.path.join(OsStr::from_bytes(b"b/\xff"));
        std::fs::write(bad, b"x").unwrap();
        std::os::unix::fs::symlink("/nowhere", tree.root.path.join("b/link")).unwrap();
        std::os::unix::fs::symlink(tree.root.path.join("b"), tree.root.path.join("to-a-directory")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(tree.root.path.join("socket")).unwrap();
        std::fs::create_dir(tree.root.path.join("empty")).unwrap();
        let found = names(&tree).await;
        let link = "a symbolic link, which is not followed";
        let want = [
            ("a", ""),
            ("b/\\xff", "path is not valid UTF-8"),
            ("b/c/d", ""),
            ("b/link", link),
            ("odd\\nname", "path has a control character"),
            ("socket", "a socket, not a file"),
            ("to-a-directory", link),
            ("żółć/ł", ""),
        ];
        let found: Vec<_> = found.iter().map(|(name, why)| (name.as_str(), why.as_str())).collect();
        assert_eq!(found, want);
    }

    #[actix_rt::test]
    async fn versions_are_rounded_down_and_contents_are_whole() {
        let (_dir, tree) = tree();
        let long: Vec<u8> = (0..700_000_u32).map(|number| number as u8).collect();
        write(&tree, "late", b"abc", UNIX_EPOCH + Duration::from_millis(1999));
        write(&tree, "early", &long, UNIX_EPOCH - Duration::from_millis(500));
        write(&tree, "d/empty", b"", UNIX_EPOCH + Duration::from_secs(1 << 33));
        write(&tree, "piece", &long[..PIECE_BYTES as usize], UNIX_EPOCH);
        assert_eq!(content(&tree, "late").await.unwrap(), Some((1, b"abc".to_vec())));
        assert_eq!(content(&tree, "early").await.unwrap(), Some((-1, long.clone())));
        assert_eq!(content(&tree, "d/empty").await.unwrap(), Some((1 << 33, Vec::new())));
        assert_eq!(content(&tree, "piece").await.unwrap(), Some((0, long[..PIECE_BYTES as usize].to_vec())));
        for absent in ["nothing", "late/below", "d"] {
            assert_eq!(content(&tree, absent).await.unwrap(), None, "{absent}");
            assert_eq!(tree.head(&key(absent)).await.unwrap(), None, "{absent}");
        }
        assert_eq!(tree.head(&key("late")).await.unwrap().unwrap().stamp.seconds(), 1);
        std::os::unix::fs::symlink("late", tree.root.path.join("link")).unwrap();
        for error in [content(&tree, "link").await.unwrap_err(), tree.head(&key("link")).await.unwrap_err()] {
            assert_eq!((error.kind(), error.context()), (Kind::Invalid, "a symbolic link, which is not followed"));
        }
    }

    #[actix_rt::test]
    async fn a_file_that_changes_while_it_is_read_is_an_error() {
        let (_dir, tree) = tree();
        let long = vec![7; 600_000];
        write(&tree, "f", &long, UNIX_EPOCH);
        for change in 0..3 {
            let mut download = tree.open(&key("f")).await.unwrap().unwrap();
            download.stream.next().await.unwrap().unwrap();
            match change {
                0 => write(&tree, "f", &long[1..], UNIX_EPOCH),
                1 => write(&tree, "f", &long, UNIX_EPOCH + Duration::from_secs(1)),
                _ => std::fs::remove_file(tree.root.path.join("f")).unwrap(),
            }
            let mut outcome = Ok(());
            while let Some(piece) = download.stream.next().await {
                outcome = piece.map(drop);
            }
            assert_eq!(outcome.unwrap_err().kind(), Kind::Unavailable, "{change}");
        }
    }

    #[actix_rt::test]
    async fn files_of_a_root_that_is_away_are_out_of_reach_and_not_absent() {
        let (dir, tree) = tree();
        for name in ["a", "b/c"] {
            write(&tree, name, b"x", UNIX_EPOCH);
        }
        let (files, away) = (dir.path().join(FILES), dir.path().join("away"));
        let mut walk = Walk::new(tree.root.clone()).unwrap();
        std::fs::rename(&files, &away).unwrap();
        for is_other_there in [false, true] {
            if is_other_there {
                std::fs::create_dir(&files).unwrap();
            }
            for error in [content(&tree, "a").await.unwrap_err(), tree.head(&key("a")).await.unwrap_err()] {
                assert_eq!(error.kind(), Kind::Unavailable);
            }
            assert_eq!(tree.probe().await.unwrap_err().kind(), Kind::Unavailable);
            assert_eq!(walk.next().err().map(|error| error.kind()), Some(Kind::Unavailable));
        }
        std::fs::remove_dir(&files).unwrap();
        std::fs::rename(&away, &files).unwrap();
        assert_eq!(content(&tree, "a").await.unwrap(), Some((0, b"x".to_vec())));
        assert_eq!(tree.head(&key("nothing")).await.unwrap(), None);
        assert_eq!(names(&tree).await.len(), 2);
    }

    #[test]
    fn a_directory_without_files_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let refusal = Tree::new(dir.path(), 1).err().unwrap();
        assert_eq!(refusal.kind(), Kind::Invalid);
        assert!(refusal.context().contains("version 1"), "{refusal}");
    }
}
