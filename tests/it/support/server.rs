//! The real binary as a process with its own data, port and temporary directory.

use std::collections::HashSet;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rand::Rng;
use rustix::process::{Pid, Signal, kill_process};
use s3dedup_actors::testkit::postgres::{PASSWORD, PostgresServer, USER};
use tempfile::TempDir;

use super::eventually;
use super::http::{Connection, Request};
use super::s3::S3Access;

const STARTS_MAX: usize = 5;
/// Longer than any start, stalled ones of the crash tests included.
const START_TIMEOUT: Duration = Duration::from_secs(90);
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// What a server is started with.
pub struct Builder {
    env: Vec<(String, String)>,
    prefix: String,
    temp_bytes_max: Option<u64>,
    arguments: Vec<String>,
}

impl Builder {
    /// Starts the program with these arguments instead of `server`.
    #[allow(dead_code, reason = "the tests of commands use it")]
    pub fn arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        self
    }

    pub fn env(mut self, name: &str, value: impl ToString) -> Self {
        self.env.push((name.into(), value.to_string()));
        self
    }

    /// Whether this variable is set here.
    #[allow(dead_code, reason = "the fault tests do not ask")]
    pub fn has_env(&self, name: &str) -> bool {
        self.env.iter().any(|(known, _)| known == name)
    }

    /// Serves under `prefix` instead of `/ft`.
    pub fn prefix(mut self, prefix: &str) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Keeps contents on an S3 server instead of in a folder.
    pub fn s3(self, s3: &S3Access) -> Self {
        self.env("STORAGE_TYPE", "s3")
            .env("BUCKET_NAME", &s3.bucket)
            .env("S3_ENDPOINT", &s3.endpoint)
            .env("S3_ACCESS_KEY", &s3.access_key)
            .env("S3_SECRET_KEY", &s3.secret_key)
            .env("S3_REGION", &s3.region)
    }

    /// Keeps metadata in this database of a PostgreSQL server.
    pub fn postgres(self, server: &PostgresServer, database: &str) -> Self {
        self.env("KVSTORAGE_TYPE", "postgres")
            .env("POSTGRES_HOST", "127.0.0.1")
            .env("POSTGRES_PORT", server.port())
            .env("POSTGRES_USER", USER)
            .env("POSTGRES_PASSWORD", PASSWORD)
            .env("POSTGRES_DB", database)
    }

    /// Puts the temporary directory on a file system of this size.
    pub fn temp_bytes_max(mut self, bytes: u64) -> Self {
        self.temp_bytes_max = Some(bytes);
        self
    }

    pub fn start(self) -> TestServer {
        let mut server = self.prepare();
        server.start_again();
        server
    }

    /// Everything but the start.
    pub fn prepare(self) -> TestServer {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("temp")).unwrap();
        TestServer {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            prefix: self.prefix.clone(),
            dir,
            launch: self,
            child: None,
        }
    }
}

/// A running server. Dropped, it must stop cleanly and leave nothing in its temporary directory.
pub struct TestServer {
    address: SocketAddr,
    prefix: String,
    dir: TempDir,
    launch: Builder,
    child: Option<Child>,
}

impl TestServer {
    /// The embedded default: contents in a folder.
    pub fn start() -> Self {
        Self::builder().start()
    }

    pub fn builder() -> Builder {
        Builder { env: Vec::new(), prefix: "/ft".into(), temp_bytes_max: None, arguments: vec!["server".into()] }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL that clients are given.
    pub fn url(&self) -> String {
        format!("http://{}{}", self.address, self.prefix)
    }

    /// The same for somebody who has this token.
    pub fn url_with(&self, token: &str) -> String {
        format!("http://somebody:{token}@{}{}", self.address, self.prefix)
    }

    /// `DATA_DIR`.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub fn temp_dir(&self) -> PathBuf {
        self.dir.path().join("temp")
    }

    /// A request for a target under the prefix.
    pub fn request(&self, method: &str, target: &str) -> Request {
        Request::new(self.address, method, &format!("{}{target}", self.prefix))
    }

