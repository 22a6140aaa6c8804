//! All metrics at one moment, as text for Prometheus and as JSON.

use std::collections::BTreeMap;

use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Encoder, TextEncoder};
use s3dedup_actors::runtime::meter::{BOUNDS, MeterReading};
use s3dedup_actors::{ActorState, ActorTree, EngineReading};
use serde_json::{Map, Value, json};

use super::Observer;
use super::shown::Savings;
use crate::logging;

/// The media type of [`Families::to_text`].
pub const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Metrics, complete with names, help and values.
pub struct Families(Vec<MetricFamily>);

/// What is shown of an actor, or of those that are called the same.
struct Health {
    restarts: u64,
    panics: u64,
    is_up: bool,
}

impl Default for Health {
    fn default() -> Self {
        Self { restarts: 0, panics: 0, is_up: true }
    }
}

/// A label and its value.
type Label<'a> = (&'a str, &'a str);

impl Families {
    /// The metrics now. Those of the stores are missing while the metadata store does not tell its totals.
    pub async fn now(observer: &Observer) -> Self {
        let mut families = Self(observer.traffic().families());
        let totals = observer.totals().await;
        if let Some(totals) = totals {
            families.savings(&Savings::of(&totals));
        }
        families.server(observer);
        families.stores(observer, totals.is_some());
        families.engine(&observer.engine().reading());
        families.actors(&observer.engine().actors());
        families.cleaner(observer);
        families.migration(observer);
        families
    }

    fn savings(&mut self, it: &Savings) {
        self.gauge("s3dedup_total_files", "Names, in the whole database.", it.files as f64);
        self.gauge("s3dedup_total_blobs", "Contents that are stored, in the whole database.", it.blobs as f64);
        let help = "The share of names that needed no content of their own: (files - blobs) / files, at least 0.";
        self.gauge("s3dedup_deduplication_ratio", help, it.deduplication_ratio());
        let help = "Sizes of the contents of all names, added up.";
        self.gauge("s3dedup_total_logical_size_bytes", help, it.logical_bytes as f64);
        self.gauge("s3dedup_total_storage_bytes", "Sizes of all stored objects, added up.", it.stored_bytes as f64);
        let help = "Logical size less storage: saved by sharing and by compression together.";
        self.gauge("s3dedup_deduplicated_bytes_saved", help, it.saved_bytes() as f64);
        let help = "Bytes saved as a share of the logical size.";
        self.gauge("s3dedup_storage_savings_ratio", help, it.savings_ratio());
        self.gauge("s3dedup_average_reference_count", "Names per content.", it.references_per_blob());
    }

    fn server(&mut self, observer: &Observer) {
        self.gauge("s3dedup_uptime_seconds", "Time since the start.", observer.uptime().as_secs_f64());
        let help = "Lines that did not get into the log file.";
        self.counter("s3dedup_log_lines_lost_total", help, logging::lost());
        if let Some(expiry) = observer.certificate_expiry() {
            let help = "When the certificate of this server ends.";
            self.gauge("s3dedup_tls_certificate_expiry_timestamp_seconds", help, expiry as f64);
        }
        let facts = observer.facts();
        let labels = [
            ("version", env!("CARGO_PKG_VERSION")),
            ("instance_id", &facts.instance),
            ("metadata", facts.metadata),
            ("contents", facts.contents),
        ];
        let help = "Always 1; the labels tell what runs.";
        self.add("s3dedup_instance_version_info", help, MetricType::GAUGE, vec![gauge(&labels, 1.0)]);
    }

    fn stores(&mut self, observer: &Observer, is_metadata_up: bool) {
        let up = |backend, is_up: bool| gauge(&[("backend", backend)], f64::from(u8::from(is_up)));
        let mut states = vec![up("metadata", is_metadata_up)];
        states.extend(observer.is_contents_up().map(|is_up| up("contents", is_up)));
        let help = "1 when the backend answered when it was last looked at, else 0.";
        self.add("s3dedup_backend_up", help, MetricType::GAUGE, states);
    }

