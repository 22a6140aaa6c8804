//! Joining the instances that share a database.

use std::path::Path;
use std::sync::Arc;

use s3dedup_actors::Membership;
use s3dedup_actors::store::instances::{Instance, InstanceRegistry};

use super::StartError;
use crate::config::{Config, StorageType};

/// Ties the database to its contents and says that this instance is there. Refuses contents that are not those
/// of the database or of the other instances.
pub async fn join(config: &Config, registry: Arc<dyn InstanceRegistry>, port: u16) -> Result<Membership, StartError> {
    let me = Instance {
        id: config.instance_id(port),
        address: config.instance_address(port),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        contents: contents(config),
        locks: config.locks_type.name().to_owned(),
    };
    check_contents(config, registry.as_ref()).await?;
    let failed = |error| StartError::new(format!("cannot join the instances of the database error=\"{error}\""));
    Membership::join(registry, me).await.map_err(failed)
}

/// Refuses contents that are not those that the database is tied to.
pub async fn check_contents(config: &Config, registry: &dyn InstanceRegistry) -> Result<(), StartError> {
    // A folder has no name that stays: machines and mounts are renamed.
    if config.bucket.storage_type == StorageType::S3 { tie(registry, &contents(config)).await } else { Ok(()) }
}

async fn tie(registry: &dyn InstanceRegistry, contents: &str) -> Result<(), StartError> {
    let failed = |error| StartError::new(format!("cannot read the database error=\"{error}\""));
    let tied_to = registry.tie_to_contents(contents).await.map_err(failed)?;
    if tied_to == contents {
        return Ok(());
    }
    Err(StartError::new(format!(
        "the database belongs to the contents in {tied_to}, not to those in {contents}: \
         set BUCKET_NAME to that bucket, or use another database"
    )))
}

/// Where the contents are, in words that are the same for all instances that share them.
fn contents(config: &Config) -> String {
    match config.bucket.storage_type {
        StorageType::S3 => format!("s3 bucket {}", config.bucket.name),
        StorageType::Filesystem => {
            let folder = config.data_dir.canonicalize().unwrap_or_else(|_| config.data_dir.clone());
            let host = rustix::system::uname();
            let host = host.nodename().to_string_lossy();
            format!("folder {host}:{}", Path::new(&folder).join("blobs").display())
        }
    }
}
