//! Several servers on one bucket and one database.

use s3dedup_actors::model::BlobKey;
use s3dedup_actors::testkit::postgres::PostgresServer;

use super::member::Member;
use crate::support::s3::{Garage, S3Access, S3InProcess};

/// An S3 server.
pub enum Bucket {
    InProcess(S3InProcess),
    Garage(Garage),
}

impl Bucket {
    pub fn access(&self) -> &S3Access {
        match self {
            Self::InProcess(s3) => &s3.access,
            Self::Garage(garage) => &garage.access,
        }
    }

    /// All objects with their sizes.
    pub fn objects(&self) -> Vec<(BlobKey, u64)> {
        self.access().objects()
    }
}

/// Dropped, every server must end well.
pub struct Cluster {
    // Dropped first, while all that they need is there.
    pub members: Vec<Member>,
    /// `None`: one server with SQLite.
    pub postgres: Option<PostgresServer>,
    pub bucket: Bucket,
}

impl Cluster {
    /// Servers that share PostgreSQL and a bucket.
    pub fn start(members: usize, bucket: Bucket) -> Self {
        let postgres = PostgresServer::start();
        let members = (0..members).map(|number| Member::start(number, bucket.access(), Some(&postgres))).collect();
        Self { members, postgres: Some(postgres), bucket }
    }

    /// One server with SQLite.
    pub fn start_alone(bucket: Bucket) -> Self {
        Self { members: vec![Member::start(0, bucket.access(), None)], postgres: None, bucket }
    }

    pub fn postgres(&self) -> &PostgresServer {
        self.postgres.as_ref().expect("a cluster with PostgreSQL")
    }

    pub fn postgres_mut(&mut self) -> &mut PostgresServer {
        self.postgres.as_mut().expect("a cluster with PostgreSQL")
    }
}
