//! `s3dedup export` and `s3dedup import`: names as lines of JSON.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use s3dedup_actors::backup::{self, Imported};
use serde_json::{Value, json};

use super::{ReportTo, attach_metadata, open_alone, run};
use crate::config::Config;
use crate::exit;

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
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let waiting = tempfile::NamedTempFile::new_in(folder).map_err(|error| failed(&error))?;
        let mut out = BufWriter::new(waiting);
        let names = backup::export(metadata.as_ref(), &mut out).await.map_err(|error| failed(&error))?;
        let waiting = out.into_inner().map_err(|error| failed(&error))?;
        waiting.as_file().sync_all().map_err(|error| failed(&error))?;
        waiting.persist(file).map_err(|error| failed(&error))?;
        let _ = writeln!(std::io::stdout(), "exported {names} names");
        Ok(exit::OK)
    })
}

/// Restores names; returns the exit code.
pub fn import(config: &Config, input: &Path, report: &ReportTo) -> u8 {
    run(config, async {
        let mut lines: Box<dyn BufRead> = match input.to_str() {
            Some("-") => Box::new(BufReader::new(std::io::stdin())),
            _ => {
                let file = File::open(input);
                let file = file.map_err(|error| format!("cannot read {}: {error}", input.display()))?;
                Box::new(BufReader::new(file))
            }
        };
        let (stores, _locks) = open_alone(config, false).await?;
        let imported = backup::import(stores.metadata.as_ref(), &mut lines).await;
        let imported = imported.map_err(|error| format!("cannot import all error=\"{error}\""))?;
        report.write(&to_json(&imported), &text(&imported))?;
        Ok(if imported.missing == 0 { exit::OK } else { exit::PARTIAL })
    })
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
    let mut out = format!("{restored} names restored, {newer} have a newer version, {missing} contents missing\n");
    for (key, digest) in first_missing.iter().take(SHOWN_MAX) {
        out.push_str(&format!("  missing name={:?} digest={digest}\n", key.name()));
    }
    out
}
