//! The folders a server needs, and the locks that keep a second server off its data.

use std::ffi::OsString;
use std::fs::{File, TryLockError};
use std::path::Path;

use super::StartError;
use crate::config::{Config, MetadataType, StorageType};

/// The lock file of `data_dir`.
const LOCK_NAME: &str = "lock";
/// The lock file of a database is named like it, with this at the end.
const LOCK_SUFFIX: &str = ".lock";

/// This process is the only one on its data as long as this is alive. The kernel drops the locks with
/// the process, however it ends; the files stay.
#[derive(Debug)]
pub struct DataLocks {
    _files: Vec<File>,
}

/// Takes the data for this process alone: two servers, each with its own cache and its own locks on
/// names, would not see each other's writes.
///
/// The database has a lock of its own: it may lie anywhere, and several of them in one folder.
pub fn lock(config: &Config) -> Result<DataLocks, StartError> {
    let mut files = Vec::new();
    if config.bucket.storage_type == StorageType::Filesystem {
        files.push(lock_one("the folder", "data_dir", &config.data_dir, config.data_dir.join(LOCK_NAME).into())?);
    }
    // A PostgreSQL server is meant to be shared.
    if config.kvstorage_type == MetadataType::Sqlite {
        let database = &config.sqlite.path;
        let mut name = database.clone().into_os_string();
        name.push(LOCK_SUFFIX);
        files.push(lock_one("the database", "sqlite.path", database, name)?);
    }
    Ok(DataLocks { _files: files })
}

fn lock_one(what: &str, key: &str, path: &Path, name: OsString) -> Result<File, StartError> {
    let path = path.display();
    let failed = |error| StartError::new(format!("cannot lock {what} {path} of {key}: {error}"));
    let file = File::options().create(true).truncate(false).write(true).open(name).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(StartError::new(format!("{what} {path} of {key} is in use by another s3dedup")))
        }
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// Creates what is missing.
pub fn create(config: &Config) -> Result<(), StartError> {
    if config.bucket.storage_type == StorageType::Filesystem {
        create_one("data_dir", &config.data_dir)?;
    }
    let database = (config.kvstorage_type == MetadataType::Sqlite).then(|| config.sqlite.path.parent()).flatten();
    if let Some(folder) = database.filter(|folder| !folder.as_os_str().is_empty()) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Inputs, load};

    fn config(variables: &[(&str, &Path)]) -> Config {
        let variable = |name: &str| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| value.to_path_buf().into_os_string())
        };
        let config = load(&Inputs { file: None, variable: &variable, flags: Vec::new() }).unwrap().config;
        create(&config).unwrap();
        config
    }

    #[test]
    fn data_is_locked_until_its_owner_ends() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(&[("DATA_DIR", dir.path())]);
        let held = lock(&config).unwrap();
        let refusal = lock(&config).unwrap_err().to_string();
        assert!(
            refusal.contains(&dir.path().display().to_string()) && refusal.contains("another s3dedup"),
            "{refusal}"
        );
        drop(held);
        lock(&config).unwrap();
    }

    #[test]
    fn one_database_under_two_data_folders_is_refused_and_two_beside_each_other_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let held = lock(&config(&[("DATA_DIR", &at("a")), ("SQLITE_PATH", &at("a.db"))])).unwrap();
        let refusal = lock(&config(&[("DATA_DIR", &at("b")), ("SQLITE_PATH", &at("a.db"))])).unwrap_err().to_string();
        assert!(refusal.contains("a.db of sqlite.path"), "{refusal}");
        lock(&config(&[("DATA_DIR", &at("b")), ("SQLITE_PATH", &at("b.db"))])).unwrap();
        drop(held);
    }

    #[test]
    fn with_postgres_there_is_no_database_to_create_or_lock() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let variables =
            [("SQLITE_PATH", at("sub/kv.db")), ("DATA_DIR", at("a")), ("KVSTORAGE_TYPE", "postgres".into())];
        let variables: Vec<_> = variables.iter().map(|(key, value)| (*key, value.as_path())).collect();
        let _held = lock(&config(&variables)).unwrap();
        assert!(!at("sub").exists() && at("a").join(LOCK_NAME).exists());
    }
}
