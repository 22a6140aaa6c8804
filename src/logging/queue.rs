//! What stands between those who log and the file: a slow or broken disk must hold nobody up.
//!
//! Lines wait in a bounded queue for a thread that does nothing but write them. What finds the queue full, or a file that
//! cannot be written, is lost to the file, counted, and told: once when it begins, and with the number when it is over. The
//! same lines are on standard error all the same.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::file::LogFile;

/// Lines that may wait.
const LINES_MAX: usize = 8192;
/// Their bytes, together.
const BYTES_MAX: usize = 8 << 20;
/// What is written at once, at most, and one line more. Together less than the smallest limit of a file's size.
const CHUNK: usize = 32 << 10;
/// How often a file that cannot be written is tried.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Lines that are not in the file, since the start of the process.
static LOST: AtomicU64 = AtomicU64::new(0);

/// How many lines did not get into the log file since the start.
pub fn lost() -> u64 {
    LOST.load(Relaxed)
}

/// The way to the thread that writes. Clones are the same one.
#[derive(Clone)]
pub struct Queue {
    work: Sender<Work>,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    bytes: AtomicUsize,
    /// Whether lines find the queue full.
    is_full: AtomicBool,
    /// Lines that were lost and not told of yet.
    missing: AtomicU64,
}

enum Work {
    Line(String),
    /// Answered when all lines before it are dealt with.
    Flush(Sender<()>),
}

impl State {
    fn lose(&self, lines: u64) {
        LOST.fetch_add(lines, Relaxed);
        self.missing.fetch_add(lines, Relaxed);
    }
}

impl Queue {
    /// Starts the thread.
    pub fn start(file: LogFile) -> io::Result<Self> {
        let (work, inbox) = bounded(LINES_MAX);
        let state = Arc::new(State::default());
        let mut writer = Writer { inbox, file, state: Arc::clone(&state), trouble: None };
        std::thread::Builder::new().name("log-write".into()).spawn(move || writer.run())?;
        Ok(Self { work, state })
    }

    /// Takes a line, or loses it. Never waits.
    pub fn push(&self, line: String) {
        let bytes = line.len();
        let is_taken = self.state.bytes.fetch_add(bytes, Relaxed) < BYTES_MAX && {
            let sent = self.work.try_send(Work::Line(line));
            sent.is_ok()
        };
        if is_taken {
            return;
        }
        self.state.bytes.fetch_sub(bytes, Relaxed);
        self.state.lose(1);
        // said by the first who sees it, as the thread that writes may be stuck; the line itself may get here again
        if !self.state.is_full.swap(true, Relaxed) {
            log::warn!("the log file is written too slowly, lines are left out of it");
        }
    }

    /// Waits until all that was taken is written, for so long at most.
    pub fn flush(&self, wait_max: Duration) {
        let (done, is_done) = bounded(1);
        let deadline = Instant::now() + wait_max;
        if self.work.send_deadline(Work::Flush(done), deadline).is_ok() {
            // it is in vain where the disk is stuck
            let _ = is_done.recv_deadline(deadline);
        }
    }
}

struct Writer {
    inbox: Receiver<Work>,
    file: LogFile,
    state: Arc<State>,
    /// When it is tried again to write.
    trouble: Option<Instant>,
}

impl Writer {
    fn run(&mut self) {
        while let Ok(first) = self.inbox.recv() {
            let (mut chunk, mut lines, mut flushed) = (String::new(), 0, Vec::new());
            let mut next = Some(first);
            while let Some(work) = next.take() {
                match work {
                    Work::Line(line) => {
                        self.state.bytes.fetch_sub(line.len(), Relaxed);
                        chunk.push_str(&line);
                        chunk.push('\n');
                        lines += 1;
                    }
                    Work::Flush(done) => flushed.push(done),
                }
                if chunk.len() < CHUNK && flushed.is_empty() {
                    next = self.inbox.try_recv().ok();
                }
            }
            if lines > 0 {
                self.write(&chunk, lines);
            }
            // whoever waited may have had enough
            for done in flushed {
                let _ = done.try_send(());
            }
        }
    }

    fn write(&mut self, chunk: &str, lines: u64) {
        if self.trouble.is_some_and(|again| Instant::now() < again) {
            return self.state.lose(lines);
        }
        match self.file.write(chunk.as_bytes(), SystemTime::now()) {
            Ok(()) => self.told_over(),
            Err(error) => {
                self.state.lose(lines);
                if self.trouble.is_none() {
                    let path = self.file.path().display();
                    log::warn!(path:%, error:%; "the log file cannot be written, the server goes on without it");
                }
                self.trouble = Some(Instant::now() + AGAIN_AFTER);
            }
        }
    }

    /// Tells what is missing in the file once lines get into it again.
    fn told_over(&mut self) {
        let was_trouble = self.trouble.take().is_some();
        // there is room again: the next time is told anew
        let was_full = self.inbox.len() < LINES_MAX / 2 && self.state.is_full.swap(false, Relaxed);
        if was_trouble || was_full {
            let lines = self.state.missing.swap(0, Relaxed);
            log::warn!(lines; "the log file is written again, lines are missing in it");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logging::file::Rotation;

    const WAIT: Duration = Duration::from_secs(30);

    fn queue(path: &std::path::Path) -> Queue {
        Queue::start(LogFile::new(path.to_owned(), Rotation::Never, 1)).unwrap()
    }

    #[test]
    fn lines_get_into_the_file_in_their_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/log.json");
        let queue = queue(&path);
        for number in 0..1000 {
            queue.push(format!("{number}"));
        }
        queue.flush(WAIT);
        let text = std::fs::read_to_string(path).unwrap();
        let wanted: Vec<_> = (0..1000).map(|number| number.to_string()).collect();
        assert_eq!(text.lines().collect::<Vec<_>>(), wanted);
    }

    #[test]
    fn a_disk_that_does_not_take_lines_holds_nobody_up_and_what_is_lost_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipe");
        // a pipe that nobody reads: when it is full, writing waits, as on a disk that hangs
        let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
        let (queue, before) = (queue(&path), lost());
        let begun = Instant::now();
        for number in 0..10 * LINES_MAX {
            queue.push(format!("{number}"));
        }
        queue.push("x".repeat(BYTES_MAX));
        queue.flush(Duration::from_millis(100));
        assert!(begun.elapsed() < WAIT);
        // other tests of this process may lose lines, too
        assert!(lost() - before >= LINES_MAX as u64, "{}", lost() - before);
        let reader = std::thread::spawn(move || std::fs::read_to_string(path).unwrap());
        queue.flush(WAIT);
        drop(queue);
        let text = reader.join().unwrap();
        assert!(text.starts_with("0\n1\n2\n"), "{}", text.len());
    }

    #[test]
    fn a_file_that_cannot_be_written_is_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("a file where the folder should be");
        std::fs::write(&folder, "").unwrap();
        let queue = queue(&folder.join("log.json"));
        queue.push("lost".into());
        queue.flush(WAIT);
        std::fs::remove_file(&folder).unwrap();
        let begun = Instant::now();
        while std::fs::read_to_string(folder.join("log.json")).unwrap_or_default().is_empty() {
            queue.push("kept".into());
            queue.flush(WAIT);
            assert!(begun.elapsed() < WAIT);
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(!std::fs::read_to_string(folder.join("log.json")).unwrap().contains("lost"));
    }
}
