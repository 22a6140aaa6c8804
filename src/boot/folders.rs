//! The folders a server needs.

use std::path::Path;

use super::StartError;
use crate::config::{Config, StorageType};

/// Creates what is missing.
pub fn create(config: &Config) -> Result<(), StartError> {
    if config.bucket.storage_type == StorageType::Filesystem {
        create_one("data_dir", &config.data_dir)?;
    }
    if let Some(folder) = config.sqlite.path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        create_one("sqlite.path", folder)?;
    }
    create_one("bucket.temp_dir", &config.bucket.temp_dir)?;
    // the first large upload would be a bad moment to learn it; stores find out about theirs alone
    tempfile::tempfile_in(&config.bucket.temp_dir).map(drop).map_err(|error| {
        let folder = config.bucket.temp_dir.display();
        StartError::new(format!("cannot write to the folder {folder} of bucket.temp_dir: {error}"))
    })
}

fn create_one(key: &str, folder: &Path) -> Result<(), StartError> {
    std::fs::create_dir_all(folder)
        .map_err(|error| StartError::new(format!("cannot create the folder {} of {key}: {error}", folder.display())))
}
