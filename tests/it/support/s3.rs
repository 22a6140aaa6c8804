//! S3 servers that check signatures.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rand::Rng;
use s3dedup_actors::model::BlobKey;
use s3dedup_actors::store::blob::{BlobStore, S3Settings, S3Store};
use s3dedup_actors::store::blocking::BlockingPool;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::eventually;
use super::http::Connection;
use super::server::free_port;

/// Where an S3 server is and how to get in.
#[derive(Clone)]
pub struct S3Access {
    pub endpoint: String,
    pub bucket: String,
    pub region: String,
    pub access_key: String,
    pub secret_key: String,
}

impl S3Access {
    /// The port of the server, which is on this machine.
    pub fn address(&self) -> SocketAddr {
        let port = self.endpoint.rsplit(':').next().unwrap().parse().unwrap();
        SocketAddr::from((Ipv4Addr::LOCALHOST, port))
    }

    /// All objects with their sizes.
    pub fn objects(&self) -> Vec<(BlobKey, u64)> {
        let pool = BlockingPool::start("blocking", 1, 8).unwrap();
        let settings = S3Settings::new(&self.endpoint, &self.bucket, &self.access_key, &self.secret_key, &self.region);
        let store = S3Store::new(settings, pool).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (mut found, mut after) = (Vec::new(), None);
            loop {
                let page = store.list(after.as_deref(), 1000).await.unwrap();
                assert!(page.strangers.is_empty(), "nobody put these here: {:?}", page.strangers);
                found.extend(page.blobs);
                after = page.next;
                if after.is_none() {
                    return found;
                }
            }
        })
    }

    fn new(port: u16, region: &str) -> Self {
        let mut digits = [0; 44];
        rand::rng().fill(&mut digits[..]);
        let hex = hex::encode(digits);
        Self {
            endpoint: format!("http://127.0.0.1:{port}"),
            bucket: "contents".into(),
            region: region.into(),
            // The form that Garage asks for.
            access_key: format!("GK{}", &hex[..24]),
            secret_key: hex[24..].to_owned(),
        }
    }
}

/// s3s-fs, in this process. It can be stopped and started again on the same data and port.
pub struct S3InProcess {
    pub access: S3Access,
    port: u16,
    root: TempDir,
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl S3InProcess {
    pub fn start() -> Self {
        let root = tempfile::tempdir().unwrap();
        let port = free_port();
        let access = S3Access::new(port, "us-east-1");
        fs::create_dir(root.path().join(&access.bucket)).unwrap();
        let mut server = Self { access, port, root, running: None };
        server.start_again();
        server
    }

    /// Makes one more bucket.
    pub fn make_bucket(&self, name: &str) {
        fs::create_dir(self.root.path().join(name)).unwrap();
    }

    pub fn start_again(&mut self) {
        let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(self.root.path()).unwrap());
        builder.set_auth(SimpleAuth::from_single(self.access.access_key.as_str(), self.access.secret_key.as_str()));
        let service = builder.build();
        let (stop, mut stopped) = oneshot::channel();
        let (ready, wait) = std::sync::mpsc::channel();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let serve = async move {
            let listener = TcpListener::bind(address).await.unwrap();
            ready.send(()).unwrap();
            loop {
                let socket = tokio::select! {
                    accepted = listener.accept() => accepted.unwrap().0,
                    _ = &mut stopped => return,
                };
                // Head and body leave apart: the second would wait 40 ms for the first one's acknowledgement.
                socket.set_nodelay(true).unwrap();
                let service = service.clone();
                tokio::spawn(async move {
                    let server = auto::Builder::new(TokioExecutor::new());
                    let _ = server.serve_connection(TokioIo::new(socket), service).await;
                });
            }
        };
        // Dropping the runtime at the end cuts every connection.
        let thread = std::thread::spawn(move || {
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(serve);
        });
        wait.recv().unwrap();
        self.running = Some((stop, thread));
    }

