//! `/metrics` and `/metrics/json`: what is told, that it is true, and that it can be read.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};

use s3dedup_actors::testkit::postgres::{DATABASE, PostgresServer};
use serde_json::Value;

use crate::support::python::venv;
use crate::support::s3::S3InProcess;
use crate::support::{Noise, TestServer, eventually, upload};

/// Names that people were promised.
const PROMISED: &[&str] = &[
    "http_requests_total",
    "http_request_duration_seconds",
    "total_files",
    "total_blobs",
    "deduplication_ratio",
    "total_logical_size_bytes",
    "total_storage_bytes",
    "deduplicated_bytes_saved",
    "storage_savings_ratio",
    "average_reference_count",
    "dedup_hits_total",
    "dedup_misses_total",
    "cleaner_last_run_timestamp_seconds",
    "cleaner_total_runs",
    "cleaner_deleted_blobs_total",
    "cleaner_freed_bytes_total",
    "cleaner_errors_total",
    "migration_active",
    "migration_files_migrated_total",
    "filetracker_fallbacks_total",
    "lock_queue_size",
    "uptime_seconds",
    "db_connections_active",
    "db_connections_idle",
    "instance_version_info",
    "actor_restarts_total",
    "backlog_depth",
    "permits_in_use",
    "backend_request_duration_seconds",
    "backend_errors_total",
    "cache_hits_total",
    "breaker_state",
];

fn metrics(server: &TestServer) -> Value {
    let answer = server.raw_request("GET", "/metrics/json").send();
    serde_json::from_slice(&answer.assert_status(200).body).unwrap()
}

fn text(server: &TestServer) -> String {
    server.raw_request("GET", "/metrics").send().assert_status(200).text().to_owned()
}

/// The value of the sample with these labels; null when there is none.
fn sample<'a>(metrics: &'a Value, name: &str, labels: &[(&str, &str)]) -> &'a Value {
    let samples = metrics[name].as_array().unwrap();
    let fits = |sample: &&Value| labels.iter().all(|(label, value)| sample["labels"][label] == *value);
    samples.iter().find(fits).map_or(&Value::Null, |sample| &sample["value"])
}

/// Names of samples, as a reader of the text finds them.
fn read(text: &str) -> BTreeSet<String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/client/scrape.py");
    let mut command = Command::new(venv().join("bin/python"));
    command.arg("-B").arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told = String::from_utf8(output.stdout).unwrap();
    told.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn every_promised_name_is_told_in_both_forms_and_can_be_read() {
    let server = TestServer::start();
    upload(&server, "a", 0, &Noise::bytes(1, 10)).send().assert_status(200);
    let (told, json) = (read(&text(&server)), metrics(&server));
    for name in PROMISED {
        let name = format!("s3dedup_{name}");
        assert!(json.get(&name).is_some(), "{name} is not in {json}");
        // Of a histogram there are buckets; the reader gives every counter the usual ending.
        let is_told = ["", "_bucket", "_total"].iter().any(|ending| told.contains(&format!("{name}{ending}")));
        assert!(is_told, "{name} is not in {told:?}");
    }
    let answer = server.raw_request("GET", "/metrics").send();
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    server.raw_request("POST", "/metrics").send().assert_refused(405);
    server.raw_request("HEAD", "/metrics").send().assert_status(200);
}

#[test]
fn totals_and_ratios_are_those_of_what_is_stored() {
    let server = TestServer::start();
    let content = Noise::bytes(7, 2000);
    for name in ["a", "b", "c", "d"] {
        upload(&server, name, 0, &content).send().assert_status(200);
    }
    let now = eventually("totals are a second old at most", || {
        Some(metrics(&server)).filter(|now| now["s3dedup_total_files"] == 4.0)
    });
    let number = |name: &str| now[format!("s3dedup_{name}")].as_f64().unwrap();
    assert_eq!((number("total_blobs"), number("total_logical_size_bytes")), (1.0, 8000.0));
    assert_eq!((number("deduplication_ratio"), number("average_reference_count")), (0.75, 4.0));
    let stored = number("total_storage_bytes");
    assert!((2000.0..2300.0).contains(&stored));
    assert_eq!(number("deduplicated_bytes_saved"), 8000.0 - stored);
    assert!((number("storage_savings_ratio") - (1.0 - stored / 8000.0)).abs() < 1e-9);
    assert_eq!((number("dedup_hits_total"), number("dedup_misses_total")), (3.0, 1.0));
    assert_eq!(number("migration_active"), 0.0);

    server.request("GET", "/files/a").send().assert_status(200);
    let now = metrics(&server);
    assert_eq!(now["s3dedup_cache_hits_total"], 1, "it was stored just now");
    let route = [("method", "PUT"), ("endpoint", "/files/{path}"), ("status", "200")];
    assert_eq!(sample(&now, "s3dedup_http_requests_total", &route), 4);
    let times = sample(&now, "s3dedup_http_request_duration_seconds", &route[..2]);
    assert_eq!(times["count"], 4);
    let uploads = [("backend", "contents"), ("operation", "upload")];
    assert_eq!(sample(&now, "s3dedup_backend_request_duration_seconds", &uploads)["count"], 1);
    assert_eq!(sample(&now, "s3dedup_permits_max", &[("kind", "requests")]), 512.0);
}

