//! The engine a configuration asks for: stores, limits, actors.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use s3dedup_actors::failpoint::Point;
use s3dedup_actors::model::{Error, KeyLayout};
use s3dedup_actors::store::blob::{BlobStore, FolderSettings, FolderStore, S3Settings, S3Store};
use s3dedup_actors::store::blocking::BlockingPool;
use s3dedup_actors::store::meta::MigrationJournal;
use s3dedup_actors::store::tie::TiedStore;
use s3dedup_actors::{
    CleanerLimits, CleanerSettings, DistributedLockSettings, Engine, EngineSettings, EngineTree, ExporterSettings,
    SpoolLimits,
};
use tokio::sync::oneshot;

use super::metadata::{self, Metadata};
use super::{StartError, beside, matching, membership, reached};
use crate::config::{Config, FallbackBucket, KeySharding, LocksType, Storage, StorageType};
use crate::http::path::Prefix;
use crate::observe::{Facts, Observer};

/// Pieces of files that are read at the same time.
const READ_THREADS: usize = 8;
/// Larger objects go to S3 in parts of this size. It is a bound on what a failed request sends again,
/// not on memory: parts are streamed from where the upload is spooled.
const PART_BYTES: u64 = 8 << 20;
/// Parts of one object that are sent to S3 at once.
const PARTS_IN_FLIGHT: usize = 1;

/// How a folder store is opened.
pub type OpenFolder = fn(&FolderSettings) -> s3dedup_actors::model::Result<FolderStore>;

/// An engine that runs.
pub struct Started {
    /// The door for front ends, with a window beside it.
    pub observer: Observer,
    /// Its life.
    pub control: EngineControl,
}

/// What boot needs of a running engine besides the door.
pub struct EngineControl {
    /// Ready when the engine cannot go on; says why.
    pub fatal: LocalBoxFuture<'static, String>,
    /// Ready when no request is inside.
    pub quiet: LocalBoxFuture<'static, ()>,
    /// Waits for requests inside, at most the time given, then ends the engine and closes the stores, which
    /// is bounded too.
    pub stop: Box<dyn FnOnce(Duration) -> LocalBoxFuture<'static, ()>>,
}

/// Starts the engine: stores, migrations of the schema, actors. `port` is the one that clients will reach.
pub async fn start_engine(config: &Config, port: u16) -> Result<Started, StartError> {
    let instance = config.instance_id(port);
    let Metadata { store: metadata, care, journal, mirror, browser, registry } =
        metadata::open(config, &instance).await?;
    reached(Point::StartAfterOpenMetadata).await?;
    if let Some(registry) = &registry {
        matching::check_place(config, metadata.as_ref(), registry.as_ref()).await?;
    }
    let contents = open_contents(config, FolderStore::open).await?;
    let contents = Arc::new(TiedStore::new(contents, Arc::clone(&metadata)));
    matching::tie(&contents).await?;
    reached(Point::StartAfterTie).await?;
    let membership = match &registry {
        Some(registry) => Some(membership::join(config, Arc::clone(registry), port).await?),
        None => None,
    };
    let (report, reported) = oneshot::channel();
    let on_fatal = Box::new(move |why| {
        // Nobody listens once the server is stopping anyway.
        let _ = report.send(why);
    });
    let old = beside::plan(config, Arc::clone(&mirror), &instance)?;
    if old.is_none() {
        actix_rt::spawn(beside::forget_deletions(mirror));
    }
    let failed = |error: Error| StartError::new(error.to_string());
    let facts = Facts {
        instance: instance.clone(),
        prefix: Prefix::new(&config.filetracker.prefix).to_string(),
        metadata: metadata.kind(),
        contents: match config.bucket.storage_type {
            StorageType::S3 => "s3",
            StorageType::Filesystem => "filesystem",
        },
        locks: config.locks_type.name(),
        cleans: config.cleaner.enabled,
    };
    let engine = Engine::start(engine_settings(config, instance.clone()), metadata, contents, on_fatal);
    let (engine, mut tree) = engine.map_err(failed)?;
    if config.export.interval_seconds > 0 {
        let (interval, path) = (Duration::from_secs(config.export.interval_seconds), config.export.path.clone());
        let settings = ExporterSettings { interval, path, keep: config.export.keep };
        tree.export(settings, &instance, care).map_err(failed)?;
    }
    if let Some(membership) = membership {
        tree.keep_up(membership);
    }
    if let Some(old) = old {
        old.begin(&mut tree, &engine, Arc::clone(&journal));
    }
    let fatal = async move {
        match reported.await {
            Ok(why) => why,
            Err(_) => std::future::pending().await,
        }
    };
    let stop = |wait_max| {
        let stopped: LocalBoxFuture<'static, ()> = Box::pin(async move {
            if !tree.stop(wait_max).await {
                log::warn!("requests were cut off at the end of the drain time");
            }
        });
        stopped
    };
    let quiet = Box::pin(engine.quiet());
    let observer = Observer::new(engine, facts, browser, journal, registry);
    Ok(Started { observer, control: EngineControl { fatal: Box::pin(fatal), quiet, stop: Box::new(stop) } })
}