    /// A request for exactly this target.
    pub fn raw_request(&self, method: &str, target: &str) -> Request {
        Request::new(self.address, method, target)
    }

    pub fn connect(&self) -> Connection {
        Connection::open(self.address).unwrap()
    }

    /// The names below a directory, whatever their version.
    pub fn list(&self, directory: &str) -> Vec<String> {
        let target = format!("/list/{directory}?last_modified=Fri,+31+Dec+9999+00:00:00+GMT");
        let answer = self.request("GET", &target).send();
        answer.assert_status(200).lines().into_iter().map(str::to_owned).collect()
    }

    /// The stored objects of the folder store, without the descriptions beside them.
    pub fn objects(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![self.data_dir().join("blobs")];
        while let Some(folder) = folders.pop() {
            let Ok(entries) = fs::read_dir(&folder) else { continue };
            for path in entries.map(|entry| entry.unwrap().path()) {
                if path.is_dir() {
                    // The mark of the database is no object.
                    folders.extend(Some(path).filter(|path| !path.ends_with("s3dedup-database")));
                } else if path.extension().is_none_or(|extension| extension != "json") {
                    found.push(path);
                }
            }
        }
        found
    }

    /// Starts the server, again, on the same data (and on the same port, if it had one).
    pub fn start_again(&mut self) {
        assert!(self.child.is_none(), "it still runs");
        for _ in 0..STARTS_MAX {
            let port = if self.address.port() == 0 { free_port() } else { self.address.port() };
            let mut child = self.spawn(port);
            if self.wait_until_ready(&mut child, port) {
                self.address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
                self.child = Some(child);
                return;
            }
            // Someone else may have taken the port in the meantime.
            self.address.set_port(0);
        }
        panic!("the server does not start:\n{}", self.log());
    }

    /// Starts the server on data that it must refuse; returns everything that was printed so far.
    pub fn fails_to_start(&self) -> String {
        assert!(self.child.is_none(), "it still runs");
        let status = self.spawn(free_port()).wait().unwrap();
        assert_eq!(status.code(), Some(1), "{}", self.log());
        self.log()
    }

    /// Changes a variable of the next start, or takes it away.
    #[allow(dead_code, reason = "the crash tests use it")]
    pub fn set_env(&mut self, name: &str, value: Option<&str>) {
        self.launch.env.retain(|(known, _)| known != name);
        self.launch.env.extend(value.map(|value| (name.to_owned(), value.to_owned())));
    }

    /// Starts the server again, which may fail: `None` when it serves, or how it ended.
    #[allow(dead_code, reason = "the crash tests use it")]
    pub fn serves_or_ends(&mut self) -> Option<ExitStatus> {
        assert!(self.child.is_none(), "it still runs");
        let port = free_port();
        let mut child = self.spawn(port);
        if self.wait_until_ready(&mut child, port) {
            self.address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            self.child = Some(child);
            return None;
        }
        Some(child.wait().unwrap())
    }

