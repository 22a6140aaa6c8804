//! A server with a proxy on each of its ways out.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use rustix::process::Signal;
use s3dedup_actors::testkit::postgres::{PASSWORD, PostgresServer, USER};
use s3dedup_actors::testkit::proxy::{FaultProxy, HttpFault, HttpFaultProxy, NetworkFault};

use crate::load::peer::{Condition, Peer};
use crate::support::TestServer;
use crate::support::s3::S3Access;

/// What stands on the ways out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    S3,
    /// Both ways to PostgreSQL.
    Database,
    Metadata,
    Locks,
}

/// What goes wrong on a way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    Network(NetworkFault),
    Http(HttpFault),
}

/// Where metadata are: nothing is SQLite.
pub type Database<'a> = Option<(&'a PostgresServer, &'a str)>;

pub struct Member {
    // Dropped first: it needs the proxies to stop well.
    pub server: TestServer,
    pub peer: Arc<Peer>,
    s3: Option<(FaultProxy, HttpFaultProxy)>,
    /// Metadata and locks.
    database: Option<[FaultProxy; 2]>,
}

impl Member {
    /// A server with contents in this bucket, or in a folder.
    pub fn start(
        name: &str,
        contents: Option<&S3Access>,
        database: Database<'_>,
        settings: &[(&str, &str)],
        seed: u64,
    ) -> Self {
        let mut builder = TestServer::builder();
        let s3 = contents.map(|access| {
            let http = HttpFaultProxy::start(access.address(), seed);
            (FaultProxy::start_seeded(http.address(), seed), http)
        });
        if let (Some(access), Some((proxy, _))) = (contents, &s3) {
            let endpoint = format!("http://127.0.0.1:{}", proxy.port());
            builder = builder.s3(&S3Access { endpoint, ..access.clone() });
        }
        let ways = database.map(|(postgres, _)| {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, postgres.port()));
            [FaultProxy::start_seeded(address, seed), FaultProxy::start_seeded(address, !seed)]
        });
        if let (Some((_, database)), Some([metadata, locks])) = (database, &ways) {
            builder = builder
                .env("KVSTORAGE_TYPE", "postgres")
                .env("LOCKS_TYPE", "postgres")
                .env("POSTGRES_HOST", "127.0.0.1")
                .env("POSTGRES_PORT", metadata.port())
                .env("POSTGRES_LOCK_HOST", "127.0.0.1")
                .env("POSTGRES_LOCK_PORT", locks.port())
                .env("POSTGRES_USER", USER)
                .env("POSTGRES_PASSWORD", PASSWORD)
                .env("POSTGRES_DB", database)
                .env("POSTGRES_MAX_CONNECTIONS", 12)
                .env("INSTANCE_ID", name);
        }
        for (setting, value) in [
            ("HTTP_WORKERS", "2"),
            ("CPU_THREADS", "1"),
            ("MAX_INMEMORY_SIZE", "65536"),
            ("CONTENT_CACHE_BYTES", "200000"),
        ] {
            builder = builder.env(setting, value);
        }
        for (setting, value) in settings {
            builder = builder.env(setting, value);
        }
        let server = builder.start();
        let peer = Arc::new(Peer::new(name.to_owned(), server.address()));
        peer.may_cut();
        Self { server, peer, s3, database: ways }
    }

    /// Lets something go wrong for this share of the connections or requests.
    pub fn fail(&self, way: Way, fault: Fault, share: f64) {
        match (way, fault) {
            (Way::S3, Fault::Http(fault)) => self.s3.as_ref().unwrap().1.fail(fault, share),
            (way, Fault::Network(fault)) => self.proxies(way).for_each(|proxy| proxy.fail_some(fault, share)),
            (way, Fault::Http(_)) => panic!("{way:?} is not HTTP"),
        }
    }

    /// How many requests to S3 were answered wrongly.
    pub fn answered_wrongly(&self) -> usize {
        self.s3.as_ref().map_or(0, |(_, http)| http.met())
    }

    /// Everything goes well again.
    pub fn pass(&self) {
        if let Some((_, http)) = &self.s3 {
            http.pass();
        }
        [Way::S3, Way::Database].into_iter().flat_map(|way| self.proxies(way)).for_each(FaultProxy::pass);
    }

    /// Ends the connections to S3, those that are kept for later included. Nothing is wrong after it.
    pub fn hang_up(&self) {
        self.proxies(Way::S3).for_each(|proxy| {
            proxy.cut();
            proxy.pass();
        });
    }

    fn proxies(&self, way: Way) -> impl Iterator<Item = &FaultProxy> {
        let s3 = self.s3.iter().map(|(proxy, _)| proxy).filter(move |_| way == Way::S3);
        let of = |index: usize| self.database.iter().map(move |ways| &ways[index]);
        let metadata = of(0).filter(move |_| matches!(way, Way::Database | Way::Metadata));
        let locks = of(1).filter(move |_| matches!(way, Way::Database | Way::Locks));
        s3.chain(metadata).chain(locks)
    }

    /// `kill -9`, and a new start.
    pub fn kill_and_restart(&mut self) {
        self.kill();
        self.start_again();
    }

    pub fn kill(&mut self) {
        self.peer.becomes(Condition::Killed);
        self.server.signal(Signal::KILL);
        self.server.wait();
    }

    /// `SIGTERM`, and a new start. It must end well.
    pub fn stop_and_restart(&mut self) {
        // Once it has stopped to listen nobody gets an answer.
        self.peer.becomes(Condition::Killed);
        self.server.stop();
        self.start_again();
    }

    pub fn start_again(&mut self) {
        self.server.start_again();
        self.peer.serves_at(self.server.address());
    }
}
