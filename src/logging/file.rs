//! The log file: one that is written, and a few that were put aside.
//!
//! The crate file-rotate was looked at: it panics where a folder cannot be made, silently loses what is written while a file
//! cannot be opened, and never notices that a file was moved away.

use std::fmt;
use std::fs::{self, File, Metadata, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::line::timestamp;

/// How often it is looked whether the file is still where it was.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Digits of the number of a file, as files of one second have it; more when these do not do.
const NUMBER_DIGITS: usize = 3;
/// More are no number of ours.
const NUMBER_DIGITS_MAX: usize = 9;
const DAY_SECONDS: u64 = 86_400;
/// Names of files and addresses of clients are not for everybody on the machine.
const MODE: u32 = 0o640;

/// When a file is put aside and a new one begun.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rotation {
    /// With the first line of a day, in UTC, and before it gets larger than so many bytes.
    Daily(u64),
    /// Before it gets larger than so many bytes.
    Size(u64),
    /// By others: a file that was moved away is begun anew.
    Never,
}

/// The file. It is opened when there is something to write.
pub struct LogFile {
    path: PathBuf,
    rotation: Rotation,
    keep: usize,
    open: Option<Open>,
    /// It could not be put aside the last time.
    is_stuck: bool,
}

struct Open {
    file: File,
    /// Device and number.
    identity: (u64, u64),
    bytes: u64,
    /// The time of the last line.
    last: SystemTime,
    looked: SystemTime,
}

impl LogFile {
    /// The file at `path`, with at most `keep` others that were put aside.
    pub fn new(path: PathBuf, rotation: Rotation, keep: usize) -> Self {
        Self { path, rotation, keep, open: None, is_stuck: false }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds whole lines; all of them or, when that fails, none as far as that can be.
    pub fn write(&mut self, lines: &[u8], now: SystemTime) -> io::Result<()> {
        let mut open = match self.open.take() {
            Some(open) if !self.was_moved(&open, now) => open,
            _ => self.opened()?,
        };
        // others may have truncated it
        open.bytes = open.file.metadata()?.len();
        if self.is_due(&open, lines.len() as u64, now) {
            match self.put_aside(&open) {
                Ok(()) => {
                    drop(open);
                    open = self.opened()?;
                    self.is_stuck = false;
                }
                // better a file that is too long than lines that are lost
                Err(error) if !self.is_stuck => {
                    log::warn!(error:%; "the log file cannot be put aside, it goes on");
                    self.is_stuck = true;
                }
                Err(_) => {}
            }
        }
        if now.duration_since(open.looked).map_or(true, |passed| passed >= LOOK_EVERY) {
            open.looked = now;
        }
        if let Err(error) = open.file.write_all(lines) {
            take_back(&open.file, open.bytes);
            return Err(error);
        }
        (open.bytes, open.last) = (open.bytes + lines.len() as u64, now);
        self.open = Some(open);
        Ok(())
    }

    /// Whether the file is not at its path any more. Asked once a second.
    fn was_moved(&self, open: &Open, now: SystemTime) -> bool {
        let is_due = now.duration_since(open.looked).map_or(true, |passed| passed >= LOOK_EVERY);
        is_due && !fs::metadata(&self.path).is_ok_and(|there| identity(&there) == open.identity)
    }

    fn is_due(&self, open: &Open, more: u64, now: SystemTime) -> bool {
        let is_empty = open.bytes == 0;
        let is_full = |bytes_max| open.bytes + more > bytes_max;
        !is_empty
            && match self.rotation {
                Rotation::Daily(bytes_max) => day(now) > day(open.last) || is_full(bytes_max),
                Rotation::Size(bytes_max) => is_full(bytes_max),
                Rotation::Never => false,
            }
    }

    fn opened(&self) -> io::Result<Open> {
        if let Some(folder) = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::create_dir_all(folder)?;
        }
        let mut file = File::options().create(true).append(true).read(true).mode(MODE).open(&self.path)?;
        // two processes would put each other's file aside
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(io::Error::other("another process has it")),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let there = file.metadata()?;
        let mut bytes = there.len();
        if there.is_file() && bytes > 0 {
            // a process that was killed may have left half a line
            let mut last = [0];
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
            if last != *b"\n" {
                file.write_all(b"\n")?;
                bytes += 1;
            }
        }
        let last = there.modified()?;
        Ok(Open { file, identity: identity(&there), bytes, last, looked: SystemTime::now() })
    }

