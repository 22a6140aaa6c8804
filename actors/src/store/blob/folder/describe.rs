//! The description beside an object.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::model::{BlobInfo, Error, Kind, Result};

/// The ending of a description's file name.
pub(super) const SUFFIX: &str = ".json";

/// Permissions of all files: other people's data is not for every user of the machine.
pub(super) const FILE_MODE: u32 = 0o640;

#[derive(Serialize, Deserialize)]
struct Description {
    sha256: String,
    logical_size: u64,
    encoding: String,
    stored_size: u64,
    blake3: String,
}

/// Where the description of the object at `object` is.
pub(super) fn path(object: &Path) -> PathBuf {
    let mut path = OsString::from(object);
    path.push(SUFFIX);
    path.into()
}

/// Writes the description of the object at `object`, in one step over an older one if there is one;
/// `waiting` is a name of its own on the same file system.
pub(super) fn write(object: &Path, info: &BlobInfo, waiting: &Path) -> io::Result<()> {
    let description = Description {
        sha256: info.digest.to_string(),
        logical_size: info.logical_size,
        encoding: info.encoding.as_str().to_owned(),
        stored_size: info.stored_size,
        blake3: info.stored_hash.to_string(),
    };
    let text = serde_json::to_vec(&description).map_err(io::Error::other)?;
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(FILE_MODE).open(waiting)?.write_all(&text)?;
    std::fs::rename(waiting, path(object))
}

/// What the object at `object` says of itself; `None` when there is no object.
pub(super) fn stat(object: &Path) -> Result<Option<BlobInfo>> {
    let size = match std::fs::metadata(object) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("can't read the content folder", error)),
    };
    let text = match std::fs::read(path(object)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(unreadable("it is missing")),
        Err(error) => return Err(Error::io("can't read the content folder", error)),
    };
    let info = parse(&text).ok_or_else(|| unreadable("it makes no sense"))?;
    if info.stored_size != size {
        return Err(unreadable("it tells another size"));
    }
    Ok(Some(info))
}

fn parse(text: &[u8]) -> Option<BlobInfo> {
    let description: Description = serde_json::from_slice(text).ok()?;
    Some(BlobInfo {
        digest: description.sha256.parse().ok()?,
        logical_size: description.logical_size,
        encoding: description.encoding.parse().ok()?,
        stored_size: description.stored_size,
        stored_hash: description.blake3.parse().ok()?,
    })
}

fn unreadable(why: &str) -> Error {
    Error::new(Kind::Corrupt, "the description of a stored object can't be used").with_source(why)
}
