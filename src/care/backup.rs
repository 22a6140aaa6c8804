//! `s3dedup export` and `s3dedup import`: names as lines of JSON.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use s3dedup_actors::backup::{self, Imported};
use serde_json::{Value, json};

use super::progress::{Shown, duration};
use super::{ReportTo, attach_metadata, cannot_write, open_alone, run};
use crate::config::Config;
use crate::{exit, files};

/// Missing names that are shown to people.
const SHOWN_MAX: usize = 20;

/// Writes all names to a file, replaced as a whole, or to standard output; returns the exit code.
pub fn export(config: &Config, output: Option<&Path>) -> u8 {
    run(config, async {
        let metadata = attach_metadata(config)?;
        let failed = |error: &dyn std::fmt::Display| format!("cannot export error=\"{error}\"");
        let Some(file) = output else {
            let mut out = BufWriter::new(std::io::stdout());
            backup::export(metadata.as_ref(), &mut out).await.map_err(|error| failed(&error))?;
            return Ok(exit::OK);
        };
        let waiting = files::begin(file).map_err(|error| cannot_write(file, &error))?;
        let counts = Rc::new(Counts::default());
        let mut out = Counted { inner: BufWriter::new(waiting), counts: Rc::clone(&counts) };
        let shown = Shown::lines(move || format!("phase=export names={}", counts.lines.get()));
        let names = backup::export(metadata.as_ref(), &mut out).await;
        drop(shown);
        let names = names.map_err(|error| failed(&error))?;
        let waiting = out.inner.into_inner().map_err(|error| failed(&error))?;
        files::put(waiting, file).map_err(|error| cannot_write(file, &error))?;
        let _ = writeln!(std::io::stdout(), "exported {names} names");
        Ok(exit::OK)
    })
}

/// Restores names; returns the exit code.
pub fn import(config: &Config, input: &Path, report: &ReportTo) -> u8 {
    run(config, async {
        report.expect_place()?;
        let (lines, size): (Box<dyn BufRead>, u64) = match input.to_str() {
            Some("-") => (Box::new(BufReader::new(std::io::stdin())), 0),
            _ => {
                let file = File::open(input);
                let file = file.map_err(|error| format!("cannot read {}: {error}", input.display()))?;
                let size = file.metadata().map_or(0, |metadata| metadata.len());
                (Box::new(BufReader::new(file)), size)
            }
        };
        let (stores, _locks) = open_alone(config, false).await?;
        let (counts, begun) = (Rc::new(Counts::default()), Instant::now());
        let mut lines = Counted { inner: lines, counts: Rc::clone(&counts) };
        let shown = Shown::lines(move || line(&counts, size, begun.elapsed()));
        let imported = backup::import(stores.metadata.as_ref(), &mut lines).await;
        drop(shown);
        let imported = imported.map_err(|error| format!("cannot import all error=\"{error}\""))?;
        report.write(&to_json(&imported), &text(&imported))?;
        Ok(if imported.missing == 0 { exit::OK } else { exit::PARTIAL })
    })
}

/// How much has passed.
#[derive(Default)]
struct Counts {
    lines: Cell<u64>,
    bytes: Cell<u64>,
}

impl Counts {
    fn add(&self, bytes: &[u8]) {
        let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
        self.lines.set(self.lines.get() + lines as u64);
        self.bytes.set(self.bytes.get() + bytes.len() as u64);
    }
}

/// Counts what passes.
struct Counted<T> {
    inner: T,
    counts: Rc<Counts>,
}

impl<T: Write> Write for Counted<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.counts.add(bytes.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<T: BufRead> Read for Counted<T> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(into)?;
        self.counts.add(into.get(..read).unwrap_or_default());
        Ok(read)
    }
}

impl<T: BufRead> BufRead for Counted<T> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        if let Ok(bytes) = self.inner.fill_buf() {
            self.counts.add(bytes.get(..count).unwrap_or_default());
        }
        self.inner.consume(count);
    }
}

/// How far an import is; `size` is that of the file, 0 when nobody knows.
fn line(counts: &Counts, size: u64, time: Duration) -> String {
    let bytes = counts.bytes.get();
    // The first line is none.
    let names = counts.lines.get().saturating_sub(1);
    let rate = names as f64 / time.as_secs_f64().max(0.001);
    let told = format!("phase=import names={names} rate={rate:.0}/s");
    if size == 0 || bytes == 0 {
        return told;
    }
    let percent = (bytes as f64 / size as f64 * 100.0).min(100.0);
    let left = time.mul_f64(size.saturating_sub(bytes) as f64 / bytes as f64);
    format!("{told} {percent:.1}% eta={}", duration(left))
}

fn to_json(imported: &Imported) -> Value {
    let missing = imported.first_missing.iter();
    let missing = missing.map(|(key, digest)| json!({ "name": key.name(), "digest": digest.to_string() }));
    json!({
        "format": 1,
        "status": if imported.missing == 0 { "whole" } else { "partial" },
        "restored": imported.restored,
        "newer": imported.newer,
        "missing": imported.missing,
        "first_missing": missing.collect::<Vec<_>>(),
    })
}

fn text(imported: &Imported) -> String {
    let Imported { restored, newer, missing, first_missing } = imported;
    let mut out = format!(
        "{restored} names hold what was exported, {newer} have a newer version, {missing} are left out: their contents are missing\n"
    );
    for (key, digest) in first_missing.iter().take(SHOWN_MAX) {
        out.push_str(&format!("  missing name={:?} digest={digest}\n", key.name()));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_import_tells_how_far_it_is() {
        let counts = Rc::new(Counts::default());
        let mut lines = Counted { inner: b"one\ntwo\nthree\nfour\n".as_slice(), counts: Rc::clone(&counts) };
        let ten = Duration::from_secs(10);
        assert_eq!(line(&counts, 19, ten), "phase=import names=0 rate=0/s");
        let mut read = String::new();
        for _ in 0..3 {
            lines.read_line(&mut read).unwrap();
        }
        assert_eq!(line(&counts, 28, ten), "phase=import names=2 rate=0/s 50.0% eta=10s");
        assert_eq!(line(&counts, 0, ten), "phase=import names=2 rate=0/s");
        let mut out = Counted { inner: Vec::new(), counts: Rc::default() };
        out.write_all(b"a\nb\n").unwrap();
        assert_eq!((out.counts.lines.get(), out.counts.bytes.get()), (2, 4));
    }
}