/// An engine without anything in front of it, for commands.
pub struct Offline {
    /// The door.
    pub engine: Engine,
    /// Its actors.
    pub tree: EngineTree,
    /// What migrations are noted in.
    pub journal: Arc<dyn MigrationJournal>,
    /// Ready when the engine cannot go on; says why.
    pub fatal: oneshot::Receiver<String>,
}

/// Starts an engine that does not clean. It is no member of those that share a database: it serves nobody.
pub async fn start_offline(config: &Config, holder: &str) -> Result<Offline, StartError> {
    let Metadata { store: metadata, journal, registry, .. } = metadata::open(config, holder).await?;
    if let Some(registry) = &registry {
        matching::check_place(config, metadata.as_ref(), registry.as_ref()).await?;
    }
    let contents = open_contents(config, FolderStore::open).await?;
    let contents = Arc::new(TiedStore::new(contents, Arc::clone(&metadata)));
    matching::tie(&contents).await?;
    let (report, fatal) = oneshot::channel();
    let on_fatal = Box::new(move |why| {
        // Nobody listens once the command is ending anyway.
        let _ = report.send(why);
    });
    let settings = EngineSettings { cleaner: None, ..engine_settings(config, holder.to_owned()) };
    let started = Engine::start(settings, metadata, contents, on_fatal);
    let (engine, tree) = started.map_err(|error| StartError::new(error.to_string()))?;
    Ok(Offline { engine, tree, journal, fatal })
}

/// Opens the content store; a folder by `open`: [`FolderStore::open`] for its only user, [`FolderStore::attach`]
/// for somebody who looks on.
pub async fn open_contents(config: &Config, open: OpenFolder) -> Result<Arc<dyn BlobStore>, StartError> {
    match config.storage() {
        Storage::Filesystem => open_folder(&config.data_dir.join("blobs"), config, open),
        Storage::S3 { endpoint, access_key, secret_key } => {
            let s3 = &config.bucket.s3;
            let (access_key, secret_key) = (access_key.reveal(), secret_key.reveal());
            let settings = S3Settings {
                force_path_style: s3.force_path_style,
                part_size: PART_BYTES,
                parts_in_flight: PARTS_IN_FLIGHT,
                ..S3Settings::new(endpoint, &config.bucket.name, access_key, secret_key, &s3.region)
            };
            open_bucket(settings).await
        }
    }
}

fn open_folder(root: &Path, config: &Config, open: OpenFolder) -> Result<Arc<dyn BlobStore>, StartError> {
    let write_threads = config.actors.uploader_pool_size;
    let settings = FolderSettings { root: root.to_owned(), write_threads, read_threads: READ_THREADS };
    let shown = root.display();
    let failed = |error| StartError::new(format!("cannot use the content folder path={shown} error=\"{error}\""));
    Ok(Arc::new(open(&settings).map_err(failed)?))
}

