//! What a migration says to people and to programs.

use std::path::Path;

use s3dedup_actors::migrator::{MigrationPhase, MigrationSnapshot};
use s3dedup_actors::store::meta::Trouble;
use serde_json::{Value, json};

use crate::care::progress::duration;
use crate::clean::aligned;
use crate::config::one_line;
use crate::terminal::{bar, fitted};

/// Characters of the bar, and of it where there is less room.
const BAR_WIDTHS: [u64; 2] = [20, 10];
/// So many columns have room for the long one.
const WIDE: usize = 110;

/// How far it is, in one line of so many columns.
pub fn line(now: &MigrationSnapshot, columns: usize) -> String {
    if let Some(what) = &now.waits_for {
        return format!("phase={} waiting for {}", now.phase.as_str(), one_line(what));
    }
    let counts = &now.counts;
    if now.phase != MigrationPhase::Copying {
        return format!("phase={} files={}", now.phase.as_str(), counts.total);
    }
    let settled = counts.settled();
    // More may turn up than was listed.
    let total = counts.total.max(settled).max(1);
    let width = BAR_WIDTHS[usize::from(columns < WIDE)];
    let bar = bar(settled, total, width);
    // All is all only when nothing is left.
    let percent = (settled as f64 / total as f64 * 1000.0).floor() / 10.0;
    let megabytes = now.received_bytes as f64 / 1e6 / now.copying_for.as_secs_f64().max(0.001);
    let eta = now.time_left().map_or_else(|| "?".to_owned(), duration);
    let parts = [
        (3, format!("[{bar}]")),
        (7, format!("{percent:.1}%")),
        (6, format!("files={settled}/{total}")),
        (2, bytes(counts.copied_bytes)),
        (1, format!("rate={:.0}/s", now.rate())),
        (0, format!("{megabytes:.1} MB/s")),
        (5, format!("eta={eta}")),
        (4, format!("saved={}", saved(now))),
        (6, format!("failed={}", counts.failed)),
    ];
    fitted(&parts, columns)
}

/// What came of it, with the first names that were not copied.
pub fn summary(now: &MigrationSnapshot, first: &[Trouble], report: Option<&Path>) -> String {
    let counts = &now.counts;
    let row = |what: &str, number: String| [what.to_owned(), number];
    let count = |what: &str, number: u64| row(what, number.to_string());
    let mut rows = vec![
        count("files found", counts.total),
        count("copied", counts.copied),
        count("  unique contents", counts.contents),
        row("  logical bytes", format!("{} ({})", counts.copied_bytes, bytes(counts.copied_bytes))),
        row("  stored bytes", format!("{} ({})", counts.stored_bytes, bytes(counts.stored_bytes))),
        row("  saved", saved(now)),
        count("skipped: here, as new or newer", counts.skipped),
        count("gone at the source meanwhile", counts.gone),
        count("deleted here meanwhile", counts.refused),
        count("failed", counts.failed),
    ];
    let left = counts.total.saturating_sub(counts.settled());
    if left > 0 {
        rows.push(count("left", left));
    }
    let mut lines = vec![format!("migration from {}", one_line(&now.source)), aligned(&rows)];
    for trouble in first {
        let (fate, reason) = (&trouble.fate, one_line(&trouble.reason));
        lines.push(format!("  {fate} name={:?} reason={reason:?}", trouble.name));
    }
    let more = (counts.failed + counts.gone + counts.refused).saturating_sub(first.len() as u64);
    if more > 0 && !first.is_empty() {
        lines.push(match report {
            Some(file) => format!("  and {more} more in {}", file.display()),
            None => format!("  and {more} more: see --report"),
        });
    }
    lines.push(match now.phase {
        MigrationPhase::Done if counts.failed == 0 => "complete".to_owned(),
        MigrationPhase::Done => {
            "complete but for what failed; the same command tries that again, and copies what is new".to_owned()
        }
        MigrationPhase::Listing => "stopped while names were listed; the same command begins anew".to_owned(),
        _ => "stopped; the same command goes on from here".to_owned(),
    });
    lines.join("\n")
}

/// The numbers for programs.
pub fn to_json(now: &MigrationSnapshot) -> Value {
    let counts = &now.counts;
    json!({
        "active": now.is_active(),
        "phase": now.phase.as_str(),
        "kind": now.kind,
        "source": now.source,
        "resumed": now.is_resumed,
        "waits_for": now.waits_for,
        "files": {
            "total": counts.total,
            "settled": counts.settled(),
            "copied": counts.copied,
            "skipped": counts.skipped,
            "gone": counts.gone,
            "deleted_here": counts.refused,
            "failed": counts.failed,
        },
        "unique_contents": counts.contents,
        "logical_bytes": counts.copied_bytes,
        "stored_bytes": counts.stored_bytes,
        "savings": now.savings(),
        "received_bytes": now.received_bytes,
        "retries": now.retries,
        "files_per_second": now.rate(),
        "seconds": now.copying_for.as_secs_f64(),
        "seconds_left": now.time_left().map(|time| time.as_secs()),
    })
}

