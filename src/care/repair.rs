//! `s3dedup repair`: plans, then does exactly that.

use std::fmt::Write;
use std::rc::Rc;

use s3dedup_actors::SpoolLimits;
use s3dedup_actors::model::Error;
use s3dedup_actors::repair::{self, Action, Applied, Fallback, Filetracker, OtherStore, Plan, Rebuilt, Repairer};
use s3dedup_actors::store::meta::MetaCare;
use s3dedup_actors::store::tie;
use s3dedup_actors::verify::{Damage, Progress, Stores};
use serde_json::{Value, json};

use super::progress::Shown;
use super::verify::list;
use super::{CONCURRENCY, Empty, ReportTo, check_match_but, examiner, open_alone, run, said, turn};
use crate::boot::{engine, folders};
use crate::config::{Config, StorageType};
use crate::exit;

/// Contents that are released in one transaction.
const RELEASE_ROWS: usize = 1000;
/// Actions that are shown to people.
const SHOWN_MAX: usize = 20;

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub struct RepairOptions {
    /// Shows what would be done, and does nothing.
    pub dry_run: bool,
    /// Reads every object.
    pub deep: bool,
    /// Makes the contents of a lost database anew.
    pub rebuild: bool,
    /// Goes on when the content store is empty though the database knows contents.
    pub accepts_empty: bool,
    /// Gives adopted contents that no name came for to the cleaner.
    pub release_adopted: bool,
    /// At most so many megabytes of objects a second.
    pub mbps: Option<f64>,
    /// Where the report goes.
    pub report: ReportTo,
}

/// Repairs; returns the exit code.
pub fn repair(config: &Config, options: &RepairOptions) -> u8 {
    run(config, async {
        options.report.expect_place()?;
        if options.rebuild {
            folders::create(config).map_err(|error| error.to_string())?;
        }
        let (stores, _locks) = open_alone(config, options.rebuild).await?;
        if !options.rebuild {
            let empty = if options.accepts_empty || options.dry_run { Empty::Damaged } else { Empty::Wrong };
            check_match_but(&stores, empty).await?;
        }
        let work = work(config, options, &stores);
        // Looking does no harm, whoever else is at it.
        if options.dry_run { work.await } else { turn::alone(config, &stores.metadata, options.rebuild, work).await }
    })
}

async fn work(config: &Config, options: &RepairOptions, stores: &Stores) -> Result<u8, String> {
    if options.release_adopted {
        let released = release(stores.metadata.as_ref()).await;
        let released = released.map_err(|error| format!("cannot release all error=\"{error}\""))?;
        let text = format!("{released} adopted contents without a name are given to the cleaner");
        options.report.write(&json!({ "format": 1, "released": released }), &text)?;
        return Ok(exit::OK);
    }
    if options.accepts_empty && !options.dry_run {
        let marked = tie::mark_emptied(stores.metadata.as_ref(), stores.contents.as_ref()).await;
        marked.map_err(|error| format!("the content store cannot be marked error=\"{error}\""))?;
        let noted = repair::note_emptied(stores, CONCURRENCY).await;
        noted.map_err(|error| format!("lost objects cannot be noted error=\"{error}\""))?;
    }
    let examiner = examiner(config, options.mbps)?;
    let progress = Rc::new(Progress::default());
    let fallbacks = fallbacks(config).await?;
    let fallbacks: Vec<&dyn Fallback> = fallbacks.iter().map(AsRef::as_ref).collect();
    let with = Repairer {
        stores,
        examiner: &examiner,
        progress: &progress,
        fallbacks: &fallbacks,
        instance: "repair".to_owned(),
        layout: engine::layout(config),
        concurrency: CONCURRENCY,
        adopted_max: repair::ADOPTED_MAX,
    };
    let shown = Shown::start(Rc::clone(&progress), options.deep);
    if options.rebuild {
        let rebuilt = repair::rebuild(&with, options.deep).await;
        drop(shown);
        let rebuilt = rebuilt.map_err(|error| format!("cannot rebuild error=\"{error}\""))?;
        options.report.write(&rebuilt.to_json(), &rebuilt_text(&rebuilt))?;
        return Ok(if rebuilt.refused == 0 { exit::OK } else { exit::DAMAGED });
    }
    let plan = repair::plan(&with, options.deep).await;
    let plan = plan.map_err(|error| format!("cannot look at the store error=\"{error}\""))?;
    let applied = match options.dry_run {
        true => None,
        false => Some(repair::apply(&with, &plan.actions).await),
    };
    drop(shown);
    let applied = applied.transpose().map_err(|error| format!("cannot repair all error=\"{error}\""))?;
    let outcome = Outcome { plan: &plan, applied: applied.as_deref() };
    // It may have 100,000 actions.
    let report = if options.report.is_for_programs() { outcome.to_json() } else { Value::Null };
    options.report.write(&report, &outcome.text())?;
    Ok(if outcome.is_whole() { exit::OK } else { exit::DAMAGED })
}

/// Ends the hold of all adopted contents that no name came for.
async fn release(metadata: &dyn MetaCare) -> Result<u64, Error> {
    let mut released = 0;
    loop {
        match metadata.release_held(RELEASE_ROWS).await? {
            0 => return Ok(released),
            count => released += count,
        }
    }
}