/// A bucket that does not answer yet is no reason not to start: clients are told 503 until it does.
async fn open_bucket(settings: S3Settings) -> Result<Arc<dyn BlobStore>, StartError> {
    let place = format!("endpoint={} bucket={}", settings.endpoint, settings.bucket);
    let failed =
        |error: &dyn std::fmt::Display| StartError::new(format!("cannot use the bucket {place} error=\"{error}\""));
    let pool = BlockingPool::start("spool-read", READ_THREADS, READ_THREADS * 4).map_err(|error| failed(&error))?;
    let store = S3Store::new(settings, pool).map_err(|error| failed(&error))?;
    if let Err(error) = store.probe().await {
        log::warn!("the bucket does not answer, serving anyway {place} error=\"{error}\"");
    }
    Ok(Arc::new(store))
}

/// Opens a bucket that is only read, and only by repairs.
pub fn open_fallback(bucket: &FallbackBucket<'_>) -> Result<Arc<dyn BlobStore>, StartError> {
    let (access_key, secret_key) = (bucket.access_key.reveal(), bucket.secret_key.reveal());
    let settings = S3Settings {
        force_path_style: bucket.force_path_style,
        ..S3Settings::new(bucket.endpoint, bucket.name, access_key, secret_key, bucket.region)
    };
    let failed = |error: &dyn std::fmt::Display| {
        let (endpoint, name) = (bucket.endpoint, bucket.name);
        StartError::new(format!("cannot use the fallback endpoint={endpoint} bucket={name} error=\"{error}\""))
    };
    let pool = BlockingPool::start("spool-read", 1, 4).map_err(|error| failed(&error))?;
    Ok(Arc::new(S3Store::new(settings, pool).map_err(|error| failed(&error))?))
}

/// How names of new objects are spread.
pub fn layout(config: &Config) -> KeyLayout {
    let KeySharding { enabled, depth } = config.bucket.s3.key_sharding;
    KeyLayout::new(if enabled { u8::try_from(depth).unwrap_or(KeyLayout::DEPTH_MAX) } else { 0 })
}

fn engine_settings(config: &Config, instance: String) -> EngineSettings {
    let distributed_locks = (config.locks_type == LocksType::Postgres).then(|| {
        let postgres = metadata::lock_settings(config, &instance);
        let held_max = config.locks.held_max;
        DistributedLockSettings { held_max, ..DistributedLockSettings::new(postgres, &config.bucket.name) }
    });
    EngineSettings {
        instance,
        layout: layout(config),
        spool: SpoolLimits {
            memory_bytes_max: config.bucket.max_inmemory_size,
            temp_dir: config.bucket.temp_dir.clone(),
            files_are_kept: config.bucket.storage_type == StorageType::Filesystem,
            logical_bytes_max: config.limits.max_logical_size,
            compression_level: config.compression.level,
        },
        spool_memory_bytes_max: config.limits.spool_memory_max,
        cache_bytes: config.cache.content_bytes,
        request_slots_max: config.limits.request_slots_max,
        metadata_actors: metadata::actors(config),
        uploaders: config.actors.uploader_pool_size,
        upload_backlog_max: config.actors.upload_backlog_max,
        compute_threads: config.actors.cpu_threads(),
        upload_time_min: s3dedup_actors::UPLOAD_TIME_MIN,
        stuck_after: Duration::from_secs(config.actors.stuck_seconds),
        distributed_locks,
        cleaner: config.cleaner.enabled.then(|| CleanerSettings {
            interval: Duration::from_secs(config.cleaner.interval_seconds),
            full_scan: config.cleaner.full_scan(),
            limits: cleaner_limits(config),
        }),
    }
}

/// How much one run of the cleaner may do.
pub fn cleaner_limits(config: &Config) -> CleanerLimits {
    let cleaner = &config.cleaner;
    let grace = Duration::from_secs(cleaner.grace_seconds);
    CleanerLimits {
        batch_size: cleaner.batch_size,
        deletes_max: cleaner.max_deletes,
        concurrency: cleaner.concurrency,
        grace,
        intent_age: CleanerLimits::intent_age(grace),
    }
}
