//! `s3dedup instances`: who serves a database.

use std::time::Duration;

use s3dedup_actors::filetracker::calendar::civil_from_days;
use s3dedup_actors::model::Stamp;
use s3dedup_actors::store::instances::{InstanceRegistry, KnownInstance};
use s3dedup_actors::store::meta::PostgresStore;
use serde_json::{Value, json};

use crate::boot::metadata::{place, postgres_settings};
use crate::config::{Config, one_line};

/// SQLSTATEs of a table and of a schema that do not exist.
const NO_TABLE: [&str; 2] = ["42P01", "3F000"];

/// Asks the database; an error is one line for people.
pub fn ask(config: &Config) -> Result<Vec<KnownInstance>, String> {
    let settings = postgres_settings(config, "(instances)");
    let asked = actix_rt::System::new().block_on(async {
        // Nothing is brought up to date: looking must not change a database that older instances serve.
        PostgresStore::attach(&settings, 1, 1)?.instances().await
    });
    asked.map_err(|error| {
        let text = error.to_string();
        let hint = if NO_TABLE.iter().any(|code| text.contains(code)) { "; no s3dedup has used it yet" } else { "" };
        format!("cannot read the database {} error=\"{text}\"{hint}", place(config))
    })
}

/// The instances as an aligned table, or a line that says that there are none.
pub fn table(known: &[KnownInstance]) -> String {
    if known.is_empty() {
        return "no instance has used this database within a week".to_owned();
    }
    let head = ["ID", "ADDRESS", "VERSION", "LOCKS", "STARTED", "LAST SEEN", "STATE", "CONTENTS"].map(str::to_owned);
    let rows = known.iter().map(|known| {
        let KnownInstance { instance, started_at, silent_for } = known;
        let (started, seen, state) = (time(*started_at), ago(*silent_for), state(known).to_owned());
        // what instances say of themselves could hold anything
        let [id, address, version, locks, contents] =
            [&instance.id, &instance.address, &instance.version, &instance.locks, &instance.contents]
                .map(|t| one_line(t));
        [id, address, version, locks, started, seen, state, contents]
    });
    let rows: Vec<[String; 8]> = std::iter::once(head).chain(rows).collect();
    let widths: Vec<_> =
        (0..8).map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)).collect();
    let line = |row: &[String; 8]| {
        let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// The instances as a JSON array.
pub fn to_json(known: &[KnownInstance]) -> Value {
    let object = |known: &KnownInstance| {
        let KnownInstance { instance, started_at, silent_for } = known;
        json!({
            "id": instance.id,
            "address": instance.address,
            "version": instance.version,
            "locks": instance.locks,
            "contents": instance.contents,
            "started": time(*started_at),
            "last_seen_seconds": silent_for.as_secs(),
            "state": state(known),
        })
    };
    known.iter().map(object).collect()
}

fn state(known: &KnownInstance) -> &'static str {
    if known.is_live() { "live" } else { "gone" }
}

/// `2026-11-21T08:27:41Z`.
pub fn time(stamp: Stamp) -> String {
    const DAY: i64 = 86_400;
    let (days, second) = (stamp.seconds().div_euclid(DAY), stamp.seconds().rem_euclid(DAY));
    let (year, month, day) = civil_from_days(days);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

fn ago(silent_for: Duration) -> String {
    match silent_for.as_secs() {
        seconds @ ..120 => format!("{seconds} s ago"),
        seconds @ ..7_200 => format!("{} min ago", seconds / 60),
        seconds @ ..172_800 => format!("{} h ago", seconds / 3600),
        seconds => format!("{} d ago", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use s3dedup_actors::store::instances::Instance;

    use super::*;

    fn known(id: &str, silent_seconds: u64) -> KnownInstance {
        let [id, address, version, contents, locks] =
            [id, "10.0.0.1:80", "0.1.0", "s3 bucket x", "postgres"].map(str::to_owned);
        KnownInstance {
            instance: Instance { id, address, version, contents, locks },
            started_at: Stamp::from_seconds(1_700_000_000),
            silent_for: Duration::from_secs(silent_seconds),
        }
    }

    #[test]
    fn columns_stand_below_their_heads() {
        let text = table(&[known("web1:8080", 2), known("a-much-longer-name:8080\n", 3600)]);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        for word in ["ADDRESS", "STATE", "CONTENTS"] {
            let column = lines[0].find(word).unwrap();
            assert!(lines[1..].iter().all(|line| !line[column..].starts_with(' ') && line[..column].ends_with(' ')));
        }
        assert!(lines[1].contains("2 s ago") && lines[1].contains("live") && lines[1].contains("2023-11-14T22:13:20Z"));
        assert!(lines[2].contains("60 min ago") && lines[2].contains("gone"));
        assert!(table(&[]).contains("no instance"));
    }

    #[test]
    fn json_is_an_array_of_objects() {
        assert_eq!(to_json(&[]), json!([]));
        let value = to_json(&[known("web1:8080", 20)]);
        assert_eq!(value[0]["id"], "web1:8080");
        assert_eq!((&value[0]["state"], &value[0]["last_seen_seconds"]), (&json!("gone"), &json!(20)));
        assert_eq!(value[0]["started"], "2023-11-14T22:13:20Z");
    }
}
