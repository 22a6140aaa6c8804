//! The typed configuration.

use std::fmt;
use std::path::PathBuf;

use s3dedup_actors::cleaner::Schedule;
use serde::Deserialize;

use super::access::{Access, Tls};
use super::cluster::{Instance, Locks, LocksType, MetadataType, Postgres};

/// Everything the server needs to know. Values are checked; see the table for what they mean.
#[derive(Debug, Clone, Deserialize)]
pub struct Config {
    /// What is logged, and how.
    pub logging: Logging,
    /// Folder of everything that has no place of its own.
    pub data_dir: PathBuf,
    /// Where metadata lives.
    pub kvstorage_type: MetadataType,
    /// The metadata database in a local file.
    pub sqlite: Sqlite,
    /// The PostgreSQL server.
    pub postgres: Postgres,
    /// Where locks live.
    pub locks_type: LocksType,
    /// Bounds on locks.
    pub locks: Locks,
    /// Who this instance is. Empty when the port is not known yet: see [`Config::instance_id`].
    #[serde(default)]
    pub(super) instance: Instance,
    /// The bucket and the address it is served at.
    pub bucket: Bucket,
    /// The Filetracker front end.
    pub filetracker: Filetracker,
    /// Who may do what.
    pub access: Access,
    /// Encryption of connections. Empty without it.
    #[serde(default)]
    pub tls: Tls,
    /// Bounds on what clients may use.
    pub limits: Limits,
    /// Sizes of pools and queues.
    pub actors: Actors,
    /// Removal of what no file uses.
    pub cleaner: Cleaner,
    /// Caches.
    pub cache: Cache,
    /// Compression of plain uploads.
    pub compression: Compression,
    /// Exports of names by the server.
    pub export: Export,
    /// What repairs may use.
    pub repair: Repair,
    /// Migration from an old server.
    pub migration: Migration,
}

/// Section `logging`.
#[derive(Debug, Clone, Deserialize)]
pub struct Logging {
    /// The lowest level that is logged.
    pub level: Level,
    /// One JSON object a line.
    pub json: bool,
    /// A file that gets every line as a JSON object.
    pub json_path: Option<PathBuf>,
    /// When that file is put aside.
    pub json_rotate: Rotate,
    /// Its bytes, when its size decides that.
    pub json_max_bytes: u64,
    /// Files put aside that stay.
    pub json_keep: usize,
    /// A line for every request.
    pub access: bool,
}

/// When a log file is put aside and a new one begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rotate {
    /// Every day, in UTC.
    Daily,
    /// When it is large enough.
    Size,
    /// By somebody else.
    Never,
}

/// Levels of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// Section `sqlite`.
#[derive(Debug, Clone, Deserialize)]
pub struct Sqlite {
    /// File of the database.
    pub path: PathBuf,
    /// Connections.
    pub pool_size: usize,
}

/// Section `bucket`.
#[derive(Debug, Clone, Deserialize)]
pub struct Bucket {
    /// Name of the bucket.
    pub name: String,
    /// Host name or IP address to listen on.
    pub address: String,
    /// Port to listen on; 0 for any free one.
    pub port: u16,
    /// Where contents live; [`Config::storage`] has all of it.
    #[serde(rename = "s3storage_type")]
    pub storage_type: StorageType,
    /// The S3 server.
    pub s3: S3,
    /// Bytes of an upload that stay in memory.
    pub max_inmemory_size: u64,
    /// Folder for temporary files of uploads.
    pub temp_dir: PathBuf,
}

/// Where contents live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StorageType {
    /// In an S3 bucket.
    S3,
    /// In a local folder.
    Filesystem,
}

/// Section `bucket.s3`. Endpoint and keys are there whenever the storage type is S3.
#[derive(Debug, Clone, Deserialize)]
pub struct S3 {
    endpoint: Option<String>,
    access_key: Option<Secret>,
    secret_key: Option<Secret>,
    /// Region that requests are signed for.
    pub region: String,
    /// Bucket in the path instead of the host name.
    pub force_path_style: bool,
    /// Prefixes of object names.
    pub key_sharding: KeySharding,
}