#[test]
fn what_clients_make_up_makes_no_new_labels() {
    let server = TestServer::start();
    let hostile = ["/ft/files/x%0a%22", "/strange/here", "/ft/other", "/metrics/x", "/api/../x", "/ft/list/zzz"];
    for target in hostile {
        for method in ["GET", "BREW", "X-MADE-UP"] {
            let _ = server.raw_request(method, target).send();
        }
    }
    let told = text(&server);
    read(&told);
    for part in ["x%0a", "strange", "zzz", "BREW", "MADE-UP"] {
        assert!(!told.contains(part), "{part} is in {told}");
    }
    let now = metrics(&server);
    let samples = now["s3dedup_http_requests_total"].as_array().unwrap().iter();
    let endpoints: BTreeSet<_> = samples.map(|sample| sample["labels"]["endpoint"].as_str().unwrap()).collect();
    let known = ["/files/{path}", "/list/{path}", "/version", "/metrics", "/metrics/json", "other"];
    assert!(endpoints.iter().all(|endpoint| known.contains(endpoint)), "{endpoints:?}");
}

#[test]
fn without_its_database_a_server_tells_the_rest_and_no_totals() {
    let mut postgres = PostgresServer::start();
    let server = TestServer::builder().postgres(&postgres, DATABASE).start();
    upload(&server, "a", 0, &Noise::bytes(1, 10)).send().assert_status(200);
    let up = [("backend", "metadata")];
    assert_eq!(sample(&metrics(&server), "s3dedup_backend_up", &up), 1.0);
    postgres.stop();
    let now = eventually("the database is seen to be away", || {
        Some(metrics(&server)).filter(|now| sample(now, "s3dedup_backend_up", &up) == 0.0)
    });
    assert!(now.get("s3dedup_total_files").is_none() && now.get("s3dedup_deduplication_ratio").is_none(), "{now}");
    assert!(now["s3dedup_uptime_seconds"].as_f64().unwrap() > 0.0);
    read(&text(&server));
    server.raw_request("GET", "/api/stats").send().assert_refused(503);
    postgres.start_again();
    eventually("totals are back", || (metrics(&server)["s3dedup_total_files"] == 1.0).then_some(()));
}

#[test]
fn a_content_store_that_nobody_asks_is_seen_to_be_away_and_back() {
    let mut s3 = S3InProcess::start();
    let server = TestServer::builder().s3(&s3.access).start();
    let up = |expected: f64| {
        let now = metrics(&server);
        (sample(&now, "s3dedup_backend_up", &[("backend", "contents")]) == expected).then_some(())
    };
    let told = || {
        let answer = server.raw_request("GET", "/ready").send();
        let told: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(
            (answer.status == 200, &told["ready"] == true),
            (told["contents"] == "ok", told["contents"] == "ok")
        );
        told["contents"].clone()
    };
    eventually("the store is seen", || up(1.0));
    assert_eq!(told(), "ok");
    s3.stop();
    eventually("the store is seen to be away", || up(0.0));
    assert_ne!(told(), "ok");
    for (query, status) in
        [("contents=optional", 200), ("otherwise=404", 404), ("otherwise=404&contents=optional", 200)]
    {
        server.raw_request("GET", &format!("/ready?{query}")).send().assert_status(status);
    }
    s3.start_again();
    eventually("the store is seen again", || up(1.0));
    eventually("and said to be well", || (told() == "ok").then_some(()));
}

/// What only a server with TLS tells; its own test looks for it.
const OF_TLS: &str = "s3dedup_tls_certificate_expiry_timestamp_seconds";

/// Labels in braces behind a name, and those by which sums are made.
fn labels(text: &str) -> BTreeSet<&str> {
    let sums = text.split("by (").skip(1).filter_map(|rest| rest.split(')').next());
    let names = text.match_indices("s3dedup_").map(|(at, _)| &text[at..]);
    let behind = names.map(|rest| rest.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '_'));
    let braces = behind.filter_map(|rest| rest.strip_prefix('{')?.split('}').next());
    let found = sums.chain(braces).flat_map(|list| list.split(',')).filter_map(|pair| pair.split('=').next());
    found.map(str::trim).collect()
}

#[test]
fn dashboards_and_alerts_use_names_that_exist() {
    let server = TestServer::start();
    upload(&server, "a", 0, &Noise::bytes(1, 10)).send().assert_status(200);
    let shown = text(&server);
    let told = read(&shown);
    let mut known = labels(&shown);
    assert!(known.contains("endpoint") && known.contains("le"), "{known:?}");
    // Prometheus adds where a number came from.
    known.insert("instance");
    for file in ["grafana-dashboard.json", "alerts.yml"] {
        let path = format!("{}/compose/{file}", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(path).unwrap();
        if file.ends_with(".json") {
            serde_json::from_str::<Value>(&text).unwrap();
        }
        let mut used = BTreeSet::new();
        let parts = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        used.extend(parts.filter(|part| part.starts_with("s3dedup_")));
        assert!(used.len() > 10, "{file}");
        for name in used {
            let is_told = name == OF_TLS || told.contains(name) || told.contains(&format!("{name}_total"));
            assert!(is_told, "{file} uses {name}, which is not told");
        }
        for label in labels(&text) {
            assert!(known.contains(label), "{file} uses the label {label}, which is not told");
        }
    }
}