    fn engine(&mut self, it: &EngineReading) {
        let help = "Writes of names whose content was known: nothing was uploaded.";
        self.counter("s3dedup_dedup_hits_total", help, it.dedup_hits);
        self.counter("s3dedup_dedup_misses_total", "Writes of names whose content was new.", it.dedup_misses);
        let help = "Requests that wait for the lock of a content.";
        self.gauge("s3dedup_lock_queue_size", help, it.lock_waiters as f64);
        let (active, idle) = it.connections;
        let help = "Connections to the metadata store that work now; with SQLite those of the pool of readers.";
        self.gauge("s3dedup_db_connections_active", help, active as f64);
        self.gauge("s3dedup_db_connections_idle", "Open connections that nobody uses now.", idle as f64);

        let help = "Small contents that were in memory when they were asked for.";
        self.counter("s3dedup_cache_hits_total", help, it.cache.hits);
        self.counter("s3dedup_cache_misses_total", "Contents that were not.", it.cache.misses);
        self.gauge("s3dedup_cache_size_bytes", "What is kept in memory.", it.cache.bytes as f64);
        self.gauge("s3dedup_cache_contents", "How many contents are kept in memory.", it.cache.contents as f64);

        let (mut times, mut errors) = (Vec::new(), Vec::new());
        for backend in &it.backends {
            let labels = [("backend", backend.backend), ("operation", backend.operation)];
            times.push(histogram(&labels, &backend.calls));
            errors.push(counter(&labels, backend.calls.errors));
        }
        let help = "Time until a backend answered, waiting for a connection included, in seconds.";
        self.add("s3dedup_backend_request_duration_seconds", help, MetricType::HISTOGRAM, times);
        let help = "Calls that failed for a reason of the backend.";
        self.add("s3dedup_backend_errors_total", help, MetricType::COUNTER, errors);
    }

    fn actors(&mut self, tree: &ActorTree) {
        // Metadata actors are called the same: they are shown as one.
        let mut actors: BTreeMap<&str, Health> = BTreeMap::new();
        actors.insert("guardian", Health { is_up: tree.is_guarded, ..Health::default() });
        let mut waiting: BTreeMap<(&str, &str), u64> = BTreeMap::new();
        let mut uploaders = 0;
        for child in &tree.children {
            let health = actors.entry(child.name).or_default();
            health.restarts += u64::from(child.restarts);
            health.panics += child.panics;
            health.is_up &= child.state == ActorState::Up;
            for (what, count) in &child.load {
                match (child.name, *what) {
                    ("uploads", "uploaders") => uploaders = *count,
                    // These count what was done, or tell times.
                    (_, "exports" | "failures" | "names" | "last_success" | "told" | "oldest_seconds") => {}
                    _ => *waiting.entry((child.name, what)).or_default() += *count as u64,
                }
            }
        }
        let (mut restarts, mut panics, mut up) = (Vec::new(), Vec::new(), Vec::new());
        for (name, health) in &actors {
            let label = [("actor", *name)];
            restarts.push(counter(&label, health.restarts));
            panics.push(counter(&label, health.panics));
            up.push(gauge(&label, f64::from(u8::from(health.is_up))));
        }
        self.add("s3dedup_actor_restarts_total", "How often an actor was rebuilt.", MetricType::COUNTER, restarts);
        self.add("s3dedup_actor_panics_total", "Panics that were caught in an actor.", MetricType::COUNTER, panics);
        self.add("s3dedup_actor_up", "1 when the actor works, else 0.", MetricType::GAUGE, up);
        let busy = waiting.iter().find(|(what, _)| **what == ("uploads", "busy")).map_or(0, |(_, count)| *count);
        let depths =
            waiting.iter().map(|((actor, what), count)| gauge(&[("actor", actor), ("what", what)], *count as f64));
        let depths = depths.collect();
        self.add("s3dedup_backlog_depth", "What an actor has to do, by kind.", MetricType::GAUGE, depths);

        let kinds = [("requests", tree.requests, tree.request_slots), ("uploads", busy as usize, uploaders)];
        let used = kinds.iter().map(|(kind, used, _)| gauge(&[("kind", kind)], *used as f64)).collect();
        self.add("s3dedup_permits_in_use", "Places that are taken.", MetricType::GAUGE, used);
        let most = kinds.iter().map(|(kind, _, most)| gauge(&[("kind", kind)], *most as f64)).collect();
        self.add("s3dedup_permits_max", "Places that there are.", MetricType::GAUGE, most);
        let help = "Memory that received bodies take.";
        self.gauge("s3dedup_spool_memory_bytes", help, tree.spool_bytes as f64);

        let breaker = |(name, state): &(&str, &str)| {
            let number = match *state {
                "closed" => 0.0,
                "probing" => 1.0,
                _ => 2.0,
            };
            let backend = match *name {
                "the database" => "metadata",
                "the old server" => "old_server",
                _ => "contents",
            };
            gauge(&[("backend", backend)], number)
        };
        let breakers = tree.breakers.iter().map(breaker).collect();
        let help = "Circuit breakers: 0 closed, 1 one call finds out, 2 open: calls are refused.";
        self.add("s3dedup_breaker_state", help, MetricType::GAUGE, breakers);
    }

