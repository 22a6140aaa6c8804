//! The numbers as JSON, and as a table.

use s3dedup_actors::Totals;
use serde_json::{Value, json};

use super::{Observer, Range, Sample};
use crate::clean::aligned;
use crate::instances::time;
use crate::migrate::show::bytes;

/// What is stored, and what that saves.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Savings {
    /// Names.
    pub files: u64,
    /// Contents that are stored.
    pub blobs: u64,
    /// Sizes of the contents of all names, in bytes.
    pub logical_bytes: u64,
    /// Sizes of all objects, in bytes.
    pub stored_bytes: u64,
}

impl Savings {
    /// What these totals say.
    pub fn of(totals: &Totals) -> Self {
        let Totals { entries: files, contents: blobs, logical_bytes, stored_bytes, .. } = *totals;
        Self { files, blobs, logical_bytes, stored_bytes }
    }

    /// The share of names that needed no content of their own; 0 when contents without a name are more than those.
    pub fn deduplication_ratio(&self) -> f64 {
        ratio(self.files.saturating_sub(self.blobs), self.files)
    }

    /// Bytes that need no room: by sharing and by compression together.
    pub fn saved_bytes(&self) -> u64 {
        self.logical_bytes.saturating_sub(self.stored_bytes)
    }

    /// Those as a share of all.
    pub fn savings_ratio(&self) -> f64 {
        ratio(self.saved_bytes(), self.logical_bytes)
    }

    /// Names per content.
    pub fn references_per_blob(&self) -> f64 {
        ratio(self.files, self.blobs)
    }
}

/// 0 when there is nothing to divide by.
fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// `GET /api/stats`.
pub fn stats(observer: &Observer, totals: &Totals) -> Value {
    let it = Savings::of(totals);
    let facts = observer.facts();
    json!({
        "dedup_unique_blobs": it.blobs,
        "dedup_total_references": it.files,
        "dedup_ratio": it.references_per_blob(),
        "deduplication_ratio": it.deduplication_ratio(),
        "objects_count": it.blobs,
        "storage_used_bytes": it.stored_bytes,
        "logical_bytes": it.logical_bytes,
        "saved_bytes": it.saved_bytes(),
        "savings_ratio": it.savings_ratio(),
        "uptime_seconds": observer.uptime().as_secs(),
        "started": time(observer.started_at()),
        "version": env!("CARGO_PKG_VERSION"),
        "instance": facts.instance,
        "metadata": facts.metadata,
        "contents": facts.contents,
        "locks": facts.locks,
    })
}

/// The same as a table; `None` when it is not what a server answers.
pub fn stats_table(stats: &Value) -> Option<String> {
    let number = |name: &str| stats[name].as_u64();
    let share = |name: &str| Some(format!("{:.1} %", stats[name].as_f64()? * 100.0));
    let size = |name: &str| number(name).map(|size| format!("{size} ({})", bytes(size)));
    let text = |name: &str| stats[name].as_str().map(crate::config::one_line);
    let row = |what: &str, value: Option<String>| Some([what.to_owned(), value?]);
    let count = |name: &str| number(name).map(|count| count.to_string());
    let uptime = number("uptime_seconds").map(|it| crate::care::progress::duration(std::time::Duration::from_secs(it)));
    let rows = [
        row("files", count("dedup_total_references")),
        row("unique contents", count("dedup_unique_blobs")),
        row("files per content", stats["dedup_ratio"].as_f64().map(|ratio| format!("{ratio:.2}"))),
        row("files without a content of their own", share("deduplication_ratio")),
        row("logical bytes", size("logical_bytes")),
        row("stored bytes", size("storage_used_bytes")),
        row("saved bytes", size("saved_bytes")),
        row("saved", share("savings_ratio")),
        row("up for", uptime),
        row("version", text("version")),
        row("instance", text("instance")),
    ];
    let rows: Option<Vec<_>> = rows.into_iter().collect();
    Some(aligned(&rows?))
}

/// `GET /api/cleaner`.
pub fn cleaner(observer: &Observer) -> Value {
    let stats = observer.engine().cleaner_stats();
    json!({
        "enabled": observer.facts().cleans,
        "running": stats.is_running(),
        "leader": stats.is_leader(),
        "last_run": stats.last_run().map(time),
        "last_run_seconds": stats.last_run().map(|time| time.seconds()),
        "runs": stats.runs(),
        "deleted": stats.deleted(),
        "freed_bytes": stats.freed_bytes(),
        "errors": stats.errors(),
    })
}

/// `GET /api/history`: one array per number, as charts want them.
pub fn history(observer: &Observer, range: Range) -> Value {
    let samples = observer.history(range);
    let column = |of: &dyn Fn(&Sample) -> Value| samples.iter().map(of).collect::<Vec<_>>();
    let total =
        |of: fn(&Savings) -> u64| column(&|sample| json!(sample.totals.map(|totals| of(&Savings::of(&totals)))));
    json!({
        "step_seconds": if range == Range::Hour { 10 } else { 600 },
        "time": column(&|sample| json!(sample.at)),
        "files": total(|it| it.files),
        "blobs": total(|it| it.blobs),
        "logical_bytes": total(|it| it.logical_bytes),
        "stored_bytes": total(|it| it.stored_bytes),
        "requests_per_second": column(&|sample| json!(sample.requests)),
        "failures_per_second": column(&|sample| json!(sample.failures)),
        "p50_seconds": column(&|sample| json!(sample.half)),
        "p99_seconds": column(&|sample| json!(sample.most)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_of_nothing_are_zero_and_never_negative() {
        let none = Savings::default();
        assert_eq!((none.deduplication_ratio(), none.savings_ratio(), none.references_per_blob()), (0.0, 0.0, 0.0));
        let garbage = Savings { files: 1, blobs: 3, logical_bytes: 10, stored_bytes: 40 };
        assert_eq!((garbage.deduplication_ratio(), garbage.saved_bytes()), (0.0, 0));
        let shared = Savings { files: 10, blobs: 4, logical_bytes: 100, stored_bytes: 25 };
        assert_eq!((shared.deduplication_ratio(), shared.savings_ratio()), (0.6, 0.75));
        assert_eq!(shared.references_per_blob(), 2.5);
    }

    #[test]
    fn a_table_is_made_of_a_whole_answer_only() {
        let mut answer = json!({
            "dedup_unique_blobs": 4, "dedup_total_references": 10, "dedup_ratio": 2.5, "deduplication_ratio": 0.6,
            "storage_used_bytes": 25, "logical_bytes": 100, "saved_bytes": 75, "savings_ratio": 0.75,
            "uptime_seconds": 90, "version": "0.1.0", "instance": "web1\n:80",
        });
        let table = stats_table(&answer).unwrap();
        assert!(table.contains("75.0 %") && table.contains("2.50") && !table.contains("web1\n"), "{table}");
        answer.as_object_mut().unwrap().remove("version");
        assert_eq!(stats_table(&answer), None);
    }
}