/// Where lost contents may be had from: a bucket first, as it is asked by digest.
async fn fallbacks(config: &Config) -> Result<Vec<Box<dyn Fallback>>, String> {
    let threads = config.actors.cpu_threads();
    let limits = || SpoolLimits {
        memory_bytes_max: config.bucket.max_inmemory_size,
        temp_dir: config.bucket.temp_dir.clone(),
        files_are_kept: config.bucket.storage_type == StorageType::Filesystem,
        logical_bytes_max: config.limits.max_logical_size,
        compression_level: config.compression.level,
    };
    let mut fallbacks: Vec<Box<dyn Fallback>> = Vec::new();
    if let Some(bucket) = config.repair.bucket() {
        let store = engine::open_fallback(&bucket).map_err(said)?;
        let failed = |error| format!("the fallback bucket {} does not answer error=\"{error}\"", bucket.name);
        // Found out now rather than after hours of reading.
        store.probe().await.map_err(failed)?;
        fallbacks.push(Box::new(OtherStore::new(store, limits(), threads).map_err(said)?));
    }
    if let Some(url) = &config.repair.fallback_url {
        fallbacks.push(Box::new(Filetracker::new(url.reveal(), limits(), threads).map_err(said)?));
    }
    Ok(fallbacks)
}

struct Outcome<'a> {
    plan: &'a Plan,
    applied: Option<&'a [Applied]>,
}

impl Outcome<'_> {
    /// Whether nothing was wrong, or all of it was put right, and the plan had room for everything.
    fn is_whole(&self) -> bool {
        let is_all_done = self.applied.is_some_and(|applied| applied.iter().all(|one| *one == Applied::Done));
        !self.plan.is_partial() && (self.plan.found.is_whole() || (is_all_done && self.plan.lost.is_empty()))
    }

    /// The outcome in a word.
    fn status(&self) -> &'static str {
        match (self.is_whole(), self.plan.found.is_whole()) {
            (true, _) => "whole",
            (false, true) => "unfinished",
            (false, false) => "damaged",
        }
    }

    fn to_json(&self) -> Value {
        let action = |(number, action): (usize, &Action)| {
            let mut value = action.to_json();
            match self.applied.and_then(|applied| applied.get(number)) {
                None => value["outcome"] = json!("planned"),
                Some(Applied::Done) => value["outcome"] = json!("done"),
                Some(Applied::Skipped(why)) => {
                    value["outcome"] = json!("skipped");
                    value["why"] = json!(why);
                }
            }
            value
        };
        json!({
            "format": 1,
            "dry_run": self.applied.is_none(),
            "status": self.status(),
            "found": self.plan.found.to_json(),
            "actions": self.plan.actions.iter().enumerate().map(action).collect::<Vec<_>>(),
            "lost": self.plan.lost.iter().map(Damage::to_json).collect::<Vec<_>>(),
            "left_off": self.plan.left_off,
        })
    }

    fn text(&self) -> String {
        let (Plan { found, actions, lost, left_off }, mut out) = (self.plan, String::new());
        let damages = found.damages.len() as u64 + found.damages_left_off;
        let (names, contents) = (found.names, found.contents);
        match self.status() {
            "whole" if actions.is_empty() => {
                let _ = writeln!(out, "whole: {names} names, {contents} contents, nothing to repair");
            }
            "whole" if self.applied.is_some() => {
                let _ = writeln!(out, "whole now: found {damages} damages; {} actions done", actions.len());
            }
            status => {
                let verb = if self.applied.is_some() { "done" } else { "planned, nothing was done" };
                let status = if status == "damaged" { "DAMAGED" } else { status };
                let _ = writeln!(out, "{status}: found {damages} damages; {} actions {verb}", actions.len());
            }
        }
        for (number, action) in actions.iter().enumerate().take(SHOWN_MAX) {
            let skipped = match self.applied.and_then(|applied| applied.get(number)) {
                Some(Applied::Skipped(why)) => format!(" SKIPPED: {why}"),
                _ => String::new(),
            };
            let _ = writeln!(out, "  {}{skipped}", action.to_json());
        }
        if actions.len() > SHOWN_MAX {
            let _ = writeln!(out, "  and {} more: see --report or --json", actions.len() - SHOWN_MAX);
        }
        if !lost.is_empty() {
            let _ = writeln!(out, "cannot be put right: {}", lost.len());
            out.push_str(&list(lost, 0));
        }
        for (left_off, what) in [
            (*left_off, "objects that nothing knows of"),
            (found.damages_left_off, "damages"),
            (found.cleared_left_off, "objects that are whole and noted as damaged"),
        ] {
            if left_off > 0 {
                let _ = writeln!(out, "left off, as a plan has no room for more: {left_off} {what}");
            }
        }
        if self.plan.is_partial() {
            let _ = writeln!(out, "run repair again");
        }
        out
    }
}

fn rebuilt_text(rebuilt: &Rebuilt) -> String {
    let Rebuilt { objects, adopted, superfluous, refused, given_up, .. } = rebuilt;
    let mut out = format!(
        "{objects} objects: {adopted} contents are known now, {superfluous} further objects of known contents\n"
    );
    if *refused > 0 {
        let _ = writeln!(out, "{refused} objects are not what they should be, now in quarantine");
    }
    if *given_up > 0 {
        let _ = writeln!(out, "{given_up} objects had been given up before: they are left as they are");
    }
    out.push_str("names come back with: s3dedup import FILE; until they do, the cleaner leaves the contents alone\n");
    out
}