    /// Renames the file after the time of its last line, and removes the oldest of its kind.
    fn put_aside(&self, open: &Open) -> io::Result<()> {
        let now = Place { second: suffix(open.last), number: 0 };
        let place = match self.aside()?.pop() {
            // also when the clock went back: the newest is last in any case, and no name comes twice
            Some((newest, _)) if newest.second >= now.second => Place { number: newest.number + 1, ..newest },
            _ => now,
        };
        fs::rename(&self.path, self.beside(&place.to_string()))?;
        self.remove_old();
        Ok(())
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(".");
        name.push(suffix);
        name.into()
    }

    fn remove_old(&self) {
        let aside = match self.aside() {
            Ok(aside) => aside,
            Err(error) => return log::warn!(error:%; "old log files cannot be listed"),
        };
        for (_, old) in aside.iter().rev().skip(self.keep) {
            if let Err(error) = fs::remove_file(old)
                && error.kind() != io::ErrorKind::NotFound
            {
                log::warn!(path:% = old.display(), error:%; "an old log file cannot be removed");
            }
        }
    }

    /// What was put aside, the oldest first. Nothing else that is called alike.
    fn aside(&self) -> io::Result<Vec<(Place, PathBuf)>> {
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let Some(name) = self.path.file_name().and_then(|name| name.to_str()) else { return Ok(Vec::new()) };
        let mut aside = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let file_name = entry.file_name();
            let suffix = file_name.to_str().and_then(|text| text.strip_prefix(name)?.strip_prefix('.'));
            if let Some(place) = suffix.and_then(Place::parse) {
                aside.push((place, entry.path()));
            }
        }
        aside.sort();
        Ok(aside)
    }
}

fn identity(there: &Metadata) -> (u64, u64) {
    (there.dev(), there.ino())
}

fn day(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / DAY_SECONDS
}

/// `20261121T235958Z`: names sort by time.
fn suffix(at: SystemTime) -> String {
    let text = timestamp(at);
    let digits: String = text.chars().take("2026-11-21T23:59:58".len()).filter(|it| !"-:".contains(*it)).collect();
    digits + "Z"
}

/// Where a file stands among those that were put aside: `20261121T235958Z`, and of the same second `20261121T235958Z-001`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Place {
    second: String,
    number: u32,
}

impl Place {
    fn parse(text: &str) -> Option<Self> {
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let (second, number) = match text.split_once('-') {
            Some((second, number)) => {
                let is_ours = (NUMBER_DIGITS..=NUMBER_DIGITS_MAX).contains(&number.len()) && digits(number);
                (second, number.parse().ok().filter(|_| is_ours)?)
            }
            None => (text, 0),
        };
        let (days, time) = second.strip_suffix('Z')?.split_once('T')?;
        let is_second = days.len() == 8 && time.len() == 6 && digits(days) && digits(time);
        is_second.then(|| Self { second: second.to_owned(), number })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.second)?;
        match self.number {
            0 => Ok(()),
            number => write!(f, "-{number:0NUMBER_DIGITS$}"),
        }
    }
}

