//! Listing the folder in the order of names, a page at a time.

use std::io;
use std::path::Path;

use super::super::{BlobPage, owner_of};
use super::describe;
use crate::model::BlobKey;

/// Up to `limit` files after the name `after`, ascending by name; descriptions are left out.
///
/// Only one folder's entries are in memory at a time: its size bounds the memory.
pub(super) fn page(root: &Path, after: Option<&str>, limit: usize) -> io::Result<BlobPage> {
    let mut page = BlobPage { blobs: Vec::new(), strangers: Vec::new(), next: None };
    let mut last = None;
    visit(root, "", after.unwrap_or(""), &mut |name, size| {
        if owner_of(name).is_some() {
            return true;
        }
        match name.parse::<BlobKey>() {
            Ok(key) => page.blobs.push((key, size)),
            Err(_) => page.strangers.push(name.to_owned()),
        }
        last = Some(name.to_owned());
        page.blobs.len() + page.strangers.len() < limit
    })?;
    if page.blobs.len() + page.strangers.len() == limit {
        page.next = last;
    }
    Ok(page)
}

/// Calls `found` for each file after `after`; `false` from it, and so from here, ends the walk.
fn visit(root: &Path, prefix: &str, after: &str, found: &mut dyn FnMut(&str, u64) -> bool) -> io::Result<bool> {
    let mut entries = Vec::new();
    for entry in root.join(prefix).read_dir()? {
        let entry = entry?;
        let mut name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        let is_folder = entry.file_type()?.is_dir();
        if is_folder {
            name.push('/');
        }
        // A folder is of interest when it holds, or comes after, the place to go on from.
        let is_ahead = name.as_str() > after || (is_folder && after.starts_with(&name));
        if is_ahead && !name.ends_with(describe::SUFFIX) {
            entries.push((name, is_folder, entry));
        }
    }
    entries.sort_by(|one, other| one.0.cmp(&other.0));
    for (name, is_folder, entry) in entries {
        let go_on = if is_folder {
            visit(root, &name, after, found)?
        } else {
            match entry.metadata() {
                Ok(metadata) => found(&name, metadata.len()),
                // Deleted since the folder was read.
                Err(error) if error.kind() == io::ErrorKind::NotFound => true,
                Err(error) => return Err(error),
            }
        };
        if !go_on {
            return Ok(false);
        }
    }
    Ok(true)
}
