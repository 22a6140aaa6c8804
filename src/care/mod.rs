//! Commands that look after a store: `verify`, `repair`, `quarantine`, `export`, `import`.
//!
//! Who only looks takes no lock and changes nothing, not even the schema: a server may run meanwhile. Who writes takes
//! the locks that a server takes, so that with SQLite or a folder no server runs; PostgreSQL with a bucket is shared.

mod backup;
pub mod progress;
mod quarantine;
mod repair;
mod turn;
mod verify;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use s3dedup_actors::model::Kind;
use s3dedup_actors::store::blob::FolderStore;
use s3dedup_actors::store::instances::InstanceRegistry;
use s3dedup_actors::store::meta::{MetaCare, PostgresStore, SqliteSettings, SqliteStore};
use s3dedup_actors::verify::{Examiner, Pace, Stores};
use serde_json::Value;

use crate::boot::matching::Match;
use crate::boot::metadata::{place, postgres_settings};
use crate::boot::{engine, folders, matching};
use crate::config::{Config, MetadataType, Storage, one_line};
use crate::{exit, files, logging};

pub use backup::{export, import};
pub use quarantine::{QuarantineAction, quarantine};
pub use repair::{RepairOptions, repair};
pub use verify::{VerifyOptions, verify};

/// Reading connections to SQLite.
const READERS: usize = 3;
/// Metadata operations that may wait: more than are ever begun at once.
const BACKLOG: usize = 4096;
/// Objects that are read at once: enough to hide how long a bucket takes to answer.
const CONCURRENCY: usize = 16;

/// Where a report goes.
#[derive(Clone, Debug, Default)]
pub struct ReportTo {
    /// This file, replaced as a whole.
    pub file: Option<PathBuf>,
    /// Standard output, as JSON instead of text.
    pub json: bool,
}

impl ReportTo {
    /// Whether anybody reads more than the text.
    fn is_for_programs(&self) -> bool {
        self.json || self.file.is_some()
    }

    /// Looks whether the report can be written, before there is one.
    fn expect_place(&self) -> Result<(), String> {
        let looked = self.file.as_deref().map(|file| files::expect_place(file).map_err(|why| cannot_write(file, &why)));
        looked.unwrap_or(Ok(()))
    }

    /// Writes the report; `text` is for people.
    fn write(&self, report: &Value, text: &str) -> Result<(), String> {
        if let Some(file) = &self.file {
            replace(file, format!("{report:#}\n").as_bytes())?;
        }
        let shown = if self.json { format!("{report:#}") } else { text.trim_end().to_owned() };
        // A reader that went away is no failure of the work.
        let _ = writeln!(std::io::stdout(), "{shown}");
        Ok(())
    }
}

/// Runs a command to its exit code; an error is one line for people.
pub fn run(config: &Config, command: impl Future<Output = Result<u8, String>>) -> u8 {
    logging::init(&config.logging);
    actix_rt::System::new().block_on(command).unwrap_or_else(|error| {
        let _ = writeln!(std::io::stderr(), "s3dedup: {}", one_line(&error));
        exit::CANNOT_START
    })
}

