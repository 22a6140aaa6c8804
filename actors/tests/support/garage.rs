//! Garage as a process: what users run. One node, one bucket, data in a temporary folder.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rand::Rng;
use tempfile::TempDir;

pub const ACCESS_KEY: &str = "GK0123456789abcdef01234567";
pub const SECRET_KEY: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
pub const BUCKET: &str = "contents";
pub const REGION: &str = "garage";

/// Names the environment variable with the path of the program.
pub const PROGRAM: &str = "S3DEDUP_TEST_GARAGE";

/// A running server with an empty bucket; it is killed when dropped.
pub struct Garage {
    pub endpoint: String,
    pub folder: TempDir,
    process: Child,
}

impl Garage {
    /// Starts the program that [`PROGRAM`] names.
    pub fn start() -> Self {
        let program = std::env::var_os(PROGRAM).map(PathBuf::from).unwrap_or_else(|| {
            panic!("{PROGRAM} is not set: run `make test`, which installs Garage and tells the tests where it is")
        });
        let folder = tempfile::tempdir().expect("temporary folder");
        let [api, rpc, admin] = free_ports();
        let config = folder.path().join("garage.toml");
        write_config(&config, &folder, [api, rpc, admin]);
        let log = std::fs::File::create(folder.path().join("log")).expect("log");
        let process = Command::new(&program)
            .arg("-c")
            .arg(&config)
            .args(["server", "--single-node", "--default-bucket"])
            .env("GARAGE_DEFAULT_ACCESS_KEY", ACCESS_KEY)
            .env("GARAGE_DEFAULT_SECRET_KEY", SECRET_KEY)
            .env("GARAGE_DEFAULT_BUCKET", BUCKET)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{} cannot be started: {error}", program.display()));
        let mut garage = Self { endpoint: format!("http://127.0.0.1:{api}"), folder, process };
        garage.wait_until_ready(api);
        garage
    }

    fn wait_until_ready(&mut self, port: u16) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let ended = self.process.try_wait().expect("state of garage");
            if ended.is_some() || Instant::now() > deadline {
                let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
                panic!("garage did not start ({ended:?}):\n{log}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn write_config(path: &std::path::Path, folder: &TempDir, [api, rpc, admin]: [u16; 3]) {
    use std::os::unix::fs::OpenOptionsExt;
    let root = folder.path().display();
    let text = format!(
        "metadata_dir = \"{root}/meta\"\ndata_dir = \"{root}/data\"\ndb_engine = \"lmdb\"\nreplication_factor = 1\n\
         rpc_bind_addr = \"127.0.0.1:{rpc}\"\nrpc_public_addr = \"127.0.0.1:{rpc}\"\nrpc_secret = \"{secret}\"\n\
         [s3_api]\ns3_region = \"{REGION}\"\napi_bind_addr = \"127.0.0.1:{api}\"\n\
         [admin]\napi_bind_addr = \"127.0.0.1:{admin}\"\n",
        secret = "ab".repeat(32),
    );
    let file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    file.expect("config").write_all(text.as_bytes()).expect("config");
}

/// Ports that nothing listens on and that no other test was given. They lie below the range that
/// outgoing connections take theirs from.
fn free_ports() -> [u16; 3] {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    [(); 3].map(|()| {
        loop {
            let port = rand::rng().random_range(10_000..32_000);
            if TcpListener::bind(("127.0.0.1", port)).is_ok() && given.insert(port) {
                return port;
            }
        }
    })
}

impl Drop for Garage {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
