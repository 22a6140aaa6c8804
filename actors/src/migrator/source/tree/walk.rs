//! All names of the tree.

use std::ffi::OsStr;
use std::fs::DirEntry;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::reading::{is_absent, oddity};
use super::root::Root;
use crate::filetracker::ListedName;
use crate::model::{EntryKey, Namespace, Result};

/// Entries of directories that are looked at by one job.
const ENTRIES_MAX: usize = 1000;
/// How often a directory that cannot be read is tried, and the pause after the first time, which doubles.
const ATTEMPTS_MAX: u32 = 4;
const PAUSE_MIN: Duration = Duration::from_millis(50);

/// What a directory holds, as it is read.
type Entries = Box<dyn Iterator<Item = io::Result<DirEntry>> + Send>;

/// Opens directories.
type Opener = Box<dyn FnMut(&Path) -> io::Result<Entries> + Send>;

/// A directory that is being read.
struct Open {
    /// Below the root.
    name: PathBuf,
    entries: Entries,
    /// How often it broke off.
    breaks: u32,
}

/// A walk through the tree, in memory that grows with its depth only.
pub(super) struct Walk {
    /// From the root down.
    open: Vec<Open>,
    root: Root,
    opener: Opener,
}

impl Walk {
    pub(super) fn new(root: Root) -> io::Result<Self> {
        Self::with_opener(root, Box::new(|path| Ok(Box::new(path.read_dir()?) as Entries)))
    }

    fn with_opener(root: Root, mut opener: Opener) -> io::Result<Self> {
        let entries = insist(|| opener(&root.path))?;
        let open = vec![Open { name: PathBuf::new(), entries, breaks: 0 }];
        Ok(Self { open, root, opener })
    }

    /// What is found next; nothing at the end. An error when the root went away meanwhile.
    pub(super) fn next(&mut self) -> Result<Vec<ListedName>> {
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
        let Some(Open { name: directory, entries, .. }) = self.open.last_mut() else { return Ok(()) };
        let entry = match entries.next() {
            Some(Ok(entry)) => entry,
            Some(Err(error)) => return self.broke_off(&error, found),
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
            let path = self.root.path.join(&name);
            match insist(|| (self.opener)(&path)) {
                Ok(entries) => self.open.push(Open { name, entries, breaks: 0 }),
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

    /// Reads a directory again from its beginning, some times: what was found before is found again, which does no harm.
    fn broke_off(&mut self, error: &io::Error, found: &mut Vec<ListedName>) -> Result<()> {
        self.root.expect_there()?;
        let Some(Open { name, breaks, .. }) = self.open.pop() else { return Ok(()) };
        let path = self.root.path.join(&name);
        if breaks + 1 < ATTEMPTS_MAX && !is_lasting(error) {
            std::thread::sleep(PAUSE_MIN * 2_u32.pow(breaks));
            match insist(|| (self.opener)(&path)) {
                Ok(entries) => {
                    self.open.push(Open { name, entries, breaks: breaks + 1 });
                    return Ok(());
                }
                Err(error) if is_absent(&error) => return self.root.expect_there(),
                Err(_) => {}
            }
        }
        found.push(odd(&name, &format!("the directory cannot be read to its end: {error}")));
        Ok(())
    }
}

/// Does something again that fails, some times, unless that cannot help.
fn insist<T>(mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for failures in 0.. {
        match attempt() {
            Err(error) if failures + 1 < ATTEMPTS_MAX && !is_lasting(&error) => {
                std::thread::sleep(PAUSE_MIN * 2_u32.pow(failures));
            }
            outcome => return outcome,
        }
    }
    attempt()
}

/// Whether an error says something of the directory, and not of the moment.
fn is_lasting(error: &io::Error) -> bool {
    is_absent(error) || error.kind() == io::ErrorKind::PermissionDenied
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
    use super::*;

    const EIO: i32 = 5;

    fn broken() -> io::Error {
        io::Error::from_raw_os_error(EIO)
    }

    /// The names that a walk finds, when directories named `bad` fail that often: at their opening, and at their end.
    fn found(dir: &Path, mut openings: u32, mut ends: u32) -> Vec<String> {
        let opener = move |path: &Path| -> io::Result<Entries> {
            let entries = path.read_dir()?;
            if !path.ends_with("bad") {
                return Ok(Box::new(entries));
            }
            if openings > 0 {
                openings -= 1;
                return Err(broken());
            }
            let breaks = ends > 0;
            ends = ends.saturating_sub(1);
            Ok(Box::new(entries.chain(breaks.then(|| Err(broken())))))
        };
        let mut walk = Walk::with_opener(Root::find(dir.to_owned()).unwrap(), Box::new(opener)).unwrap();
        let mut found = Vec::new();
        loop {
            let next = walk.next().unwrap();
            if next.is_empty() {
                found.sort();
                found.dedup();
                return found;
            }
            found.extend(next.into_iter().map(|listed| match listed {
                ListedName::Name(name) => name.name().to_owned(),
                ListedName::Odd { line, why } => format!("{line}: {why}"),
            }));
        }
    }

    #[test]
    fn a_directory_that_fails_for_a_moment_is_read_again_and_one_that_stays_broken_is_named() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["bad/a", "bad/b/c", "good"] {
            std::fs::create_dir_all(dir.path().join(name).parent().unwrap()).unwrap();
            std::fs::write(dir.path().join(name), b"").unwrap();
        }
        let all = ["bad/a", "bad/b/c", "good"];
        for (openings, ends) in [(0, 0), (ATTEMPTS_MAX - 1, 0), (0, ATTEMPTS_MAX - 1), (2, 2)] {
            assert_eq!(found(dir.path(), openings, ends), all, "{openings} {ends}");
        }
        let lost = found(dir.path(), u32::MAX, 0);
        assert!(lost.len() == 2 && lost[0].starts_with("bad: the directory cannot be read: "), "{lost:?}");
        let cut = found(dir.path(), 0, u32::MAX);
        assert!(cut.len() == 4 && cut[2].starts_with("bad: the directory cannot be read to its end"), "{cut:?}");
    }
}