    /// Closes the port and every connection.
    pub fn stop(&mut self) {
        if let Some((stop, thread)) = self.running.take() {
            let _ = stop.send(());
            thread.join().unwrap();
        }
    }

    /// Stops; the port takes connections as before, but nobody is there to answer them, until the
    /// returned listener is dropped.
    pub fn fall_silent(&mut self) -> std::net::TcpListener {
        self.stop();
        std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, self.port)).unwrap()
    }

    /// The stored objects, without the descriptions that s3s-fs keeps in hidden files.
    pub fn objects(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![self.root.path().join(&self.access.bucket)];
        while let Some(folder) = folders.pop() {
            for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
                let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
                match path.is_dir() {
                    // The mark of the database is no object.
                    true => folders.extend(Some(path).filter(|path| !path.ends_with("s3dedup-database"))),
                    false if hidden => {}
                    false => found.push(path),
                }
            }
        }
        found
    }
}

impl Drop for S3InProcess {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Garage, a real S3 server, as a process of its own.
pub struct Garage {
    pub access: S3Access,
    child: Child,
    #[allow(dead_code, reason = "some tests only keep it")]
    dir: TempDir,
}

impl Garage {
    pub fn start() -> Self {
        let binary = std::env::var_os("S3DEDUP_TEST_GARAGE")
            .expect("S3DEDUP_TEST_GARAGE must name a garage binary: run the tests with `make test`");
        let dir = tempfile::tempdir().unwrap();
        let (s3, rpc, admin) = (free_port(), free_port(), free_port());
        let access = S3Access::new(s3, "garage");
        let path = dir.path().display();
        let secret = "5e".repeat(32);
        let config = format!(
            "metadata_dir = \"{path}/meta\"\ndata_dir = \"{path}/data\"\ndb_engine = \"lmdb\"\nreplication_factor = 1\n\
             rpc_bind_addr = \"127.0.0.1:{rpc}\"\nrpc_public_addr = \"127.0.0.1:{rpc}\"\nrpc_secret = \"{secret}\"\n\
             [s3_api]\ns3_region = \"garage\"\napi_bind_addr = \"127.0.0.1:{s3}\"\n\
             [admin]\napi_bind_addr = \"127.0.0.1:{admin}\"\n"
        );
        let config_path = dir.path().join("garage.toml");
        fs::write(&config_path, config).unwrap();
        let log = fs::File::create(dir.path().join("log")).unwrap();
        let child = Command::new(binary)
            .arg("-c")
            .arg(&config_path)
            .args(["server", "--single-node", "--default-bucket"])
            .env("GARAGE_DEFAULT_ACCESS_KEY", &access.access_key)
            .env("GARAGE_DEFAULT_SECRET_KEY", &access.secret_key)
            .env("GARAGE_DEFAULT_BUCKET", &access.bucket)
            .env("GARAGE_ALLOW_WORLD_READABLE_SECRETS", "true")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let server = Self { access, child, dir };
        eventually("garage listens", || Connection::open(SocketAddr::from((Ipv4Addr::LOCALHOST, s3))).ok());
        server
    }
}

impl Garage {
    /// Makes one more bucket, for the same key.
    #[allow(dead_code, reason = "the fault tests use it")]
    pub fn new_bucket(&self, name: &str) -> S3Access {
        let key = self.access.access_key.as_str();
        for arguments in
            [&["bucket", "create", name][..], &["bucket", "allow", "--read", "--write", "--owner", name, "--key", key]]
        {
            let mut command = Command::new(std::env::var_os("S3DEDUP_TEST_GARAGE").unwrap());
            command.arg("-c").arg(self.dir.path().join("garage.toml")).args(arguments);
            let output = command.env("GARAGE_ALLOW_WORLD_READABLE_SECRETS", "true").output().unwrap();
            assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        S3Access { bucket: name.into(), ..self.access.clone() }
    }
}

impl Drop for Garage {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
