//! What a run of the cleaner says to people and to programs.

use s3dedup_actors::cleaner::{CleanReport, Findings, Progress, ScanReport, Tally};
use serde_json::{Value, json};

use crate::config::one_line;
use crate::terminal;

/// Characters of the bar.
const BAR_WIDTH: u64 = 30;

/// Draws the bar on standard error, over the last one.
pub fn bar(progress: &Progress, planned: u64, contents: u64) {
    let (what, done, total) = match progress.scanned() {
        0 => ("cleaning", progress.cleaned(), planned),
        scanned => ("scanning", scanned, contents),
    };
    terminal::draw(&bar_text(what, done, total));
}

/// Takes the bar away.
pub fn end_of_bar() {
    terminal::clear();
}

fn bar_text(what: &str, done: u64, total: u64) -> String {
    // More may turn up than was planned.
    let total = total.max(done).max(1);
    format!("{what} [{}] {done} of {total}", terminal::bar(done, total, BAR_WIDTH))
}

/// The report as an aligned table and a few lines.
pub fn table(report: &CleanReport, dry_run: bool) -> String {
    let kinds = [
        ("contents that no file uses", Some(&report.unused), true),
        ("abandoned uploads", Some(&report.intents), false),
        ("left by an earlier run", Some(&report.condemned), false),
    ];
    let orphans = report.scan.as_ref().map(|scan| &scan.orphans_deleted);
    let kinds = kinds.into_iter().chain([("orphans", orphans, true)]);
    let mut rows = vec![["WHAT".to_owned(), "PLANNED".to_owned(), "DELETED".to_owned(), "BYTES".to_owned()]];
    for (what, tally, is_sized) in kinds {
        let Some(tally) = tally else { continue };
        let bytes = if dry_run { tally.planned_bytes } else { tally.done_bytes };
        let bytes = if is_sized { bytes.to_string() } else { "-".to_owned() };
        rows.push([what.to_owned(), tally.planned.to_string(), tally.done.to_string(), bytes]);
    }
    if report.parts.planned > 0 {
        let [planned, done] = [report.parts.planned, report.parts.done].map(|count| count.to_string());
        rows.push(["unfinished uploads in parts".to_owned(), planned, done, "-".to_owned()]);
    }
    let mut lines = vec![aligned(&rows)];
    if let Some(scan) = &report.scan {
        lines.push(String::new());
        lines.push(scan_table(scan));
    }
    lines.push(String::new());
    lines.push(end(report, dry_run));
    lines.join("\n")
}

fn scan_table(scan: &ScanReport) -> String {
    let known = |count: u64, bytes| Findings { count, bytes, first: Vec::new() };
    let rows = [
        ("objects", &known(scan.objects, scan.object_bytes), true),
        ("contents in the database", &known(scan.contents, 0), false),
        ("orphans: objects without a row", &scan.orphans, true),
        ("kept: orphans that a repair may need", &scan.orphans_kept, true),
        ("missing: rows without an object", &scan.missing, true),
        ("objects of the wrong size", &scan.wrong_size, true),
        ("rows that cannot be read", &scan.unreadable, false),
        ("names that are not ours", &scan.strangers, false),
    ];
    let mut cells = vec![["FULL SCAN".to_owned(), "NUMBER".to_owned(), "BYTES".to_owned()]];
    let mut names = Vec::new();
    for (what, found, is_sized) in rows {
        let bytes = if is_sized { found.bytes.to_string() } else { "-".to_owned() };
        cells.push([what.to_owned(), found.count.to_string(), bytes]);
        let kind = what.split(':').next().unwrap_or(what);
        // Names of strangers could hold anything.
        names.extend(found.first.iter().map(|name| format!("  {kind}: {}", one_line(name))));
    }
    let mut lines = vec![aligned(&cells)];
    lines.extend(names);
    lines.join("\n")
}

fn end(report: &CleanReport, dry_run: bool) -> String {
    let mut lines = Vec::new();
    if dry_run {
        lines.push("a dry run: nothing was changed".to_owned());
    }
    if let Some(error) = &report.first_error {
        let kept =
            if report.kept > 0 { format!(", {} objects could not be deleted", report.kept) } else { String::new() };
        lines.push(format!("{} failed{kept}, the first: {}", report.errors, one_line(&error.to_string())));
    }
    lines.push(if report.is_partial {
        "partial: there is more to clean, run it again or raise CLEANER_MAX_DELETES".to_owned()
    } else {
        "complete".to_owned()
    });
    lines.join("\n")
}

/// Columns below each other: the first to the left, numbers to the right.
pub fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..N).map(width).collect();
    let cell = |column: usize, text: &String| {
        let width = widths[column];
        if column == 0 { format!("{text:width$}") } else { format!("{text:>width$}") }
    };
    let line = |row: &[String; N]| {
        let cells: Vec<_> = row.iter().enumerate().map(|(column, text)| cell(column, text)).collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// The report for programs.
pub fn to_json(report: &CleanReport, dry_run: bool) -> Value {
    let tally = |tally: &Tally| {
        json!({
            "planned": tally.planned,
            "planned_bytes": tally.planned_bytes,
            "deleted": tally.done,
            "deleted_bytes": tally.done_bytes,
        })
    };
    let findings =
        |found: &Findings| json!({ "number": found.count, "bytes": found.bytes, "first": found.first.clone() });
    let scan = report.scan.as_ref().map(|scan| {
        json!({
            "objects": scan.objects,
            "object_bytes": scan.object_bytes,
            "contents": scan.contents,
            "orphans": findings(&scan.orphans),
            "orphans_deleted": tally(&scan.orphans_deleted),
            "orphans_kept": findings(&scan.orphans_kept),
            "missing": findings(&scan.missing),
            "wrong_size": findings(&scan.wrong_size),
            "unreadable_rows": findings(&scan.unreadable),
            "strangers": findings(&scan.strangers),
        })
    });
    json!({
        "dry_run": dry_run,
        "unused": tally(&report.unused),
        "abandoned_uploads": tally(&report.intents),
        "condemned_before": tally(&report.condemned),
        "parts": { "planned": report.parts.planned, "deleted": report.parts.done },
        "scan": scan,
        "partial": report.is_partial,
        "kept": report.kept,
        "errors": report.errors,
        "first_error": report.first_error.as_ref().map(ToString::to_string),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_below_their_heads() {
        let unused = Tally { planned: 1200, planned_bytes: 34_567, done: 7, done_bytes: 21 };
        let mut scan = ScanReport { objects: 5, ..ScanReport::default() };
        scan.strangers = Findings { count: 1, bytes: 0, first: vec!["a\nb".into()] };
        let report = CleanReport { unused, is_partial: true, scan: Some(scan), ..CleanReport::default() };
        let text = table(&report, false);
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].starts_with("WHAT") && lines[1].starts_with("contents that no file uses"));
        let end = lines[0].find("PLANNED").unwrap() + "PLANNED".len();
        assert!(lines[1][..end].ends_with("1200") && lines[1].ends_with("21"), "{text}");
        assert!(table(&report, true).contains("34567"));
        assert!(text.contains("partial") && !text.contains("a\nb"), "{text}");
        assert_eq!(to_json(&report, false)["scan"]["objects"], 5);
    }

    #[test]
    fn a_bar_is_never_more_than_full() {
        assert_eq!(bar_text("x", 5, 0), format!("x [{}] 5 of 5", "#".repeat(30)));
        assert!(bar_text("x", 0, 0).contains("[..."));
    }
}
