//! PgBouncer as a process: a proxy that gives each transaction another connection.

use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::postgres::{PASSWORD, PostgresServer, USER, as_nobody, free_port, own};
use crate::store::postgres::PostgresSettings;

/// Names the environment variable with the path of the program.
pub const PROGRAM: &str = "S3DEDUP_TEST_PGBOUNCER";

const START_MAX: Duration = Duration::from_secs(30);

/// A proxy in front of a server, with fewer connections to it than it lets in; killed when dropped.
pub struct PgBouncer {
    folder: TempDir,
    port: u16,
    process: Child,
}

impl PgBouncer {
    /// In front of `server`, with `connections` connections to each of its databases.
    pub fn start(server: &PostgresServer, connections: usize) -> Self {
        let program = std::env::var_os(PROGRAM).map(PathBuf::from).unwrap_or_else(|| {
            panic!("{PROGRAM} is not set: run `make test`, which installs PgBouncer and tells the tests where it is")
        });
        let folder = tempfile::tempdir().unwrap_or_else(|error| panic!("no temporary folder: {error}"));
        own(folder.path(), 0o700);
        let (port, root) = (free_port(), folder.path().display());
        let config = format!(
            "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = plain\nauth_file = {root}/users\npool_mode = transaction\n\
             default_pool_size = {connections}\nlogfile = {root}/log\npidfile = {root}/pid\n",
            server.port()
        );
        let users = format!("\"{USER}\" \"{PASSWORD}\"\n");
        for (name, text) in [("config", &config), ("users", &users)] {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap_or_else(|error| panic!("{name}: {error}"));
            own(&path, 0o600);
        }
        let mut pgbouncer = as_nobody(&program);
        pgbouncer.arg("-q").arg(folder.path().join("config"));
        pgbouncer.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = pgbouncer.spawn().unwrap_or_else(|error| panic!("pgbouncer cannot be started: {error}"));
        let mut proxy = Self { folder, port, process };
        let deadline = Instant::now() + START_MAX;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let ended = !matches!(proxy.process.try_wait(), Ok(None));
            assert!(!ended && Instant::now() < deadline, "pgbouncer does not start:\n{}", proxy.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        proxy
    }

    /// How to get to the server's first database through the proxy.
    pub fn access(&self, server: &PostgresServer) -> PostgresSettings {
        PostgresSettings { port: self.port, is_pooled: true, ..server.access() }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("--- log of PgBouncer on port {} ---\n{}", self.port, self.log());
        }
    }
}
