//! Names that somebody wrote down, of files that another source has.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream;

use super::Source;
use crate::filetracker::{ListedName, NameLines, OldDownload, OldFile};
use crate::model::{EntryKey, Error, Kind, NAME_BYTES_MAX, Namespace, Result};
use crate::store::blocking::BlockingPool;

/// Lines that are read at once.
const LINES_MAX: usize = 1000;
/// A name, its version and a slash.
const LINE_BYTES_MAX: u64 = NAME_BYTES_MAX as u64 + 64;

/// A file with a name on each line, as clients write them: a slash in front may be left out, and a version at the end
/// (`name@1700000000`) is cut off. Empty lines are skipped.
pub struct NamesInFile {
    file: PathBuf,
    files: Arc<dyn Source>,
    pool: BlockingPool,
}

impl NamesInFile {
    /// The names of `file`, of files that `files` has.
    pub fn new(file: &Path, files: Arc<dyn Source>) -> Result<Self> {
        let failed = |error| Error::new(Kind::Invalid, format!("cannot read {}", file.display())).with_source(error);
        let whole = file.canonicalize().map_err(|error| failed(error.to_string()))?;
        File::open(&whole).map_err(|error| failed(error.to_string()))?;
        let pool = BlockingPool::start("names", 1, 1).map_err(|error| failed(error.to_string()))?;
        Ok(Self { file: whole, files, pool })
    }
}

#[async_trait]
impl Source for NamesInFile {
    fn kind(&self) -> &'static str {
        self.files.kind()
    }

    fn place(&self) -> String {
        format!("{} (names in {})", self.files.place(), self.file.display())
    }

    async fn probe(&self) -> Result<()> {
        self.files.probe().await
    }

    async fn list(&self) -> Result<NameLines> {
        let failed = |error| Error::new(Kind::Invalid, "cannot read the list of names").with_source(error);
        let (file, pool) = (self.file.clone(), self.pool.clone());
        let opened = pool.run(move |_| File::open(file)).await?.map_err(failed)?;
        let lines = stream::try_unfold((BufReader::new(opened), pool), move |(mut reader, pool)| async move {
            let batch = pool.run(move |_| read(&mut reader).map(|found| (found, reader))).await?;
            let (found, reader) = batch.map_err(failed)?;
            Ok(found.map(|found| (found, (reader, pool))))
        });
        Ok(lines.boxed())
    }

    async fn head(&self, name: &EntryKey) -> Result<Option<OldFile>> {
        self.files.head(name).await
    }

    async fn open(&self, name: &EntryKey) -> Result<Option<OldDownload>> {
        self.files.open(name).await
    }
}

/// The next names; `None` at the end.
fn read(reader: &mut impl BufRead) -> std::io::Result<Option<Vec<ListedName>>> {
    let mut found = Vec::new();
    for _ in 0..LINES_MAX {
        let mut line = Vec::new();
        if Read::take(&mut *reader, LINE_BYTES_MAX).read_until(b'\n', &mut line)? == 0 {
            return Ok(if found.is_empty() { None } else { Some(found) });
        }
        let is_whole = line.ends_with(b"\n") || (line.len() as u64) < LINE_BYTES_MAX;
        if !is_whole {
            skip_line(reader)?;
        }
        found.extend(name(line.trim_ascii_end(), is_whole));
    }
    Ok(Some(found))
}

fn skip_line(reader: &mut impl BufRead) -> std::io::Result<()> {
    loop {
        let buffer = reader.fill_buf()?;
        if buffer.is_empty() {
            return Ok(());
        }
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let used = end.map_or(buffer.len(), |end| end + 1);
        reader.consume(used);
        if end.is_some() {
            return Ok(());
        }
    }
}

fn name(line: &[u8], is_whole: bool) -> Option<ListedName> {
    let odd = |why: &str| {
        let line = line.escape_ascii().to_string();
        Some(ListedName::Odd { line, why: why.to_owned() })
    };
    if line.is_empty() {
        return None;
    }
    if !is_whole {
        return odd("path is too long");
    }
    match EntryKey::parse(Namespace::FILETRACKER, without_version(line)) {
        Ok(name) => Some(ListedName::Name(name)),
        Err(why) => odd(&why.to_string()),
    }
}

/// The name without `@` and a number: no client can ask for a file whose name ends like that.
fn without_version(line: &[u8]) -> &[u8] {
    let Some(at) = line.iter().rposition(|byte| *byte == b'@') else { return line };
    let version = &line[at + 1..];
    let digits = version.strip_prefix(b"-").unwrap_or(version);
    if !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) { &line[..at] } else { line }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_names_with_or_without_slash_and_version() {
        let long = "x".repeat(20_000);
        let text = format!("/a/b@17\nc d@x\n\n\r\n/e@-5\r\nżó/ł\n{long}\na/../b\n@\nlast");
        let mut reader = BufReader::with_capacity(100, text.as_bytes());
        let found = read(&mut reader).unwrap().unwrap();
        let shown: Vec<_> = found
            .iter()
            .map(|listed| match listed {
                ListedName::Name(name) => name.name().to_owned(),
                ListedName::Odd { why, .. } => format!("! {why}"),
            })
            .collect();
        let dots = "! path has a '.' or '..' component";
        assert_eq!(shown, ["a/b", "c d@x", "e", "żó/ł", "! path is too long", dots, "@", "last"]);
        assert!(read(&mut reader).unwrap().is_none());
    }
}
