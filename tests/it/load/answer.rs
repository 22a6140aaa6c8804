//! What an answer to a read says, and whether it may say so.

use std::collections::{BTreeMap, BTreeSet};

use super::Load;
use super::paths::{PATHS, PROBES, name};
use super::stamp::{self, Stamp};
use crate::support::{Response, gunzip};

impl Load {
    /// The version that an answer to GET or HEAD shows, `None` for 404. Headers and bytes must be those of the
    /// content that was put as this version.
    pub fn shown_by(&self, path: usize, answer: &Response, is_head: bool) -> Result<Option<Stamp>, String> {
        match answer.status {
            200 => {}
            404 => return Ok(None),
            _ => return Err("a read finds something, nothing, or is refused".into()),
        }
        let shown = answer.header("last-modified").and_then(stamp::read).ok_or("no version of ours")?;
        let number = self.history.content_of(path, shown).ok_or(format!("nobody put version {shown} here"))?;
        let content = self.contents.get(number);
        if answer.header("logical-size") != Some(&content.plain.len().to_string()) {
            return Err(format!("version {shown} has another Logical-Size"));
        }
        if answer.header("content-encoding") != Some("gzip") || answer.content_length().is_none() {
            return Err(format!("version {shown} is not told as gzip of a known size"));
        }
        if !is_head && answer.body != content.gzip && gunzip(&answer.body) != content.plain {
            return Err(format!("version {shown} has other bytes than content {number}"));
        }
        Ok(Some(shown))
    }
}

/// The paths in a listing of everything.
pub fn listed_paths(answer: &Response) -> Result<BTreeSet<usize>, String> {
    if answer.status != 200 || !answer.complete {
        return Err("a listing is whole or refused".into());
    }
    let known: BTreeMap<String, usize> = (0..PATHS).map(|path| (name(path), path)).collect();
    let mut found = BTreeSet::new();
    for line in answer.lines().into_iter().filter(|line| !line.starts_with(PROBES)) {
        let path = known.get(line).ok_or(format!("{line:?} is listed and was never put"))?;
        if !found.insert(*path) {
            return Err(format!("{line:?} is listed twice"));
        }
    }
    Ok(found)
}