/// Section `bucket.s3.key_sharding`.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct KeySharding {
    /// Whether object names have prefixes.
    pub enabled: bool,
    /// How many, of two characters each.
    pub depth: usize,
}

/// The content store, with all it needs.
#[derive(Debug)]
pub enum Storage<'a> {
    /// A folder inside `data_dir`.
    Filesystem,
    /// A bucket.
    S3 {
        /// Scheme, host and port.
        endpoint: &'a str,
        /// Access key.
        access_key: &'a Secret,
        /// Secret key.
        secret_key: &'a Secret,
    },
}

/// Section `filetracker`.
#[derive(Debug, Clone, Deserialize)]
pub struct Filetracker {
    /// `/a/b`, or empty for the root.
    pub prefix: String,
}

/// Section `limits`.
#[derive(Debug, Clone, Deserialize)]
pub struct Limits {
    /// Requests inside at once.
    pub request_slots_max: usize,
    /// Bytes of the largest file, uncompressed.
    pub max_logical_size: u64,
    /// Bytes of memory of all uploads together.
    pub spool_memory_max: u64,
    /// Longest silence in an upload.
    pub body_idle_seconds: u64,
    /// Slowest upload in bytes per second; 0 for no bound.
    pub body_min_rate: u64,
    /// How long a client may take nothing of an answer.
    pub stalled_reader_seconds: u64,
    /// How long nothing may be heard of a client that something was sent to.
    pub gone_client_seconds: u64,
    /// Open connections of one address; 0 for any number.
    pub connections_per_address_max: usize,
    /// How long a stopping server lets requests finish.
    pub drain_seconds: u64,
    /// How long it serves new requests before it refuses them.
    pub drain_delay_seconds: u64,
}

/// Section `actors`.
#[derive(Debug, Clone, Deserialize)]
pub struct Actors {
    /// Contents on their way to the store at once.
    pub uploader_pool_size: usize,
    /// Contents waiting for an uploader.
    pub upload_backlog_max: usize,
    /// Metadata operations waiting.
    pub metadata_backlog_max: usize,
    /// Threads that speak HTTP; 0 for one a core.
    pub http_workers: usize,
    /// Threads that hash and compress; 0 for one a core.
    pub cpu_threads: usize,
    /// How long an actor's thread may be kept.
    pub stuck_seconds: u64,
}

/// Section `cleaner`.
#[derive(Debug, Clone, Deserialize)]
pub struct Cleaner {
    /// Whether the server cleans.
    pub enabled: bool,
    /// Seconds between runs.
    pub interval_seconds: u64,
    /// Objects that are deleted by one request.
    pub batch_size: usize,
    /// Objects that one run deletes.
    pub max_deletes: u64,
    /// Batches at once.
    pub concurrency: usize,
    /// Seconds that a content stays after its last file went.
    pub grace_seconds: u64,
    /// When the stores are compared; see [`Cleaner::full_scan`].
    full_scan_cron: Option<String>,
}

/// Section `cache`.
#[derive(Debug, Clone, Deserialize)]
pub struct Cache {
    /// Bytes of contents kept in memory; 0 for none.
    pub content_bytes: u64,
}

/// Section `compression`.
#[derive(Debug, Clone, Deserialize)]
pub struct Compression {
    /// gzip level of plain uploads.
    pub level: u32,
}

/// Section `export`.
#[derive(Debug, Clone, Deserialize)]
pub struct Export {
    /// Seconds between exports; 0 for none.
    pub interval_seconds: u64,
    /// The file, perhaps with `{time}` in its name.
    pub path: PathBuf,
    /// Files that stay.
    pub keep: usize,
}

/// Section `repair`.
#[derive(Debug, Clone, Deserialize)]
pub struct Repair {
    /// A server that damaged contents may be fetched from. Its address may hold a password.
    pub fallback_url: Option<Secret>,
    s3: FallbackS3,
}