/// Makes a file as long as it was before lines of which only a part got into it: half a line would spoil the next one. If
/// this fails, too, opening sees to it.
fn take_back(file: &File, bytes: u64) {
    // a file that others truncated meanwhile would get a hole of zeros
    if file.metadata().is_ok_and(|there| there.len() > bytes) {
        let _ = file.set_len(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Noon of some day, and so many seconds.
    fn at(days: u64, seconds: u64) -> SystemTime {
        let today = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / DAY_SECONDS;
        UNIX_EPOCH + Duration::from_secs((today + days) * DAY_SECONDS + DAY_SECONDS / 2 + seconds)
    }

    struct Case {
        dir: tempfile::TempDir,
        path: PathBuf,
    }

    impl Case {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("log.json");
            Self { dir, path }
        }

        fn file(&self, rotation: Rotation, keep: usize) -> LogFile {
            LogFile::new(self.path.clone(), rotation, keep)
        }

        fn text(&self) -> String {
            fs::read_to_string(&self.path).unwrap_or_default()
        }

        /// What was put aside, the oldest first.
        fn aside(&self) -> Vec<String> {
            let mut paths: Vec<_> = fs::read_dir(self.dir.path()).unwrap().map(|it| it.unwrap().path()).collect();
            paths.retain(|path| *path != self.path);
            paths.sort();
            paths.iter().map(|path| fs::read_to_string(path).unwrap()).collect()
        }
    }

    #[test]
    fn a_file_gets_no_larger_than_it_may_and_few_are_kept() {
        let case = Case::new();
        let mut file = case.file(Rotation::Size(10), 2);
        for number in 0..9 {
            file.write(format!("line{number}\n").as_bytes(), at(0, number / 3)).unwrap();
        }
        assert_eq!(case.text(), "line8\n");
        assert_eq!(case.aside(), ["line6\n", "line7\n"]);
        // longer than a file may be: it has one of its own
        file.write(b"0123456789abcdef\n", at(0, 9)).unwrap();
        assert_eq!((case.text().as_str(), case.aside().len()), ("0123456789abcdef\n", 2));
    }

    #[test]
    fn the_oldest_is_removed_however_many_files_a_second_has() {
        let case = Case::new();
        let mut file = case.file(Rotation::Size(10), 2);
        for number in 0..20 {
            file.write(format!("line{number:02}\n").as_bytes(), at(0, 0)).unwrap();
        }
        assert_eq!((case.text().as_str(), case.aside()), ("line19\n", vec!["line17\n".into(), "line18\n".into()]));
        // the next process goes on where this one was
        drop(file);
        let mut file = case.file(Rotation::Size(10), 2);
        file.write(b"line20\n", at(0, 0)).unwrap();
        file.write(b"line21\n", at(0, 0)).unwrap();
        assert_eq!((case.text().as_str(), case.aside()[1].as_str()), ("line21\n", "line20\n"));
    }

    #[test]
    fn a_clock_that_goes_back_does_not_make_the_newest_the_oldest() {
        let case = Case::new();
        let mut file = case.file(Rotation::Size(10), 2);
        for number in 0..8 {
            file.write(format!("line{number}\n").as_bytes(), at(1, 10 - number)).unwrap();
        }
        assert_eq!((case.text().as_str(), case.aside()), ("line7\n", vec!["line5\n".into(), "line6\n".into()]));
    }

    #[test]
    fn a_file_that_others_truncated_counts_as_it_is() {
        let case = Case::new();
        let mut file = case.file(Rotation::Size(10), 2);
        file.write(b"line0\n", at(0, 0)).unwrap();
        fs::write(&case.path, "").unwrap();
        file.write(b"line1\n", at(0, 0)).unwrap();
        assert_eq!((case.text().as_str(), case.aside().len()), ("line1\n", 0));
    }

    #[test]
    fn every_day_has_a_file_over_restarts_too() {
        let case = Case::new();
        let mut file = case.file(Rotation::Daily(1000), 5);
        file.write(b"a\n", at(0, 0)).unwrap();
        file.write(b"b\n", at(0, 60)).unwrap();
        file.write(b"c\n", at(1, 0)).unwrap();
        assert_eq!((case.text().as_str(), case.aside()), ("c\n", vec!["a\nb\n".to_owned()]));
        drop(file);
        // the file's own time is that of the test, two days earlier
        case.file(Rotation::Daily(1000), 5).write(b"d\n", at(2, 0)).unwrap();
        assert_eq!((case.text().as_str(), case.aside().len()), ("d\n", 2));
        let mut names: Vec<_> = fs::read_dir(case.dir.path()).unwrap().map(|it| it.unwrap().file_name()).collect();
        names.sort();
        let place = |name: &str| Place::parse(name.strip_prefix("log.json.").unwrap());
        assert!(names[1..].iter().all(|name| place(name.to_str().unwrap()).is_some()));
    }

    #[test]
    fn a_day_of_too_much_has_several_files() {
        let case = Case::new();
        let mut file = case.file(Rotation::Daily(10), 2);
        for number in 0..9 {
            file.write(format!("line{number}\n").as_bytes(), at(0, number / 3)).unwrap();
        }
        assert_eq!((case.text().as_str(), case.aside()), ("line8\n", vec!["line6\n".into(), "line7\n".into()]));
    }

    #[test]
    fn places_sort_by_time_and_then_by_number() {
        let texts = ["20261121T235958Z", "20261121T235958Z-001", "20261121T235958Z-999", "20261121T235958Z-1000"];
        let places = texts.map(|text| Place::parse(text).unwrap());
        assert!(places.is_sorted());
        assert_eq!(places.each_ref().map(Place::to_string), texts);
        assert!(Place::parse("20261121T235959Z") > Place::parse(texts[3]));
    }

    #[test]
    fn what_is_taken_back_is_only_ever_shortened() {
        let case = Case::new();
        let file = File::options().create(true).append(true).open(&case.path).unwrap();
        fs::write(&case.path, "whole\nhal").unwrap();
        take_back(&file, 6);
        assert_eq!(case.text(), "whole\n");
        // it was truncated after it was looked at
        take_back(&file, 100);
        assert_eq!(case.text(), "whole\n");
    }

    #[test]
    fn what_is_only_called_alike_is_left_alone() {
        let case = Case::new();
        let others = [
            "log.json.gz",
            "log.json.20261121T235958Z.gz",
            "log.json.2026",
            "log.json.20261121T235958Z-1",
            "log.json.20261121T235958Z-+01",
        ];
        for other in others {
            fs::write(case.dir.path().join(other), "").unwrap();
            assert_eq!(Place::parse(other.strip_prefix("log.json.").unwrap()), None);
        }
        let mut file = case.file(Rotation::Size(1), 1);
        for number in 0..5 {
            file.write(b"a\n", at(0, number)).unwrap();
        }
        assert_eq!(fs::read_dir(case.dir.path()).unwrap().count(), others.len() + 2);
    }

    #[test]
    fn a_file_that_others_moved_or_removed_is_begun_anew() {
        let case = Case::new();
        let mut file = case.file(Rotation::Never, 1);
        file.write(b"a\n", at(0, 0)).unwrap();
        fs::rename(&case.path, case.dir.path().join("moved")).unwrap();
        file.write(b"b\n", at(0, 2)).unwrap();
        assert_eq!((case.text().as_str(), case.aside()), ("b\n", vec!["a\n".to_owned()]));
        fs::remove_dir_all(case.dir.path()).unwrap();
        file.write(b"c\n", at(1, 4)).unwrap();
        assert_eq!(case.text(), "c\n");
    }

    #[test]
    fn half_a_line_of_a_killed_process_does_not_spoil_the_next() {
        let case = Case::new();
        fs::write(&case.path, "whole\nhal").unwrap();
        case.file(Rotation::Never, 1).write(b"next\n", at(0, 0)).unwrap();
        assert_eq!(case.text(), "whole\nhal\nnext\n");
    }

    #[test]
    fn two_processes_do_not_share_a_file() {
        let case = Case::new();
        let mut file = case.file(Rotation::Never, 1);
        file.write(b"a\n", at(0, 0)).unwrap();
        let refused = case.file(Rotation::Never, 1).write(b"b\n", at(0, 0)).unwrap_err().to_string();
        assert!(refused.contains("another process"), "{refused}");
    }

    #[test]
    fn a_full_disk_is_an_error_and_not_a_panic() {
        let mut file = LogFile::new("/dev/full".into(), Rotation::Size(10), 1);
        for _ in 0..2 {
            assert_eq!(file.write(b"a\n", at(0, 0)).unwrap_err().kind(), io::ErrorKind::StorageFull);
        }
    }
}
