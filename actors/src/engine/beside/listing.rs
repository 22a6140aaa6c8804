//! Listing both sides as one.
//!
//! The old server lists in no order, and names move from there to here while a listing runs; so its names are sorted first, in
//! an unnamed file when they are many, and merged with those here. A name that either side has from the beginning to the
//! end is listed exactly once.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, VecDeque};
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Seek, Write};
use std::path::PathBuf;

use futures_util::StreamExt;
use futures_util::stream;

use super::Beside;
use crate::engine::{Engine, NameStream};
use crate::filetracker::{ListedName, NameLines, OldServer, Protocol};
use crate::model::{EntryKey, Error, Kind, Namespace, Result, Stamp};
use crate::store::blocking::BlockingPool;

/// Names of the old server that are sorted in memory, in bytes.
const SORTED_BYTES_MAX: usize = 8 << 20;
/// Names read back at once.
const BATCH: usize = 1000;

impl Beside {
    /// The names of both sides; `here` are those of this store.
    pub(crate) async fn list(
        &self,
        engine: &Engine,
        namespace: Namespace,
        directory: String,
        not_after: Stamp,
        here: Option<NameStream>,
    ) -> Result<Option<NameStream>> {
        let Some(server) = self.0.settings.server.clone() else { return Ok(here) };
        // Version 1 has no listing, and its clients do not ask for one.
        if server.protocol().await? == Protocol::V1 {
            return Ok(here);
        }
        let Some(lines) = server.list(&directory, not_after).await? else { return Ok(here) };
        let pool = engine.inner.compute.clone();
        let there = sorted(lines, &directory, pool, engine.inner.spool_limits.temp_dir.clone()).await?;
        let merge = Merge {
            beside: self.clone(),
            engine: engine.clone(),
            server,
            namespace,
            directory,
            not_after,
            here: Side::new(here.unwrap_or_else(|| stream::empty().boxed())),
            there: Side::new(there),
        };
        Ok(Some(
            stream::try_unfold(merge, |mut merge| async move {
                let page = merge.page().await?;
                Ok(page.map(|page| (page, merge)))
            })
            .boxed(),
        ))
    }
}

/// Names of one side, ascending.
struct Side {
    pages: NameStream,
    next: VecDeque<String>,
    is_over: bool,
}

impl Side {
    fn new(pages: NameStream) -> Self {
        Self { pages, next: VecDeque::new(), is_over: false }
    }

    /// Makes sure that there is a next name, unless it is over.
    async fn fill(&mut self) -> Result<()> {
        while self.next.is_empty() && !self.is_over {
            match self.pages.next().await {
                Some(page) => self.next.extend(page?),
                None => self.is_over = true,
            }
        }
        Ok(())
    }

    fn is_open(&self) -> bool {
        !self.next.is_empty() || self.is_over
    }
}

struct Merge {
    beside: Beside,
    engine: Engine,
    server: OldServer,
    namespace: Namespace,
    directory: String,
    not_after: Stamp,
    here: Side,
    there: Side,
}

impl Merge {
    async fn page(&mut self) -> Result<Option<Vec<String>>> {
        self.here.fill().await?;
        self.there.fill().await?;
        if self.here.is_over && self.there.is_over && self.here.next.is_empty() && self.there.next.is_empty() {
            return Ok(None);
        }
        let (mut page, mut only_there) = (Vec::new(), Vec::new());
        while self.here.is_open() && self.there.is_open() {
            let order = match (self.here.next.front(), self.there.next.front()) {
                (Some(here), Some(there)) => here.cmp(there),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => break,
            };
            if order != Ordering::Greater {
                page.extend(self.here.next.pop_front());
            }
            if order == Ordering::Equal {
                self.there.next.pop_front();
            }
            if order == Ordering::Greater {
                only_there.extend(self.there.next.pop_front());
            }
        }
        page.extend(self.still_there(only_there).await?);
        page.sort_unstable();
        Ok(Some(page))
    }

    /// Of names that only the old server listed, those that are to be seen.
    async fn still_there(&mut self, names: Vec<String>) -> Result<Vec<String>> {
        if names.is_empty() {
            return Ok(names);
        }
        let prefix = if self.directory.is_empty() { String::new() } else { format!("{}/", self.directory) };
        let full: Vec<String> = names.iter().map(|name| format!("{prefix}{name}")).collect();
        let journal = &self.beside.0.settings.journal;
        let known = self.beside.journal(journal.are_here(self.namespace, full.clone())).await?;
        let mut seen = Vec::with_capacity(names.len());
        for ((name, full), known) in names.into_iter().zip(full).zip(known) {
            let key = || EntryKey::parse(self.namespace, full.as_bytes());
            let is_seen = match (known.is_here, known.deleted) {
                // It came here meanwhile, or it is newer here than what is asked for.
                (true, _) => match key() {
                    Ok(key) => self.engine.stat(&key).await?.is_none_or(|entry| entry.stamp <= self.not_after),
                    Err(_) => false,
                },
                // What it was told of a name that was deleted since.
                (false, _) if known.telling.is_some() => false,
                (false, None) => true,
                // It was deleted here, but may have been stored there since.
                (false, Some(deleted)) => match key() {
                    // When it does not answer, the deletion is all that can be known; an answer that is cut off would not be
                    // right either.
                    Ok(key) => matches!(self.server.head(&key).await, Ok(Some(there)) if there.stamp > deleted),
                    Err(_) => false,
                },
            };
            if is_seen {
                seen.push(name);
            }
        }
        Ok(seen)
    }
}