/// Section `repair.s3`.
#[derive(Debug, Clone, Deserialize)]
struct FallbackS3 {
    endpoint: Option<String>,
    bucket: Option<String>,
    access_key: Option<Secret>,
    secret_key: Option<Secret>,
    region: String,
    force_path_style: bool,
}

/// A bucket that damaged contents may be fetched from.
#[derive(Debug)]
pub struct FallbackBucket<'a> {
    /// Scheme, host and port.
    pub endpoint: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Access key.
    pub access_key: &'a Secret,
    /// Secret key.
    pub secret_key: &'a Secret,
    /// Region that requests are signed for.
    pub region: &'a str,
    /// Bucket in the path instead of the host name.
    pub force_path_style: bool,
}

impl Repair {
    /// The bucket, if there is one.
    pub fn bucket(&self) -> Option<FallbackBucket<'_>> {
        let s3 = &self.s3;
        // the loader refuses an endpoint with anything missing
        Some(FallbackBucket {
            endpoint: s3.endpoint.as_deref()?,
            name: s3.bucket.as_deref()?,
            access_key: s3.access_key.as_ref()?,
            secret_key: s3.secret_key.as_ref()?,
            region: &s3.region,
            force_path_style: s3.force_path_style,
        })
    }
}

/// Section `migration`.
#[derive(Debug, Clone, Deserialize)]
pub struct Migration {
    /// The old server.
    pub filetracker_url: Option<String>,
    /// Its directory, if it is of version 1.
    pub v1_directory: Option<PathBuf>,
    /// Whether it is beside this server.
    pub mode: MigrationMode,
    /// The names that are copied, instead of all.
    pub file_list: Option<PathBuf>,
    /// Files that are copied at once.
    pub max_concurrency: usize,
}

/// What an old server is to this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MigrationMode {
    /// Nothing.
    Off,
    /// It is beside this one, and its files are copied in the background.
    Live,
    /// It is beside this one; only files that are asked for are copied.
    Proxy,
}

/// A text that is never shown: neither by `Debug` nor, for want of one, by `Display`.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The text, for the one place that signs with it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Config {
    pub(super) fn from_merged(merged: config::Config) -> Result<Self, config::ConfigError> {
        let config: Self = merged.try_deserialize()?;
        let s3 = &config.bucket.s3;
        let complete = s3.endpoint.is_some() && s3.access_key.is_some() && s3.secret_key.is_some();
        if config.bucket.storage_type == StorageType::S3 && !complete {
            return Err(config::ConfigError::Message("s3 settings are incomplete".to_owned()));
        }
        Ok(config)
    }

    /// The content store.
    pub fn storage(&self) -> Storage<'_> {
        let s3 = &self.bucket.s3;
        match (self.bucket.storage_type, &s3.endpoint, &s3.access_key, &s3.secret_key) {
            // the loader refuses s3 with anything missing, so S3 never falls through
            (StorageType::S3, Some(endpoint), Some(access_key), Some(secret_key)) => {
                Storage::S3 { endpoint, access_key, secret_key }
            }
            _ => Storage::Filesystem,
        }
    }
}

impl Cleaner {
    /// When the stores are compared.
    pub fn full_scan(&self) -> Option<Schedule> {
        // the loader has checked it
        self.full_scan_cron.as_deref().and_then(|text| text.parse().ok())
    }
}

impl Actors {
    /// Threads that speak HTTP.
    pub fn http_workers(&self) -> usize {
        or_cores(self.http_workers)
    }

    /// Threads that hash and compress.
    pub fn cpu_threads(&self) -> usize {
        or_cores(self.cpu_threads)
    }
}

/// `wanted`, or the number of cores for 0, within what actix accepts.
fn or_cores(wanted: usize) -> usize {
    const THREADS_MAX: usize = 512;
    if wanted > 0 {
        return wanted;
    }
    std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX)
}
