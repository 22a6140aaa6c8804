//! `s3dedup compare`: do the old server and this store hold the same files?

use std::io::Write;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use s3dedup_actors::migrator::{self, CompareProgress, CompareReport, CompareTools, Difference};
use serde_json::{Value, json};

use super::{From, complain, open_source, say};
use crate::care::progress::Shown;
use crate::care::{attach, check_match, examiner, run};
use crate::config::Config;
use crate::{exit, terminal};

/// Differences that a JSON report keeps; more are only counted.
const KEPT_MAX: usize = 100_000;

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct CompareOptions {
    /// The other side.
    pub from: From,
    /// Reads the bytes of both sides.
    pub deep: bool,
    /// Prints JSON.
    pub json: bool,
}

/// Compares; returns the exit code.
pub fn compare(config: &Config, options: CompareOptions) -> u8 {
    let source = match open_source(config, options.from, None) {
        Ok(source) => source,
        Err(why) => {
            complain(&why);
            return exit::WRONG_USE;
        }
    };
    run(config, async {
        let stores = attach(config).await?;
        check_match(&stores).await?;
        let examiner = examiner(config, None)?;
        let progress = Rc::new(CompareProgress::default());
        let shown = Shown::lines({
            let (progress, begun) = (Rc::clone(&progress), Instant::now());
            move || line(&progress, begun)
        });
        let mut kept = Vec::new();
        let mut found = |difference: Difference| {
            if options.json {
                kept.extend((kept.len() < KEPT_MAX).then_some(difference));
            } else {
                // As they come: there may be very many.
                terminal::clear();
                let _ = writeln!(std::io::stdout(), "{}", text(&difference));
            }
        };
        let how = migrator::CompareOptions { deep: options.deep, concurrency: config.migration.max_concurrency };
        let tools = CompareTools { examiner: &examiner, progress: &progress, found: &mut found };
        let report = migrator::compare(source.as_ref(), &stores, how, tools).await;
        drop(shown);
        let report = report.map_err(|error| format!("cannot compare error=\"{error}\""))?;
        if options.json {
            say(&format!("{:#}", to_json(&report, options.deep, &kept)));
        } else {
            say(&summary(&report, options.deep));
        }
        Ok(if report.different == 0 { exit::OK } else { exit::DAMAGED })
    })
}

fn line(progress: &CompareProgress, begun: Instant) -> String {
    let (names, bytes) = (progress.looked_at.load(Relaxed), progress.bytes.load(Relaxed));
    let seconds = begun.elapsed().as_secs_f64().max(0.001);
    format!(
        "phase=comparing files={names} rate={:.0}/s {:.1} MB/s different={}",
        names as f64 / seconds,
        bytes as f64 / 1e6 / seconds,
        progress.different.load(Relaxed)
    )
}

fn text(difference: &Difference) -> String {
    let (word, detail) = (difference.kind.as_str(), difference.kind.detail());
    format!("{word} name={:?} {detail}", difference.name).trim_end().to_owned()
}

fn summary(report: &CompareReport, deep: bool) -> String {
    let CompareReport { there, here, same, different, bytes } = report;
    let read = if deep { format!(", {bytes} bytes read on both sides") } else { String::new() };
    let verdict = if *different == 0 { "the same" } else { "NOT the same" };
    format!("{there} files there, {here} here: {same} the same, {different} different{read}\n{verdict}")
}

fn to_json(report: &CompareReport, deep: bool, kept: &[Difference]) -> Value {
    let differences = kept.iter().map(|difference| {
        let (kind, detail) = (difference.kind.as_str(), difference.kind.detail());
        json!({ "name": difference.name, "kind": kind, "detail": detail })
    });
    json!({
        "format": 1,
        "status": if report.different == 0 { "same" } else { "different" },
        "deep": deep,
        "there": report.there,
        "here": report.here,
        "same": report.same,
        "different": report.different,
        "bytes": report.bytes,
        "differences": differences.collect::<Vec<_>>(),
        "left_off": report.different.saturating_sub(kept.len() as u64),
    })
}
