//! The files of exports: written beside, synced, renamed; old ones removed. Everything here blocks.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufReader, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use chrono::DateTime;
use tempfile::NamedTempFile;

use crate::backup::names_in;
use crate::model::Stamp;

/// Stands for the time in the name of a file.
const TIME: &str = "{time}";
/// How it is written: in the order of time, and the same length for the next thousands of years.
const TIME_FORMAT: &str = "%Y%m%dT%H%M%SZ";
/// Its length.
const TIME_CHARACTERS: usize = 16;
/// The ending of a file that is not complete.
const PART: &str = ".part";
/// Such a file is left over from a process that was killed when nobody wrote to it for so long.
const PART_AGE: Duration = Duration::from_secs(24 * 3600);

/// An export that is being written.
pub(super) struct Draft {
    out: NamedTempFile,
    target: PathBuf,
    pattern: PathBuf,
    keep: usize,
    /// Of the newest export before this one.
    former: Option<Former>,
}

struct Former {
    path: PathBuf,
    names: u64,
}

impl Draft {
    /// Begins a file for `pattern` at the time `now`.
    pub fn begin(pattern: &Path, keep: usize, now: Stamp) -> io::Result<Self> {
        let name = file_name(pattern)?;
        let folder = folder(pattern);
        remove_leftovers(folder, name);
        let former = former(pattern)?;
        let target = folder.join(name.replace(TIME, &written(now)));
        // A device or a link would be gone.
        if target.symlink_metadata().is_ok_and(|found| !found.is_file()) {
            return Err(io::Error::other(format!("{} is there and no file", target.display())));
        }
        let out = tempfile::Builder::new().prefix(&format!(".{name}.")).suffix(PART).tempfile_in(folder)?;
        Ok(Self { out, target, pattern: pattern.to_owned(), keep: keep.max(1), former })
    }

    pub fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        self.out.write_all(lines)
    }

    /// Puts the file in its place, with `names` in it, and removes older ones than the newest `keep`.
    ///
    /// A database that has lost names must not take the exports along that would bring them back: one without any names
    /// replaces none that has some, and one with less than half of the former's leaves all former ones.
    pub fn finish(self, names: u64) -> io::Result<PathBuf> {
        let Self { out, target, pattern, keep, former } = self;
        let had = former.as_ref().map_or(0, |former| former.names);
        if names == 0 && had > 0 {
            return Err(io::Error::other(format!(
                "the database has no names, the export before had {had}: that one stays"
            )));
        }
        let is_poorer = names < had / 2;
        if is_poorer {
            log::error!("an export has {names} names, the one before had {had}: all former ones stay");
        }
        out.as_file().sync_all()?;
        if let Some(former) = former.filter(|former| is_poorer && former.path == target) {
            let aside = format!("{}.before-{}", file_name(&target)?, written(Stamp::now()));
            fs::rename(&former.path, folder(&target).join(aside))?;
        }
        out.persist(&target)?;
        let folder = folder(&target);
        File::open(folder)?.sync_all()?;
        if !is_poorer {
            let mut files = exports(&pattern)?;
            files.truncate(files.len().saturating_sub(keep));
            for old in files {
                fs::remove_file(folder.join(old))?;
            }
        }
        Ok(target)
    }
}

