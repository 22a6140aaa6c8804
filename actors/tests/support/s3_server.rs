//! s3s-fs in this process: real HTTP, signatures enforced, objects in a temporary folder.
//!
//! It stops at keys of 161 bytes and cannot hold both `x` and `x/y`.

use std::net::SocketAddr;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

pub const ACCESS_KEY: &str = "test-access-key";
pub const SECRET_KEY: &str = "test-secret-key";
pub const BUCKET: &str = "contents";

/// A running server with an empty bucket; it ends when dropped.
pub struct S3Server {
    pub endpoint: String,
    pub folder: TempDir,
    runtime: Option<Runtime>,
}

impl S3Server {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("temporary folder");
        std::fs::create_dir(folder.path().join(BUCKET)).expect("bucket");
        let files = s3s_fs::FileSystem::new(folder.path()).expect("s3s-fs");
        let mut service = S3ServiceBuilder::new(files);
        service.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("runtime");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("port");
        listener.set_nonblocking(true).expect("non-blocking");
        let address: SocketAddr = listener.local_addr().expect("address");
        runtime.spawn(serve(listener, service.build()));
        Self { endpoint: format!("http://{address}"), folder, runtime: Some(runtime) }
    }
}

async fn serve(listener: std::net::TcpListener, service: S3Service) {
    let listener = TcpListener::from_std(listener).expect("listener");
    while let Ok((socket, _)) = listener.accept().await {
        let _ = socket.set_nodelay(true);
        let service = service.clone();
        tokio::spawn(async move {
            let server = Builder::new(TokioExecutor::new());
            // The client hung up: tests do that on purpose.
            let _ = server.serve_connection(TokioIo::new(socket), service).await;
        });
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        // Waiting for its threads is not allowed inside another runtime.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
