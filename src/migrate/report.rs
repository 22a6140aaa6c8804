//! The report of a migration: a file as long as there are names that were not copied.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use s3dedup_actors::migrator::MigrationSnapshot;
use s3dedup_actors::store::meta::{MigrationId, MigrationJournal, Trouble};
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use super::show::to_json;
use crate::files;

/// Names of one page.
const PAGE_ROWS: usize = 1000;
/// Names that are shown to people.
const SHOWN_MAX: usize = 20;

/// A report that could not be put where it belongs.
pub struct Misplaced {
    /// Why.
    pub why: String,
    /// Where it is instead.
    pub kept: Option<PathBuf>,
}

/// Looks, before there is anything to report, whether a report can be put there.
pub fn expect_place(file: &Path) -> Result<(), String> {
    files::expect_place(file).map_err(|why| cannot_write(file, &why))
}

/// Writes the report, replaced as a whole; into the other folder when it cannot be put where it belongs.
pub async fn write(
    file: &Path,
    otherwise: &Path,
    now: &MigrationSnapshot,
    journal: &dyn MigrationJournal,
    id: Option<MigrationId>,
) -> Result<(), Misplaced> {
    let written = match fill(files::folder_of(file), now, journal, id).await {
        Ok(waiting) => files::put(waiting, file).map_err(|error| error.to_string()),
        Err(why) => Err(why),
    };
    let Err(why) = written else { return Ok(()) };
    let kept = match fill(otherwise, now, journal, id).await {
        Ok(waiting) => waiting.keep().map(|(_, path)| path).ok(),
        Err(_) => None,
    };
    Err(Misplaced { why: cannot_write(file, &why), kept })
}

fn cannot_write(file: &Path, why: &dyn std::fmt::Display) -> String {
    format!("cannot write the report {}: {why}", file.display())
}

/// Writes a report into a file of a folder, which goes away when it is not kept.
async fn fill(
    folder: &Path,
    now: &MigrationSnapshot,
    journal: &dyn MigrationJournal,
    id: Option<MigrationId>,
) -> Result<NamedTempFile, String> {
    let failed = |error: &dyn std::fmt::Display| error.to_string();
    let named = tempfile::Builder::new().prefix("s3dedup-report-").suffix(".json").tempfile_in(folder);
    let mut out = BufWriter::new(named.map_err(|error| failed(&error))?);
    let head = format!("{:#}", to_json(now)).replace('\n', "\n  ");
    let head = write!(out, "{{\n  \"format\": 1,\n  \"migration\": {head},\n  \"not_copied\": [");
    head.map_err(|error| failed(&error))?;
    let (mut is_first, mut outcome) = (true, Ok(()));
    each(journal, id, |line| {
        let comma = if std::mem::take(&mut is_first) { "" } else { "," };
        if outcome.is_ok() {
            outcome = write!(out, "{comma}\n    {line}");
        }
    })
    .await?;
    outcome.map_err(|error| failed(&error))?;
    write!(out, "\n  ]\n}}\n").map_err(|error| failed(&error))?;
    let waiting = out.into_inner().map_err(|error| failed(&error))?;
    waiting.as_file().sync_all().map_err(|error| failed(&error))?;
    Ok(waiting)
}

/// Hands out each name that was not copied, as JSON.
pub async fn each(
    journal: &dyn MigrationJournal,
    id: Option<MigrationId>,
    mut take: impl FnMut(&str),
) -> Result<(), String> {
    let mut after = None;
    while let Some(id) = id {
        let page = journal.troubles(id, after, PAGE_ROWS).await;
        let page = page.map_err(|error| format!("cannot read what failed error=\"{error}\""))?;
        let Some(last) = page.last() else { break };
        after = Some(last.name.clone());
        page.iter().for_each(|trouble| take(&one(trouble).to_string()));
    }
    Ok(())
}

/// The first names that were not copied.
pub async fn first(journal: &dyn MigrationJournal, id: Option<MigrationId>) -> Result<Vec<Trouble>, String> {
    let Some(id) = id else { return Ok(Vec::new()) };
    let first = journal.troubles(id, None, SHOWN_MAX).await;
    first.map_err(|error| format!("cannot read what failed error=\"{error}\""))
}

/// One name that was not copied, as reports and the API show it.
pub fn one(trouble: &Trouble) -> Value {
    json!({
        "name": trouble.name,
        "fate": trouble.fate,
        "reason": trouble.reason,
        "attempts": trouble.attempts,
        "time": trouble.noted_at.seconds(),
    })
}
