//! The marks of the databases that own the folder.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use super::super::{OWNERS_PREFIX, owner_note, owner_of};

/// The owners; none when there is no mark.
pub(super) fn read(root: &Path) -> io::Result<Vec<String>> {
    // Asked for by itself: a root that is gone must not look like one without owners.
    root.read_dir()?;
    let entries = match root.join(OWNERS_PREFIX).read_dir() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut owners = Vec::new();
    for entry in entries {
        let name = format!("{OWNERS_PREFIX}{}", entry?.file_name().to_string_lossy());
        owners.extend(owner_of(&name).map(str::to_owned));
    }
    owners.sort();
    Ok(owners)
}

/// Makes a mark, durably.
pub(super) fn add(root: &Path, owner: &str) -> io::Result<()> {
    let folder = root.join(OWNERS_PREFIX);
    match fs::create_dir(&folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let mut mark = File::create(folder.join(owner))?;
    mark.write_all(owner_note(owner).as_bytes())?;
    mark.sync_all()?;
    File::open(&folder)?.sync_all()?;
    File::open(root)?.sync_all()
}

/// Removes a mark, durably.
pub(super) fn remove(root: &Path, owner: &str) -> io::Result<()> {
    let folder = root.join(OWNERS_PREFIX);
    match fs::remove_file(folder.join(owner)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        removed => removed?,
    }
    File::open(&folder)?.sync_all()
}
