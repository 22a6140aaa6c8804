//! The old Filetracker server from PyPI as a process group: it consists of several.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

use super::postgres::free_port;

/// Names the environment variable with the virtual environment that holds it.
pub const VENV: &str = "S3DEDUP_TEST_VENV";

const START_MAX: Duration = Duration::from_secs(60);
const STOP_MAX: Duration = Duration::from_secs(10);
const WORKERS: &str = "3";

/// A server of version 2 with files of its own. Stopped and removed when dropped.
pub struct OldFiletracker {
    folder: TempDir,
    port: u16,
    process: Option<Child>,
}

impl OldFiletracker {
    /// An empty server.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap_or_else(|error| panic!("no temporary folder: {error}"));
        let mut server = Self { folder, port: free_port(), process: None };
        server.start_again();
        server
    }

    /// Its address, for clients.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Where it listens, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its files: `links` and `blobs`.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Starts it, again on the same data and port.
    pub fn start_again(&mut self) {
        assert!(self.process.is_none(), "it still runs");
        let deadline = Instant::now() + START_MAX;
        // Right after a kill the port, or the database's environment, may still be taken.
        while !self.try_start(deadline) {
            assert!(Instant::now() < deadline, "the old server does not start:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn try_start(&mut self, deadline: Instant) -> bool {
        let bin = venv().join("bin");
        let path = std::env::var("PATH").unwrap_or_default();
        let log = std::fs::File::options().create(true).append(true).open(self.folder.path().join("log"));
        let log = log.unwrap_or_else(|error| panic!("log: {error}"));
        let errors = log.try_clone().unwrap_or_else(|error| panic!("log: {error}"));
        let mut command = Command::new(bin.join("filetracker-server"));
        command.args(["--no-daemon", "--listen-on", "127.0.0.1", "--workers", WORKERS, "--log-level", "WARNING"]);
        command.args(["--port", &self.port.to_string(), "--dir"]).arg(self.data());
        // It starts gunicorn by name.
        command.env("PATH", format!("{}:{path}", bin.display())).env("TMPDIR", self.folder.path());
        command.current_dir(self.folder.path()).stdin(Stdio::null()).stdout(log).stderr(errors).process_group(0);
        let process = command.spawn().unwrap_or_else(|error| panic!("the old server cannot be started: {error}"));
        self.process = Some(process);
        while !answers(self.port) {
            let ended = self.process.as_mut().is_none_or(|process| !matches!(process.try_wait(), Ok(None)));
            if ended || Instant::now() > deadline {
                self.end(Signal::KILL);
                return false;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        true
    }

    /// Whether it was started and not ended since.
    pub fn runs(&self) -> bool {
        self.process.is_some()
    }

    /// Stops all its processes where they are: connections are taken, and nothing is said.
    pub fn falls_silent(&self) {
        self.all_get(Signal::STOP);
    }

    /// Lets it go on.
    pub fn speaks_again(&self) {
        self.all_get(Signal::CONT);
    }

    fn all_get(&self, signal: Signal) {
        let process = self.process.as_ref().unwrap_or_else(|| panic!("the old server does not run"));
        kill_process_group(Pid::from_child(process), signal).unwrap_or_else(|error| panic!("{signal:?}: {error}"));
    }

    /// Ends it in order.
    pub fn stop(&mut self) {
        self.end(Signal::TERM);
    }

    /// kill -9 of all its processes.
    pub fn kill(&mut self) {
        self.end(Signal::KILL);
    }

    fn end(&mut self, signal: Signal) {
        let Some(mut process) = self.process.take() else { return };
        let group = Pid::from_child(&process);
        // It may have ended by itself.
        let _ = kill_process_group(group, signal);
        let deadline = Instant::now() + STOP_MAX;
        while matches!(process.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = kill_process_group(group, Signal::KILL);
        let _ = process.wait();
    }

    /// Everything it logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for OldFiletracker {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- log of the old server on port {} ---\n{}", self.port, self.log());
        }
    }
}

fn venv() -> PathBuf {
    std::env::var_os(VENV).map(PathBuf::from).unwrap_or_else(|| {
        panic!("{VENV} is not set: run `make test`, which installs the old server and tells the tests where it is")
    })
}

fn answers(port: u16) -> bool {
    super::http_get(port, "/version").is_some_and(|answer| answer.contains("protocol_versions"))
}

/// A server of version 1: the real script of 1.1.0 takes what is written, a web server of static files stands for
/// lighttpd, which did the rest. See `tests/tools/filetracker1.py`.
pub struct FirstFiletracker {
    folder: TempDir,
    port: u16,
    process: Option<Child>,
}

impl FirstFiletracker {
    /// A server of an empty tree.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap_or_else(|error| panic!("no temporary folder: {error}"));
        let files = folder.path().join("files");
        std::fs::create_dir(&files).unwrap_or_else(|error| panic!("{}: {error}", files.display()));
        let mut server = Self { folder, port: free_port(), process: None };
        server.start_again();
        server
    }

    /// Its address, for clients.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Where it listens, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The tree, for `V1_DIR`.
    pub fn dir(&self) -> &Path {
        self.folder.path()
    }

    /// Starts it, again on the same tree and port.
    pub fn start_again(&mut self) {
        assert!(self.process.is_none(), "it still runs");
        let mut command = Command::new(venv().join("bin/python"));
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/tools/filetracker1.py"));
        let source = venv().join("filetracker-1.1.0");
        assert!(source.exists(), "{} is not there: run tests/tools/venv.sh --server", source.display());
        command.arg(source).arg(self.folder.path()).arg(self.port.to_string());
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.process = Some(command.spawn().unwrap_or_else(|error| panic!("python cannot be started: {error}")));
        let deadline = Instant::now() + START_MAX;
        while super::http_get(self.port, "/files/").is_none() {
            assert!(Instant::now() < deadline, "the server of version 1 does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// kill -9.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Drop for FirstFiletracker {
    fn drop(&mut self) {
        self.kill();
    }
}