fn saved(now: &MigrationSnapshot) -> String {
    // Small files that differ take more room than they have bytes: nothing is saved.
    now.savings().map_or_else(|| "-".to_owned(), |share| format!("{:.1}%", (share * 1000.0).round().max(0.0) / 10.0))
}

/// A size for people.
pub fn bytes(bytes: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB", "PB"];
    let mut size = bytes as f64;
    let mut unit = 0;
    while size >= 999.5 && unit + 1 < units.len() {
        size /= 1000.0;
        unit += 1;
    }
    let digits = usize::from(unit > 0 && size < 99.95);
    format!("{size:.digits$} {}", units[unit])
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use s3dedup_actors::model::Stamp;
    use s3dedup_actors::store::meta::MigrationCounts;

    use super::*;

    fn snapshot() -> MigrationSnapshot {
        MigrationSnapshot {
            id: None,
            kind: "v2",
            source: "http://old:9999".into(),
            phase: MigrationPhase::Copying,
            is_resumed: true,
            counts: MigrationCounts {
                total: 1000,
                copied: 240,
                copied_bytes: 1_000_000_000,
                contents: 100,
                stored_bytes: 250_000_000,
                skipped: 7,
                gone: 1,
                refused: 0,
                failed: 2,
            },
            received_bytes: 60_000_000,
            retries: 3,
            copying_for: Duration::from_secs(10),
            settled_here: 50,
            still_for: Duration::ZERO,
            waits_for: None,
        }
    }

    #[test]
    fn the_line_tells_what_a_person_watches() {
        let line = |now: &MigrationSnapshot| super::line(now, usize::MAX);
        assert_eq!(
            line(&snapshot()),
            "[#####...............] 25.0% files=250/1000 1.0 GB rate=5/s 6.0 MB/s eta=2m saved=75.0% failed=2"
        );
        let narrow = |columns| super::line(&snapshot(), columns);
        assert_eq!(narrow(80), "[##........] 25.0% files=250/1000 1.0 GB rate=5/s eta=2m saved=75.0% failed=2");
        assert_eq!(narrow(45), "25.0% files=250/1000 eta=2m failed=2");
        let counts = MigrationCounts { total: 1_000_000, copied: 999_999, ..MigrationCounts::default() };
        let last = MigrationSnapshot { counts, still_for: Duration::from_secs(90), ..snapshot() };
        let told = line(&MigrationSnapshot { settled_here: 999_999, ..last });
        assert!(told.contains(" 99.9% ") && told.contains(" eta=90s "), "{told}");
        for stored_bytes in [100_001, 700_000] {
            let counts = MigrationCounts { copied_bytes: 100_000, stored_bytes, ..snapshot().counts };
            let larger = line(&MigrationSnapshot { counts, ..snapshot() });
            assert!(larger.contains(" saved=0.0% "), "{larger}");
        }
        let waiting = MigrationSnapshot { waits_for: Some("the source: no\nanswer".into()), ..snapshot() };
        assert!(line(&waiting).starts_with("phase=copying waiting for the source: no"));
        let empty = MigrationSnapshot { counts: MigrationCounts::default(), settled_here: 0, ..snapshot() };
        assert!(line(&empty).contains("eta=? saved=- failed=0"), "{}", line(&empty));
    }

    #[test]
    fn the_summary_says_what_is_left_and_how_to_go_on() {
        let trouble = |name: &str| Trouble {
            name: name.into(),
            fate: "failed".into(),
            reason: "broken\ngzip".into(),
            attempts: 2,
            noted_at: Stamp::from_seconds(0),
        };
        let stopped = MigrationSnapshot { phase: MigrationPhase::Stopped, ..snapshot() };
        let text = summary(&stopped, &[trouble("a")], Some(Path::new("out.json")));
        for part in ["and 2 more in out.json", "goes on from here"] {
            assert!(text.contains(part), "{text}");
        }
        assert!(text.lines().any(|line| line.starts_with("left ") && line.ends_with(" 750")), "{text}");
        assert!(!text.contains("broken\n"));
        let done = MigrationSnapshot { phase: MigrationPhase::Done, ..snapshot() };
        assert!(summary(&done, &[], None).ends_with("copies what is new"));
        assert_eq!(to_json(&stopped)["files"]["settled"], 250);
        assert_eq!((&to_json(&stopped)["active"], &to_json(&snapshot())["active"]), (&false.into(), &true.into()));
    }

    #[test]
    fn sizes_have_units() {
        for (size, shown) in [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (123_456, "123 kB"), (1 << 40, "1.1 TB")] {
            assert_eq!(bytes(size), shown);
        }
    }
}