    fn cleaner(&mut self, observer: &Observer) {
        let cleaner = observer.engine().cleaner_stats();
        let last_run = cleaner.last_run().map_or(0, |time| time.seconds());
        let help = "When the last run of this process ended; 0 before the first.";
        self.gauge("s3dedup_cleaner_last_run_timestamp_seconds", help, last_run as f64);
        self.counter("s3dedup_cleaner_total_runs", "Runs of the cleaner that ended.", cleaner.runs());
        self.counter("s3dedup_cleaner_deleted_blobs_total", "Objects that it deleted.", cleaner.deleted());
        self.counter("s3dedup_cleaner_freed_bytes_total", "Sizes of those, as far as known.", cleaner.freed_bytes());
        self.counter("s3dedup_cleaner_errors_total", "Runs and batches of it that failed.", cleaner.errors());
        let help = "Stored objects that a read found missing or damaged, twice.";
        self.counter("s3dedup_damaged_objects_seen_total", help, observer.engine().damage_seen());
        let exporter = observer.engine().exporter_stats();
        let last = exporter.last_success().map_or(0, |time| time.seconds());
        let help = "When the last export of this process was complete; 0 before the first.";
        self.gauge("s3dedup_export_last_success_timestamp_seconds", help, last as f64);
        self.counter("s3dedup_export_failures_total", "Exports that failed.", exporter.failures());
    }

    fn migration(&mut self, observer: &Observer) {
        let totals = observer.engine().migration_totals();
        let help = "1 while files are being copied or an old server stands beside this process, else 0.";
        self.gauge("s3dedup_migration_active", help, f64::from(u8::from(totals.is_active)));
        let help = "Files that were copied from the old server, in the background or because a client asked.";
        self.counter("s3dedup_migration_files_migrated_total", help, totals.files_migrated);
        let counts = observer.engine().migration().map(|now| now.counts).unwrap_or_default();
        self.counter("s3dedup_migration_files_failed_total", "Files that it could not copy.", counts.failed);
        self.gauge("s3dedup_migration_files", "Files that it has found.", counts.total as f64);
        let beside = observer.engine().beside_report().unwrap_or_default();
        let help = "Reads of clients that the old server answered.";
        self.counter("s3dedup_filetracker_fallbacks_total", help, totals.fallbacks);
        let help = "Names whose state the old server may not have.";
        self.gauge("s3dedup_filetracker_writes_waiting", help, beside.waiting.marks as f64);
        let help = "How often the old server could not be told of a write.";
        self.counter("s3dedup_filetracker_write_failures_total", help, beside.failed);
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.add(name, help, MetricType::GAUGE, vec![gauge(&[], value)]);
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.add(name, help, MetricType::COUNTER, vec![counter(&[], value)]);
    }

    fn add(&mut self, name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) {
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        family.set_metric(metrics);
        self.0.push(family);
    }

