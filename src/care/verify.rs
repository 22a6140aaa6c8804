//! `s3dedup verify`: is the store whole?

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use s3dedup_actors::model::{Error, Kind};
use s3dedup_actors::verify::{self, Damage, Progress, Tools, VerifyReport, VerifySettings, VerifyState};
use serde_json::Value;

use super::progress::Shown;
use super::{CONCURRENCY, Empty, ReportTo, attach, cannot_write, check_match_but, examiner, identity, replace, run};
use crate::config::Config;
use crate::{exit, files};

/// Damages that are shown to people.
const SHOWN_MAX: usize = 20;

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub struct VerifyOptions {
    /// Reads every object.
    pub deep: bool,
    /// At most so many megabytes of objects a second.
    pub mbps: Option<f64>,
    /// The file that keeps how far the run is.
    pub resume: Option<PathBuf>,
    /// Where the report goes.
    pub report: ReportTo,
}

/// Looks the store over; returns the exit code.
pub fn verify(config: &Config, options: &VerifyOptions) -> u8 {
    run(config, async {
        options.report.expect_place()?;
        if let Some(file) = &options.resume {
            files::expect_place(file).map_err(|why| cannot_write(file, &why))?;
        }
        let stores = attach(config).await?;
        check_match_but(&stores, Empty::Damaged).await?;
        let identity = identity(config);
        let state = match &options.resume {
            Some(file) => read_state(file, &identity, options.deep)?,
            None => VerifyState::default(),
        };
        let examiner = examiner(config, options.mbps)?;
        let progress = Rc::new(Progress::default());
        let mut save = |state: &VerifyState| match &options.resume {
            Some(file) => {
                let text = format!("{:#}\n", state.to_json(&identity, options.deep));
                replace(file, text.as_bytes()).map_err(|why| Error::new(Kind::NoSpace, why))
            }
            None => Ok(()),
        };
        let tools = Tools { examiner: &examiner, progress: &progress, save: &mut save };
        let settings = VerifySettings { deep: options.deep, concurrency: CONCURRENCY };
        let shown = Shown::start(Rc::clone(&progress), options.deep);
        let report = verify::verify(&stores, &settings, state, tools).await;
        drop(shown);
        let report = report.map_err(|error| format!("cannot verify error=\"{error}\""))?;
        options.report.write(&report.to_json(), &text(&report))?;
        if let Some(file) = &options.resume {
            // It is done: the next run is a new one.
            let _ = std::fs::remove_file(file);
        }
        Ok(if report.is_whole() { exit::OK } else { exit::DAMAGED })
    })
}

fn read_state(file: &Path, identity: &str, deep: bool) -> Result<VerifyState, String> {
    let failed = |error: &dyn std::fmt::Display| format!("cannot go on from {}: {error}", file.display());
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(VerifyState::default()),
        Err(error) => return Err(failed(&error)),
    };
    let value: Value = serde_json::from_str(&text).map_err(|error| failed(&error))?;
    VerifyState::from_json(&value, identity, deep).map_err(|error| failed(&error))
}

/// The report for people.
fn text(report: &VerifyReport) -> String {
    let VerifyReport { contents, stored_bytes, names, seconds, orphans, .. } = report;
    let mut out = String::new();
    let status = if report.is_whole() { "whole" } else { "DAMAGED" };
    let depth = if report.deep { "read" } else { "looked for" };
    let _ =
        writeln!(out, "{status}: {names} names, {contents} contents {depth} ({stored_bytes} bytes) in {seconds:.1} s");
    out.push_str(&list(&report.damages, report.damages_left_off));
    if !report.cleared.is_empty() {
        let count = report.cleared.len() as u64 + report.cleared_left_off;
        let _ = writeln!(out, "note: {count} objects that a read found damaged are whole; s3dedup repair notes that");
    }
    if orphans.objects > 0 {
        let (objects, bytes) = (orphans.objects, orphans.bytes);
        let _ = writeln!(out, "note: {objects} objects ({bytes} bytes) that nothing knows of; no damage");
    }
    if orphans.strangers > 0 {
        let _ = writeln!(out, "note: {} objects with names of others", orphans.strangers);
    }
    out
}

/// Damages, a line each.
pub(super) fn list(damages: &[Damage], left_off: u64) -> String {
    let mut out = String::new();
    for damage in damages.iter().take(SHOWN_MAX) {
        let _ = writeln!(out, "  {}", line(damage));
    }
    let more = damages.len().saturating_sub(SHOWN_MAX) as u64 + left_off;
    if more > 0 {
        let _ = writeln!(out, "  and {more} more: see --report or --json");
    }
    out
}

fn line(damage: &Damage) -> String {
    use s3dedup_actors::verify::DamageKind::Totals;
    if let Totals { total, stored, counted } = damage.kind {
        return format!("{} {total} stored={stored} counted={counted}", damage.word());
    }
    if let Some(row) = &damage.row {
        return format!("{} {}: {}", damage.word(), row.place, row.why);
    }
    let names: Vec<String> = damage.names.iter().map(|name| format!("{:?}", name.name())).collect();
    let more = if damage.more_names { ", .." } else { "" };
    let object = damage.object.map(|key| format!(" object={key}")).unwrap_or_default();
    format!("{} digest={}{object} names=[{}{more}]", damage.word(), damage.digest, names.join(", "))
}