/// All names of a listing, ascending, each once, relative to the directory.
async fn sorted(mut lines: NameLines, directory: &str, pool: BlockingPool, temp_dir: PathBuf) -> Result<NameStream> {
    let skip = if directory.is_empty() { 0 } else { directory.len() + 1 };
    let (mut names, mut bytes, mut runs, mut odd) = (Vec::new(), 0, Vec::new(), 0_u64);
    while let Some(found) = lines.next().await {
        for line in found? {
            match line {
                ListedName::Name(key) => {
                    let name = key.name().get(skip..).unwrap_or_default().to_owned();
                    bytes += name.len() + size_of::<String>();
                    names.push(name);
                }
                ListedName::Odd { line, why } => {
                    log::debug!("a name of the old server is left out name={line:?} reason={why:?}");
                    odd += 1;
                }
            }
        }
        if bytes > SORTED_BYTES_MAX {
            let (unsorted, temp_dir) = (std::mem::take(&mut names), temp_dir.clone());
            bytes = 0;
            runs.push(pool.run(move |_| write_run(unsorted, temp_dir)).await?.map_err(unkept)?);
        }
    }
    if odd > 0 {
        log::warn!("names of the old server cannot be names here and are not listed number={odd}");
    }
    let merged = pool.run(move |_| Merged::new(names, runs)).await?.map_err(unkept)?;
    let batches = stream::try_unfold((merged, pool), |(mut merged, pool)| async move {
        let (batch, merged) = pool.run(move |_| (merged.next_batch(), merged)).await?;
        let batch = batch.map_err(unkept)?;
        Ok::<_, Error>((!batch.is_empty()).then_some((batch, (merged, pool))))
    });
    Ok(batches.boxed())
}

fn unkept(error: io::Error) -> Error {
    let context = "can't keep the names of the old server";
    match error.kind() {
        io::ErrorKind::InvalidData => Error::new(Kind::Internal, context).with_source(error),
        _ => Error::io(context, error),
    }
}

/// Names have no line ends.
fn write_run(mut names: Vec<String>, temp_dir: PathBuf) -> io::Result<File> {
    names.sort_unstable();
    let mut run = BufWriter::new(tempfile::tempfile_in(temp_dir)?);
    for name in &names {
        writeln!(run, "{name}")?;
    }
    let mut file = run.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.rewind()?;
    Ok(file)
}

/// Sorted runs, read as one.
struct Merged {
    runs: Vec<io::Lines<BufReader<File>>>,
    last: std::vec::IntoIter<String>,
    /// The next name of each run.
    heap: BinaryHeap<std::cmp::Reverse<(String, usize)>>,
    given: Option<String>,
}

impl Merged {
    fn new(mut names: Vec<String>, runs: Vec<File>) -> io::Result<Self> {
        names.sort_unstable();
        let runs: Vec<_> = runs.into_iter().map(|run| BufReader::new(run).lines()).collect();
        let mut merged = Self { runs, last: names.into_iter(), heap: BinaryHeap::new(), given: None };
        for run in 0..=merged.runs.len() {
            merged.take_from(run)?;
        }
        Ok(merged)
    }

    fn take_from(&mut self, run: usize) -> io::Result<()> {
        let next = match self.runs.get_mut(run) {
            Some(lines) => lines.next().transpose()?,
            None => self.last.next(),
        };
        self.heap.extend(next.map(|name| std::cmp::Reverse((name, run))));
        Ok(())
    }

    fn next_batch(&mut self) -> io::Result<Vec<String>> {
        let mut batch = Vec::new();
        while batch.len() < BATCH {
            let Some(std::cmp::Reverse((name, run))) = self.heap.pop() else { break };
            self.take_from(run)?;
            if self.given.as_ref() != Some(&name) {
                self.given = Some(name.clone());
                batch.push(name);
            }
        }
        Ok(batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_merged_in_order_and_each_name_is_given_once() {
        let dir = tempfile::tempdir().unwrap();
        let names =
            |from: usize| (from..6000).step_by(3).map(|number| format!("{number:05}")).rev().collect::<Vec<_>>();
        let runs = [names(0), names(1), names(1)].map(|names| write_run(names, dir.path().to_owned()).unwrap());
        let mut merged = Merged::new(names(2), runs.into_iter().collect()).unwrap();
        let mut given = Vec::new();
        loop {
            let batch = merged.next_batch().unwrap();
            if batch.is_empty() {
                break;
            }
            given.extend(batch);
        }
        assert_eq!(given, (0..6000).map(|number| format!("{number:05}")).collect::<Vec<_>>());
        assert_eq!(dir.path().read_dir().unwrap().count(), 0);
    }
}
