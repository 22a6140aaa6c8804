//! One server of a cluster, with a proxy on each of its ways out.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use rustix::process::Signal;
use s3dedup_actors::testkit::postgres::{DATABASE, PASSWORD, PostgresServer, USER};
use s3dedup_actors::testkit::proxy::FaultProxy;

use crate::load::peer::{Condition, Peer};
use crate::support::TestServer;
use crate::support::s3::S3Access;

pub struct Member {
    // Dropped first: it needs the proxies to stop well.
    pub server: TestServer,
    pub peer: Arc<Peer>,
    /// To PostgreSQL; `None` with SQLite.
    pub database: Option<DatabaseWays>,
    pub s3: FaultProxy,
}

/// Ways to PostgreSQL.
pub struct DatabaseWays {
    pub metadata: FaultProxy,
    pub locks: FaultProxy,
}

impl DatabaseWays {
    pub fn both(&self) -> [&FaultProxy; 2] {
        [&self.metadata, &self.locks]
    }
}

impl Member {
    /// A server on a bucket, with metadata and locks in PostgreSQL, or alone with SQLite.
    pub fn start(number: usize, s3: &S3Access, postgres: Option<&PostgresServer>) -> Self {
        let proxy_to = |port: u16| FaultProxy::start(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let (s3_proxy, name) = (FaultProxy::start(s3.address()), format!("server-{number}"));
        let access = S3Access { endpoint: format!("http://127.0.0.1:{}", s3_proxy.port()), ..s3.clone() };
        // Uploads of more than a few pieces are seen in the temporary directory.
        let mut builder = TestServer::builder().s3(&access).env("MAX_INMEMORY_SIZE", 65_536);
        let database = postgres
            .map(|postgres| DatabaseWays { metadata: proxy_to(postgres.port()), locks: proxy_to(postgres.port()) });
        if let Some(ways) = &database {
            builder = builder
                .env("KVSTORAGE_TYPE", "postgres")
                .env("LOCKS_TYPE", "postgres")
                .env("POSTGRES_HOST", "127.0.0.1")
                .env("POSTGRES_PORT", ways.metadata.port())
                .env("POSTGRES_LOCK_HOST", "127.0.0.1")
                .env("POSTGRES_LOCK_PORT", ways.locks.port())
                .env("POSTGRES_USER", USER)
                .env("POSTGRES_PASSWORD", PASSWORD)
                .env("POSTGRES_DB", DATABASE)
                .env("POSTGRES_MAX_CONNECTIONS", 10)
                .env("INSTANCE_ID", &name);
        }
        let server = builder.start();
        let peer = Arc::new(Peer::new(name, server.address()));
        Self { server, peer, database, s3: s3_proxy }
    }

    /// `kill -9`, and a new start.
    pub fn kill_and_restart(&mut self) {
        self.kill();
        self.server.start_again();
        self.peer.serves_at(self.server.address());
    }

    pub fn kill(&mut self) {
        self.peer.becomes(Condition::Killed);
        self.server.signal(Signal::KILL);
        self.server.wait();
    }

    /// `SIGSTOP`: as a machine that is suspended, or that swaps.
    pub fn stall(&self) {
        self.peer.becomes(Condition::Stopped);
        self.server.signal(Signal::STOP);
    }

    /// `SIGCONT`.
    pub fn go_on(&self) {
        self.server.signal(Signal::CONT);
        self.peer.serves_at(self.server.address());
    }
}
