//! The report of a migration: a file as long as there are names that were not copied.

use std::io::{BufWriter, Write};
use std::path::Path;

use s3dedup_actors::migrator::MigrationSnapshot;
use s3dedup_actors::store::meta::{MigrationId, MigrationJournal, Trouble};
use serde_json::{Value, json};

use super::show::to_json;

/// Names of one page.
const PAGE_ROWS: usize = 1000;
/// Names that are shown to people.
const SHOWN_MAX: usize = 20;

/// Writes the report, replaced as a whole.
pub async fn write(
    file: &Path,
    now: &MigrationSnapshot,
    journal: &dyn MigrationJournal,
    id: Option<MigrationId>,
) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| format!("cannot write {}: {error}", file.display());
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let waiting = tempfile::NamedTempFile::new_in(folder).map_err(|error| failed(&error))?;
    let mut out = BufWriter::new(waiting);
    let head = format!("{:#}", to_json(now)).replace('\n', "\n  ");
    let head = write!(out, "{{\n  \"format\": 1,\n  \"migration\": {head},\n  \"not_copied\": [");
    head.map_err(|error| failed(&error))?;
    let (mut after, mut is_first) = (None, true);
    while let Some(id) = id {
        let page = journal.troubles(id, after, PAGE_ROWS).await;
        let page = page.map_err(|error| format!("cannot read what failed error=\"{error}\""))?;
        let Some(last) = page.last() else { break };
        after = Some(last.name.clone());
        for trouble in &page {
            let comma = if std::mem::take(&mut is_first) { "" } else { "," };
            write!(out, "{comma}\n    {}", one(trouble)).map_err(|error| failed(&error))?;
        }
    }
    write!(out, "\n  ]\n}}\n").map_err(|error| failed(&error))?;
    let waiting = out.into_inner().map_err(|error| failed(&error))?;
    waiting.as_file().sync_all().map_err(|error| failed(&error))?;
    waiting.persist(file).map_err(|error| failed(&error))?;
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
