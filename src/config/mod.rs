//! Configuration: built-in defaults, then a file, then the environment, then flags.
//!
//! All settings stand in one table ([`table::SETTINGS`]). A value is checked where it comes in, so
//! a wrong one is refused even when a stronger layer would hide it. The merging itself is the work
//! of the `config` crate.

mod access;
mod cluster;
pub mod docs;
mod error;
mod file;
mod layer;
pub mod report;
mod resolve;
mod sections;
pub mod setting;
pub mod table;
mod value;

pub use value::listen;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::path::PathBuf;

pub use access::{Access, MetricsFor, Tls};
pub use cluster::{Instance, Locks, LocksType, MetadataType, Postgres, SslMode};
pub use error::{ConfigError, one_line};
pub use sections::{
    Actors, Bucket, Cache, Cleaner, Compression, Config, Export, FallbackBucket, Filetracker, KeySharding, Level,
    Limits, Logging, MigrationMode, Repair, Rotate, S3, Secret, Sqlite, Storage, StorageType,
};

use layer::Layer;

/// Where configuration comes from.
pub struct Inputs<'a> {
    /// The file, if any.
    pub file: Option<PathBuf>,
    /// Reads an environment variable.
    pub variable: &'a dyn Fn(&str) -> Option<OsString>,
    /// Keys of the table with the values of their flags.
    pub flags: Vec<(&'static str, String)>,
}

/// A checked configuration, and where every value of it came from.
pub struct Loaded {
    /// The typed values.
    pub config: Config,
    merged: config::Config,
}

/// Reads, checks and merges everything.
pub fn load(inputs: &Inputs<'_>) -> Result<Loaded, ConfigError> {
    let fixed = Layer::defaults()?;
    let file = inputs.file.as_deref().map(file::load).transpose()?.unwrap_or_default();
    let environment = Layer::environment(inputs.variable)?;
    let flags = Layer::flags(&inputs.flags)?;

    let given = resolve::merge(&[&fixed, &file, &environment, &flags])?;
    resolve::check_together(&given)?;
    let derived = resolve::derived_defaults(&given);
    let secrets = resolve::secrets_from_files(&given)?;
    let merged = resolve::merge(&[&fixed, &derived, &file, &environment, &flags, &secrets])?;
    resolve::check_required(&merged)?;

    let config = Config::from_merged(merged.clone()).map_err(resolve::internal)?;
    Ok(Loaded { config, merged })
}

/// The token that the environment has for a server that no configuration describes.
pub fn admin_token(variable: &dyn Fn(&str) -> Option<OsString>) -> Result<Option<Secret>, ConfigError> {
    let known = ["ADMIN_TOKEN", "ADMIN_TOKEN_FILE"];
    let only = |name: &str| known.contains(&name).then(|| variable(name)).flatten();
    load(&Inputs { file: None, variable: &only, flags: Vec::new() }).map(|loaded| loaded.config.access.admin_token)
}
