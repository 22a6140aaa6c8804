//! PostgreSQL as a process: a cluster of its own in a temporary folder.

use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rand::Rng;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::store::postgres::{PostgresSettings, TlsMode};

/// Names the environment variable with the folder of the programs (`initdb`, `postgres`, `psql`).
pub const PROGRAMS: &str = "S3DEDUP_TEST_POSTGRES";
/// The superuser of every server.
pub const USER: &str = "tester";
/// Its password.
pub const PASSWORD: &str = "a password: it's long";
/// The database that is there from the beginning.
pub const DATABASE: &str = "s3dedup";

const START_MAX: Duration = Duration::from_secs(60);

/// A server that is stopped and removed when dropped.
pub struct PostgresServer {
    folder: TempDir,
    port: u16,
    settings: Vec<String>,
    process: Option<Child>,
}

impl PostgresServer {
    /// A server with an empty database called [`DATABASE`].
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with settings of the server, such as `max_connections=200`.
    pub fn start_with(settings: &[&str]) -> Self {
        let mut server = Self::prepare(settings);
        server.start_again();
        server.sql_in("postgres", &format!("CREATE DATABASE {DATABASE}"));
        server
    }

    /// A server that offers TLS with this certificate and key (PEM).
    pub fn start_with_tls(certificate: &str, key: &str) -> Self {
        let mut server = Self::prepare(&["ssl=on"]);
        for (name, text) in [("server.crt", certificate), ("server.key", key)] {
            let path = server.data().join(name);
            std::fs::write(&path, text).unwrap_or_else(|error| panic!("{name}: {error}"));
            own(&path, 0o600);
        }
        server.start_again();
        server.sql_in("postgres", &format!("CREATE DATABASE {DATABASE}"));
        server
    }

    fn prepare(settings: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap_or_else(|error| panic!("no temporary folder: {error}"));
        own(folder.path(), 0o700);
        let server = Self { folder, port: free_port(), settings: strings(settings), process: None };
        let password = server.folder.path().join("password");
        std::fs::write(&password, PASSWORD).unwrap_or_else(|error| panic!("password: {error}"));
        own(&password, 0o600);
        let mut initdb = program("initdb");
        initdb.arg("-D").arg(server.data()).args(["-U", USER, "-A", "scram-sha-256", "--no-sync", "-E", "UTF8"]);
        initdb.arg("--locale=C").arg("--pwfile").arg(password);
        run(&mut initdb, "initdb");
        server
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Where it listens, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How to get in, without TLS.
    pub fn access(&self) -> PostgresSettings {
        PostgresSettings {
            host: "127.0.0.1".into(),
            port: self.port,
            user: USER.into(),
            password: Some(PASSWORD.into()),
            database: DATABASE.into(),
            tls: TlsMode::Disable,
            root_certificates: None,
            connect_timeout: Duration::from_secs(2),
            statement_timeout: Duration::from_secs(3),
            is_pooled: false,
            application_name: "s3dedup-test".into(),
        }
    }

    /// Starts it, again on the same data and port.
    pub fn start_again(&mut self) {
        assert!(self.process.is_none(), "it still runs");
        let mut postgres = program("postgres");
        postgres.arg("-D").arg(self.data()).args(["-p", &self.port.to_string()]);
        let sockets = format!("unix_socket_directories={}", self.folder.path().display());
        // What a test writes need not outlive the machine.
        let mut settings = strings(&["listen_addresses=127.0.0.1", "fsync=off", &sockets]);
        settings.extend_from_slice(&self.settings);
        for setting in &settings {
            postgres.args(["-c", setting]);
        }
        let log = std::fs::File::options().create(true).append(true).open(self.folder.path().join("log"));
        let log = log.unwrap_or_else(|error| panic!("log: {error}"));
        postgres.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let process = postgres.spawn().unwrap_or_else(|error| panic!("postgres cannot be started: {error}"));
        self.process = Some(process);
        let deadline = Instant::now() + START_MAX;
        while !self.answers() {
            let ended = self.process.as_mut().is_none_or(|process| !matches!(process.try_wait(), Ok(None)));
            assert!(!ended && Instant::now() < deadline, "postgres does not start:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn answers(&self) -> bool {
        let answer = self.psql("postgres", "SELECT 1").output();
        answer.is_ok_and(|answer| answer.status.success())
    }

    /// Ends it in order; sessions are cut off.
    pub fn stop(&mut self) {
        self.end(Signal::INT);
    }

    /// Ends it as a crash would.
    pub fn crash(&mut self) {
        self.end(Signal::QUIT);
    }

    fn end(&mut self, signal: Signal) {
        if let Some(mut process) = self.process.take() {
            // It may have ended by itself.
            let _ = kill_process(Pid::from_child(&process), signal);
            let _ = process.wait();
        }
    }

    /// Runs SQL in [`DATABASE`]; returns the rows, columns separated by `|`.
    pub fn sql(&self, sql: &str) -> String {
        self.sql_in(DATABASE, sql)
    }

    /// Runs SQL in a database.
    pub fn sql_in(&self, database: &str, sql: &str) -> String {
        run(&mut self.psql(database, sql), sql)
    }

    fn psql(&self, database: &str, sql: &str) -> Command {
        let mut psql = Command::new(programs().join("psql"));
        psql.args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-U", USER, "-d", database]);
        psql.args(["-p", &self.port.to_string(), "-c", sql]).env("PGPASSWORD", PASSWORD).env("PGCONNECT_TIMEOUT", "5");
        psql.stdin(Stdio::null());
        psql
    }

    /// Everything the server logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        self.crash();
        if std::thread::panicking() {
            eprintln!("--- log of PostgreSQL on port {} ---\n{}", self.port, self.log());
        }
    }
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn programs() -> PathBuf {
    std::env::var_os(PROGRAMS).map(PathBuf::from).unwrap_or_else(|| {
        panic!("{PROGRAMS} is not set: run `make test`, which installs PostgreSQL and tells the tests where it is")
    })
}

/// The server refuses to be run by root: somebody who has nothing else is to run it then.
const NOBODY: u32 = 65_534;

fn program(name: &str) -> Command {
    as_nobody(&programs().join(name))
}

/// The program, run by somebody who has nothing else if the tests are run by root.
pub(super) fn as_nobody(path: &Path) -> Command {
    if !rustix::process::geteuid().is_root() {
        return Command::new(path);
    }
    let mut command = Command::new("setpriv");
    let id = NOBODY.to_string();
    command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "--"]).arg(path).current_dir("/");
    command
}

/// Gives a file to whoever runs the programs.
pub(super) fn own(path: &Path, mode: u32) {
    let changed = std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).and_then(|()| {
        if rustix::process::geteuid().is_root() { chown(path, Some(NOBODY), Some(NOBODY)) } else { Ok(()) }
    });
    changed.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

fn run(command: &mut Command, what: &str) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{what}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what}: {}: {errors}", output.status);
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

/// A port that nothing listens on, below the range that outgoing connections take theirs from.
pub(super) fn free_port() -> u16 {
    loop {
        let port = rand::rng().random_range(10_000..32_000);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