fn said(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// The stores for somebody who only looks.
pub async fn attach(config: &Config) -> Result<Stores, String> {
    with_contents(config, attach_metadata(config)?, FolderStore::attach).await
}

fn attach_metadata(config: &Config) -> Result<Arc<dyn MetaCare>, String> {
    let failed = |error| format!("cannot open the database {} error=\"{error}\"", where_is(config));
    Ok(match config.kvstorage_type {
        MetadataType::Sqlite => Arc::new(SqliteStore::attach(&sqlite_settings(config)).map_err(failed)?),
        MetadataType::Postgres => {
            let settings = postgres_settings(config, "(care)");
            Arc::new(PostgresStore::attach(&settings, config.postgres.pool_size, BACKLOG).map_err(failed)?)
        }
    })
}

/// The stores for somebody who writes, and the locks that keep servers off them. A database that instances share must be
/// that of these contents, and `is_rebuild` needs it for itself. Only a rebuild makes a database: anyone else has been told
/// the wrong place when there is none.
async fn open_alone(config: &Config, is_rebuild: bool) -> Result<(Stores, folders::DataLocks), String> {
    if config.kvstorage_type == MetadataType::Sqlite && !is_rebuild && !config.sqlite.path.exists() {
        return Err(format!("there is no database {}", where_is(config)));
    }
    let locks = folders::lock(config).map_err(said)?;
    let failed = |error| format!("cannot open the database {} error=\"{error}\"", where_is(config));
    let metadata: Arc<dyn MetaCare> = match config.kvstorage_type {
        MetadataType::Sqlite => Arc::new(SqliteStore::open(&sqlite_settings(config)).map_err(failed)?),
        MetadataType::Postgres => {
            let settings = postgres_settings(config, "(care)");
            let store = PostgresStore::open(&settings, config.postgres.pool_size, BACKLOG).await;
            let store = store.map_err(failed)?;
            matching::check_place(config, &store, &store).await.map_err(said)?;
            if is_rebuild {
                refuse_live(&store).await?;
            }
            Arc::new(store)
        }
    };
    Ok((with_contents(config, metadata, FolderStore::open).await?, locks))
}

/// For what must be alone on a database that instances share: on one that is only half known, a server would give new
/// objects the names of old ones.
pub async fn refuse_live(registry: &dyn InstanceRegistry) -> Result<(), String> {
    let known = registry.instances().await.map_err(|error| format!("cannot read the database error=\"{error}\""))?;
    match known.iter().find(|known| known.is_live()) {
        Some(known) => Err(format!("the instance {} serves this database: stop all servers first", known.instance.id)),
        None => Ok(()),
    }
}

async fn with_contents(
    config: &Config,
    metadata: Arc<dyn MetaCare>,
    open: engine::OpenFolder,
) -> Result<Stores, String> {
    let contents = engine::open_contents(config, open).await.map_err(said)?;
    // A bucket that does not answer is no damage.
    contents.probe().await.map_err(|error| format!("the content store does not answer error=\"{error}\""))?;
    Ok(Stores { metadata, contents })
}

/// What an empty content store means to a command, when the database knows contents.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Empty {
    /// That it is the wrong one: the command ends.
    Wrong,
    /// That it is damaged, which is what the command is for.
    Damaged,
}

/// Refuses stores that do not belong together, and an empty content store.
pub async fn check_match(stores: &Stores) -> Result<(), String> {
    check_match_but(stores, Empty::Wrong).await
}

async fn check_match_but(stores: &Stores, empty: Empty) -> Result<(), String> {
    if stores.metadata.totals().await.is_err_and(|error| error.kind() == Kind::Corrupt) {
        // It is what is to be looked into.
        return Ok(());
    }
    match matching::look(stores.metadata.as_ref(), stores.contents.as_ref()).await.map_err(said)? {
        Match::Emptied(why) if empty == Empty::Wrong => Err(why),
        Match::Emptied(why) => {
            log::warn!("{why}");
            Ok(())
        }
        Match::Good => Ok(()),
    }
}

fn sqlite_settings(config: &Config) -> SqliteSettings {
    SqliteSettings { path: config.sqlite.path.clone(), connections: READERS, backlog: BACKLOG }
}

/// What reads objects, at a pace.
pub fn examiner(config: &Config, mbps: Option<f64>) -> Result<Examiner, String> {
    let pace = mbps.map_or_else(Pace::unbounded, |mbps| Pace::bytes_per_second(mbps * 1e6));
    Examiner::start(config.actors.cpu_threads(), pace).map_err(|error| format!("cannot start threads: {error}"))
}

fn where_is(config: &Config) -> String {
    match config.kvstorage_type {
        MetadataType::Sqlite => format!("path={}", config.sqlite.path.display()),
        MetadataType::Postgres => place(config),
    }
}

/// What tells one store from another.
fn identity(config: &Config) -> String {
    let contents = match config.storage() {
        Storage::Filesystem => format!("folder={}", config.data_dir.display()),
        Storage::S3 { endpoint, .. } => format!("endpoint={endpoint} bucket={}", config.bucket.name),
    };
    format!("{} {contents}", where_is(config))
}

/// Replaces a file as a whole: whoever reads it sees the old or the new one.
pub fn replace(file: &Path, bytes: &[u8]) -> Result<(), String> {
    let replaced = files::begin(file).and_then(|mut waiting| {
        waiting.write_all(bytes)?;
        files::put(waiting, file)
    });
    replaced.map_err(|error| cannot_write(file, &error))
}

fn cannot_write(file: &Path, why: &dyn std::fmt::Display) -> String {
    format!("cannot write {}: {why}", file.display())
}

/// How often progress is shown: to people, and to a log.
const SHOW_EVERY: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(10)];