    /// The text format of Prometheus.
    pub fn to_text(&self) -> Result<String, prometheus::Error> {
        // One without a metric is refused by the encoder: nothing has been counted yet.
        let shown: Vec<_> = self.0.iter().filter(|family| !family.get_metric().is_empty()).cloned().collect();
        let mut text = Vec::new();
        TextEncoder::new().encode(&shown, &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// An object with one member per name: a number, or with labels an array of objects.
    pub fn to_json(&self) -> Value {
        let member = |family: &MetricFamily| {
            let metrics = family.get_metric();
            let value = match metrics {
                [only] if only.get_label().is_empty() => number(family, only),
                _ => metrics.iter().map(|metric| with_labels(family, metric)).collect(),
            };
            (family.name().to_owned(), value)
        };
        Value::Object(self.0.iter().map(member).collect())
    }
}

fn with_labels(family: &MetricFamily, metric: &Metric) -> Value {
    let labels = metric.get_label().iter().map(|label| (label.name().to_owned(), json!(label.value())));
    let labels: Map<_, _> = labels.collect();
    json!({ "labels": labels, "value": number(family, metric) })
}

fn number(family: &MetricFamily, metric: &Metric) -> Value {
    match family.get_field_type() {
        MetricType::COUNTER => json!(metric.get_counter().get_value() as u64),
        MetricType::HISTOGRAM => {
            let histogram = metric.get_histogram();
            let bucket = |bucket: &Bucket| json!({ "le": bucket.upper_bound(), "count": bucket.cumulative_count() });
            json!({
                "count": histogram.get_sample_count(),
                "sum": histogram.get_sample_sum(),
                "buckets": histogram.get_bucket().iter().map(bucket).collect::<Vec<_>>(),
            })
        }
        _ => json!(metric.get_gauge().get_value()),
    }
}

fn labelled(labels: &[Label<'_>]) -> Metric {
    let pair = |(name, value): &Label<'_>| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    Metric::from_label(labels.iter().map(pair).collect())
}

fn gauge(labels: &[Label<'_>], value: f64) -> Metric {
    let (mut metric, mut gauge) = (labelled(labels), Gauge::default());
    gauge.set_value(value);
    metric.set_gauge(gauge);
    metric
}

fn counter(labels: &[Label<'_>], value: u64) -> Metric {
    let (mut metric, mut counter) = (labelled(labels), Counter::default());
    counter.set_value(value as f64);
    metric.set_counter(counter);
    metric
}

fn histogram(labels: &[Label<'_>], reading: &MeterReading) -> Metric {
    let (mut metric, mut histogram) = (labelled(labels), Histogram::default());
    let bucket = |(bound, count): (&f64, &u64)| {
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound);
        bucket.set_cumulative_count(*count);
        bucket
    };
    histogram.set_bucket(BOUNDS.iter().zip(&reading.cumulative).map(bucket).collect());
    histogram.set_sample_count(reading.count);
    histogram.set_sample_sum(reading.seconds);
    metric.set_histogram(histogram);
    metric
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped_and_empty_families_left_out() {
        let mut families = Families(Vec::new());
        families.add("s3dedup_a", "help\nmore", MetricType::GAUGE, vec![gauge(&[("x", "q\"\\\n")], 1.0)]);
        families.add("s3dedup_b", "none", MetricType::GAUGE, Vec::new());
        let text = families.to_text().unwrap();
        assert!(text.contains("s3dedup_a{x=\"q\\\"\\\\\\n\"} 1") && !text.contains("s3dedup_b"), "{text}");
        assert_eq!(families.to_json()["s3dedup_a"][0], json!({ "labels": { "x": "q\"\\\n" }, "value": 1.0 }));
    }

    #[test]
    fn numbers_without_labels_stand_alone_in_json() {
        let mut families = Families(Vec::new());
        families.counter("s3dedup_c_total", "help", 7);
        families.gauge("s3dedup_g", "help", 0.5);
        assert_eq!(families.to_json(), json!({ "s3dedup_c_total": 7, "s3dedup_g": 0.5 }));
    }
}
