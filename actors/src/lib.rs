//! The engine of s3dedup: every content once, behind supervised actors.
//!
//! A front end sees [`Engine`] and the values of [`model`]; it never sees SQL, an S3 client or a
//! message. The map of the engine is in `docs/architecture.md`.

pub mod backup;
pub mod cleaner;
mod cluster;
mod download;
mod engine;
mod exporter;
pub mod failpoint;
pub mod filetracker;
mod lock;
mod metadata;
pub mod migrator;
pub mod model;
mod patience;
pub mod repair;
pub mod runtime;
mod spool;
pub mod store;
#[cfg(feature = "testkit")]
pub mod testkit;
mod upload;
pub mod verify;

pub use cleaner::{CleanerLimits, CleanerSettings};
pub use cluster::Membership;
pub use download::{CacheReading, Download};
pub use engine::{
    ActorReport, ActorTree, BackendReading, BesideReport, BesideSettings, Description, Engine, EngineReading,
    EngineSettings, EngineTree, Fetched, Gauges, Migrated, MigrationTotals, NameStream, PutOutcome, Readiness, Reading,
};
pub use exporter::{ExporterSettings, ExporterStats};
pub use lock::distributed::{DistributedLockSettings, DistributedLockStats};
pub use runtime::admission::Permit;
pub use runtime::behalf::Behalf;
pub use runtime::guard::ActorState;
pub use runtime::guardian::OnFatal;
pub use spool::{BodyEncoding, SpoolLimits, Spooler};
pub use store::blob::Spooled;
pub use store::meta::{DeleteOutcome, Totals};
pub use upload::UPLOAD_TIME_MIN;