    fn wait_until_ready(&self, child: &mut Child, port: u16) -> bool {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            // First: another server may answer on a port that ours could not take.
            if child.try_wait().unwrap().is_some() {
                return false;
            }
            if self.answers_at(port) {
                std::thread::sleep(Duration::from_millis(10));
                return child.try_wait().unwrap().is_none();
            }
            if Instant::now() > deadline {
                let _ = child.kill();
                let _ = child.wait();
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn answers_at(&self, port: u16) -> bool {
        if self.launch.env.iter().any(|(name, _)| name == "TLS_CERT_FILE") {
            let asked = self.command(&["healthcheck"]).env("LISTEN_PORT", port.to_string()).output();
            return asked.unwrap().status.success();
        }
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let probe = Request::new(address, "GET", &format!("{}/version", self.prefix)).try_send();
        // 401: it asks for a token.
        probe.is_ok_and(|answer| matches!(answer.status, 200 | 401))
    }

    fn spawn(&self, port: u16) -> Child {
        let binary = binary();
        let mut command = match self.launch.temp_bytes_max {
            None => Command::new(&binary),
            // In a mount namespace of its own, which ends with the process.
            Some(bytes) => {
                let mut command = Command::new("unshare");
                command.args(["--mount", "--map-root-user", "sh", "-c"]);
                command.arg(format!("mount -t tmpfs -o size={bytes} tmpfs \"$TEMP_DIR\" && exec \"$0\" \"$@\""));
                command.arg(binary);
                command
            }
        };
        let log = File::options().create(true).append(true).open(self.log_path()).unwrap();
        self.settings(&mut command);
        command
            .args(&self.launch.arguments)
            .env("LISTEN_PORT", port.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::from(log.try_clone().unwrap()))
            .stderr(Stdio::from(log));
        command.spawn().unwrap()
    }

    /// Runs the program with the server's settings and these arguments, to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// The program with the server's settings and these arguments, not started yet.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        self.settings(&mut command);
        command.args(arguments).stdin(Stdio::null());
        command
    }

    fn settings(&self, command: &mut Command) {
        command
            .current_dir(self.dir.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("LISTEN_ADDRESS", "127.0.0.1")
            .env("DATA_DIR", self.data_dir())
            .env("TEMP_DIR", self.temp_dir())
            .env("STORAGE_TYPE", "filesystem")
            .env("FILETRACKER_PREFIX", &self.prefix)
            .env("LOG_LEVEL", "info")
            // No balancer needs time to notice.
            .env("DRAIN_DELAY_SECONDS", "0")
            .envs(self.launch.env.iter().map(|(name, value)| (name, value)));
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    /// Everything the server printed.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(self.child.as_ref().expect("a running server"))
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Whether the process has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_none_or(|child| child.try_wait().unwrap().is_some())
    }

    /// Waits for the end of a process that was told to end.
    pub fn wait(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("a running server");
        let deadline = Instant::now() + STOP_TIMEOUT;
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status;
            }
            if Instant::now() > deadline {
                let _ = child.kill();
                let _ = child.wait();
                panic!("the server does not stop:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// SIGTERM; asserts a clean end.
    pub fn stop(&mut self) {
        self.signal(Signal::TERM);
        let status = self.wait();
        assert!(status.success(), "{status}:\n{}", self.log());
        self.assert_no_temporary_files();
    }

    /// Asserts that no upload left anything behind, once requests in flight have ended.
    pub fn assert_no_temporary_files(&self) {
        eventually("temporary files are gone", || self.temporary_files().is_empty().then_some(()));
    }

    /// Files in the temporary directory, and deleted ones there that are still open.
    pub fn temporary_files(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut seen_in = self.temp_dir();
        if let Some(child) = &self.child {
            let process = PathBuf::from(format!("/proc/{}", child.id()));
            // Its own view: the directory may be mounted for it alone.
            seen_in = process.join("root").join(self.temp_dir().strip_prefix("/").unwrap_or(Path::new("")));
            let descriptors = fs::read_dir(process.join("fd")).unwrap();
            let targets = descriptors.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
            found.extend(targets.filter(|target| target.starts_with(self.temp_dir())));
        }
        found.extend(fs::read_dir(seen_in).unwrap().map(|entry| entry.unwrap().path()));
        found
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            if self.child.is_some() {
                self.assert_no_temporary_files();
                self.stop();
            }
            return;
        }
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
        eprintln!("--- log of the server at {} ---\n{}", self.address, self.log());
    }
}

/// The program under test; another one can be named, where several checkouts build into one folder.
fn binary() -> PathBuf {
    std::env::var_os("S3DEDUP_TEST_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_s3dedup").into()).into()
}

/// A port that nothing listens on and that no other test was given. It lies below the range that
/// outgoing connections take theirs from.
pub fn free_port() -> u16 {
    static GIVEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);
    let mut given = GIVEN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    loop {
        let port = rand::rng().random_range(10_000..32_000);
        let is_free = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        if is_free && given.get_or_insert_default().insert(port) {
            return port;
        }
    }
}
