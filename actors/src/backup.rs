//! Names as lines of JSON, and back.
//!
//! The first line is a header, the last one says how many names there are, so that a file that was cut off is known
//! as such. A line in between is a name with its version and what it holds. Pages are read one after the other: names
//! that a server changes meanwhile are there as they were or as they are.

use std::io::{self, BufRead, Read, Write};

use futures_util::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};

use crate::failpoint::{self, Point};
use crate::model::{Digest, EntryKey, Error, Kind, Namespace, Result, Stamp};
use crate::patience::patiently;
use crate::store::meta::{MetaCare, Restored};

/// The version of the format.
const FORMAT: u32 = 1;
/// What such a file says of itself.
const KIND: &str = "s3dedup names";
/// Names of one page.
const PAGE_ROWS: usize = 1000;
/// Names that are written at once: they share commits.
const CONCURRENCY: usize = 128;
/// Names without a content that are told; more are only counted.
const MISSING_MAX: usize = 1000;

#[derive(Serialize, Deserialize)]
struct Header {
    kind: String,
    format: u32,
    /// Seconds since 1970.
    created: i64,
    /// Names when the export began.
    entries: u64,
    contents: u64,
    logical_bytes: u64,
}

#[derive(Serialize, Deserialize)]
struct Line {
    namespace: u32,
    name: String,
    version: i64,
    sha256: String,
    size: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct End {
    end: u64,
}

/// Writes all names; returns how many there are.
pub async fn export(metadata: &dyn MetaCare, out: &mut dyn Write) -> Result<u64> {
    let names = export_to(metadata, async |lines| out.write_all(&lines).map_err(unwritable)).await?;
    out.flush().map_err(unwritable)?;
    Ok(names)
}

/// Hands all names to `write`, in pieces of whole lines; returns how many there are.
pub(crate) async fn export_to(
    metadata: &dyn MetaCare,
    mut write: impl AsyncFnMut(Vec<u8>) -> Result<()>,
) -> Result<u64> {
    let totals = metadata.totals().await?;
    let mut lines = Vec::new();
    let header = Header {
        kind: KIND.to_owned(),
        format: FORMAT,
        created: Stamp::now().seconds(),
        entries: totals.entries,
        contents: totals.contents,
        logical_bytes: totals.logical_bytes,
    };
    add_line(&mut lines, &header)?;
    let (mut after, mut names) = (None, 0);
    loop {
        let page = patiently(async || metadata.names(after.clone(), PAGE_ROWS).await).await?;
        let Some(last) = page.last() else { break };
        names += page.len() as u64;
        for named in &page {
            let line = Line {
                namespace: named.key.namespace().id(),
                name: named.key.name().to_owned(),
                version: named.stamp.seconds(),
                sha256: named.digest.to_string(),
                size: named.logical_size,
            };
            add_line(&mut lines, &line)?;
        }
        after = Some(last.key.clone());
        write(std::mem::take(&mut lines)).await?;
    }
    add_line(&mut lines, &End { end: names })?;
    write(lines).await?;
    Ok(names)
}

/// How many names an export holds by its own word; `None` for anything else.
pub(crate) fn names_in(export: &mut dyn BufRead) -> Option<u64> {
    let mut line = String::new();
    // A header is short; other files may have no line breaks at all.
    Read::take(export, 4096).read_line(&mut line).ok()?;
    let header: Header = serde_json::from_str(&line).ok()?;
    (header.kind == KIND).then_some(header.entries)
}

fn add_line(lines: &mut Vec<u8>, line: &impl Serialize) -> Result<()> {
    serde_json::to_writer(&mut *lines, line).map_err(|error| Error::new(Kind::Internal, "json").with_source(error))?;
    lines.push(b'\n');
    Ok(())
}

fn unwritable(error: io::Error) -> Error {
    Error::io("cannot write the names", error)
}

/// What became of the names of a file.
#[derive(Clone, Default, Debug)]
pub struct Imported {
    /// Names that hold what the file says.
    pub restored: u64,
    /// Names that have a newer version, or another content of the same version, which stays.
    pub newer: u64,
    /// Names whose content has no row.
    pub missing: u64,
    /// The first of them, with their contents.
    pub first_missing: Vec<(EntryKey, Digest)>,
}

/// Restores the names of a file whose contents have rows: the newest version wins, and of equal ones that which is here
/// already. A content may be missing or damaged, which reads, `verify` and uploads find out: its names come back with it. May
/// be repeated.
pub async fn import(metadata: &dyn MetaCare, input: &mut dyn BufRead) -> Result<Imported> {
    let mut lines = Lines { input, number: 0, text: String::new() };
    let header: Header = lines.next()?.ok_or_else(|| wrong(1, "there is no header"))?;
    if header.kind != KIND || header.format != FORMAT {
        return Err(wrong(1, "it is no export of this format"));
    }
    let (mut imported, mut seen) = (Imported::default(), 0);
    let mut is_complete = false;
    while !is_complete {
        let mut names = Vec::with_capacity(PAGE_ROWS);
        while names.len() < PAGE_ROWS {
            let value: serde_json::Value = lines.next()?.ok_or_else(|| wrong(lines.number, "it was cut off"))?;
            if let Some(end) = value["end"].as_u64() {
                if end != seen {
                    return Err(wrong(lines.number, "names are missing in it"));
                }
                is_complete = true;
                break;
            }
            names.push(name(value).map_err(|why| wrong(lines.number, &why))?);
            seen += 1;
        }
        let put = |name: Name| async move {
            let Name { key, stamp, digest } = &name;
            let outcome = patiently(async || metadata.restore(key.clone(), *stamp, *digest).await).await?;
            failpoint::hit(Point::ImportInPage).await?;
            Ok((name, outcome))
        };
        let outcomes = stream::iter(names).map(put).buffer_unordered(CONCURRENCY);
        for (name, outcome) in outcomes.try_collect::<Vec<_>>().await? {
            match outcome {
                Restored::Held => imported.restored += 1,
                Restored::Newer => imported.newer += 1,
                Restored::Unknown => {
                    imported.missing += 1;
                    if imported.first_missing.len() < MISSING_MAX {
                        imported.first_missing.push((name.key, name.digest));
                    }
                }
            }
        }
    }
    imported.first_missing.sort();
    Ok(imported)
}

/// A name with its version and what it holds.
struct Name {
    key: EntryKey,
    stamp: Stamp,
    digest: Digest,
}

fn name(value: serde_json::Value) -> Result<Name, String> {
    let line: Line = serde_json::from_value(value).map_err(|error| error.to_string())?;
    let key = EntryKey::parse(Namespace::from_id(line.namespace), line.name.as_bytes());
    Ok(Name {
        key: key.map_err(|error| error.to_string())?,
        stamp: Stamp::from_seconds(line.version),
        digest: line.sha256.parse().map_err(|_| "the digest cannot be read".to_owned())?,
    })
}

struct Lines<'a> {
    input: &'a mut dyn BufRead,
    number: u64,
    text: String,
}

impl Lines<'_> {
    fn next<T: serde::de::DeserializeOwned>(&mut self) -> Result<Option<T>> {
        self.text.clear();
        self.number += 1;
        let read = self.input.read_line(&mut self.text);
        if read.map_err(|error| Error::io("cannot read the names", error))? == 0 {
            return Ok(None);
        }
        let parsed = serde_json::from_str(&self.text);
        parsed.map(Some).map_err(|error| wrong(self.number, &error.to_string()))
    }
}

fn wrong(line: u64, why: &str) -> Error {
    Error::new(Kind::Invalid, format!("the file of names is not good, line {line}: {why}"))
}