fn folder(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn file_name(path: &Path) -> io::Result<&str> {
    let name = path.file_name().and_then(OsStr::to_str);
    name.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the export has no name for a file"))
}

fn written(time: Stamp) -> String {
    DateTime::from_timestamp(time.seconds(), 0).unwrap_or_default().format(TIME_FORMAT).to_string()
}

/// Names of the files of a pattern with a time, the oldest first; none for another one.
fn exports(pattern: &Path) -> io::Result<Vec<String>> {
    let Some((before, after)) = file_name(pattern)?.split_once(TIME) else { return Ok(Vec::new()) };
    let is_time = |text: &str| {
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        text.len() == TIME_CHARACTERS
            && text.is_ascii()
            && (&text[8..9], &text[15..]) == ("T", "Z")
            && digits(&text[..8])
            && digits(&text[9..15])
    };
    let mut found = Vec::new();
    for entry in folder(pattern).read_dir()? {
        let Ok(name) = entry?.file_name().into_string() else { continue };
        let time = name.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
        if time.is_some_and(is_time) {
            found.push(name);
        }
    }
    found.sort();
    Ok(found)
}

/// The newest export there is.
fn former(pattern: &Path) -> io::Result<Option<Former>> {
    let path = match file_name(pattern)?.contains(TIME) {
        true => exports(pattern)?.pop().map(|name| folder(pattern).join(name)),
        false => Some(pattern.to_owned()),
    };
    let Some(path) = path else { return Ok(None) };
    match File::open(&path) {
        Ok(file) => {
            let is_empty = file.metadata()?.len() == 0;
            match names_in(&mut BufReader::new(file)) {
                Some(names) => Ok(Some(Former { path, names })),
                None if is_empty => Ok(None),
                // Somebody may have given the path of the database, say.
                None => Err(io::Error::other(format!("{} is no export: it is not replaced", path.display()))),
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes what killed processes left. Failing to is no reason not to export.
fn remove_leftovers(folder: &Path, name: &str) {
    let Ok(entries) = folder.read_dir() else { return };
    let prefix = format!(".{name}.");
    for entry in entries.flatten() {
        let is_part = entry.file_name().to_str().is_some_and(|name| name.starts_with(&prefix) && name.ends_with(PART));
        let modified = entry.metadata().and_then(|metadata| metadata.modified());
        let is_old = modified.is_ok_and(|time| SystemTime::now().duration_since(time).is_ok_and(|age| age > PART_AGE));
        if is_part && is_old {
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn export(pattern: &Path, time: i64, names: u64) -> io::Result<PathBuf> {
        let mut draft = Draft::begin(pattern, 2, Stamp::from_seconds(time))?;
        let header = format!(
            r#"{{"kind":"s3dedup names","format":1,"created":1,"entries":{names},"contents":1,"logical_bytes":1}}"#
        );
        draft.write(format!("{header}\n").as_bytes())?;
        draft.finish(names)
    }

    fn files(folder: &Path) -> Vec<String> {
        let files = folder.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut files: Vec<_> = files.collect();
        files.sort();
        files
    }

    #[test]
    fn what_is_no_file_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("nothing", &link).unwrap();
        export(&link, 1, 100).unwrap_err();
        assert!(link.is_symlink());
        assert_eq!(files(dir.path()), ["link"], "nothing is left beside it");
    }

    #[test]
    fn the_newest_stay_and_strangers_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let pattern = dir.path().join("names-{time}.jsonl");
        for stranger in ["names-.jsonl", "names-20200101T000000Z.jsonl.gz", "names-2020x101T000000Z.jsonl"] {
            fs::write(dir.path().join(stranger), "x").unwrap();
        }
        for time in 0..5 {
            export(&pattern, time, 100).unwrap();
        }
        let want = ["names-19700101T000003Z.jsonl", "names-19700101T000004Z.jsonl"];
        let ours: Vec<_> = files(dir.path()).into_iter().filter(|name| name.starts_with("names-1970")).collect();
        assert_eq!(ours, want);
        assert_eq!(files(dir.path()).len(), 5);
    }

    #[test]
    fn a_file_that_is_no_export_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kv.db");
        fs::write(&path, "").unwrap();
        export(&path, 1, 5).unwrap();
        fs::write(&path, "SQLite format 3").unwrap();
        assert!(export(&path, 1, 5).unwrap_err().to_string().contains("no export"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "SQLite format 3");
    }

    #[test]
    fn a_database_that_lost_its_names_does_not_take_the_exports_along() {
        let dir = tempfile::tempdir().unwrap();
        let pattern = dir.path().join("names-{time}.jsonl");
        let single = dir.path().join("names.jsonl");
        for path in [&pattern, &single] {
            export(path, 1, 0).unwrap();
            export(path, 2, 100).unwrap();
            assert!(export(path, 3, 0).unwrap_err().to_string().contains("no names"));
            assert_eq!(former(path).unwrap().unwrap().names, 100);
            export(path, 4, 49).unwrap();
        }
        assert_eq!(exports(&pattern).unwrap().len(), 3);
        let aside = files(dir.path()).into_iter().find(|name| name.starts_with("names.jsonl.before-")).unwrap();
        assert!(fs::read_to_string(dir.path().join(aside)).unwrap().contains(":100,"));
        // The poorer one is what later ones are compared with.
        export(&pattern, 5, 49).unwrap();
        assert_eq!(exports(&pattern).unwrap().len(), 2);
        assert!(!files(dir.path()).iter().any(|name| name.ends_with(PART)));
    }
}
