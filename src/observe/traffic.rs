//! Requests, counted by what they were and what came of them.

use std::time::Duration;

use actix_web::http::{Method, StatusCode};
use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts};

/// Upper bounds of the classes that times are counted in, in seconds.
const BOUNDS: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// What clients of a protocol ask for; the rest is asked by those who look after the server.
const PROTOCOL: [&str; 3] = ["/files/{path}", "/list/{path}", "/version"];

/// The counters. Labels have few values whatever is sent: routes, not paths, and methods that are known.
pub struct Traffic {
    requests: IntCounterVec,
    seconds: HistogramVec,
}

impl Default for Traffic {
    #[expect(clippy::expect_used, reason = "names and labels are constants, and a test makes them")]
    fn default() -> Self {
        let labels = ["method", "endpoint", "status"];
        let help = "Requests that were answered.";
        let requests = IntCounterVec::new(Opts::new("s3dedup_http_requests_total", help), &labels);
        let help = "Time until the answer began, the body of the request included, in seconds.";
        let options = HistogramOpts::new("s3dedup_http_request_duration_seconds", help).buckets(BOUNDS.to_vec());
        let seconds = HistogramVec::new(options, &labels[..2]);
        Self { requests: requests.expect("a valid name"), seconds: seconds.expect("a valid name") }
    }
}

impl Traffic {
    /// Counts a request to the route `endpoint`.
    pub fn note(&self, method: &Method, endpoint: &'static str, status: StatusCode, took: Duration) {
        let method = known(method);
        self.requests.with_label_values(&[method, endpoint, status.as_str()]).inc();
        self.seconds.with_label_values(&[method, endpoint]).observe(took.as_secs_f64());
    }

    /// Counts what was no request and was refused.
    pub fn note_refused(&self, status: StatusCode) {
        self.requests.with_label_values(&["other", "other", status.as_str()]).inc();
    }

    /// All counters.
    pub(super) fn families(&self) -> Vec<MetricFamily> {
        let mut families = self.requests.collect();
        families.extend(self.seconds.collect());
        families
    }

    /// What clients of a protocol asked since the start.
    pub(super) fn counted(&self) -> Counted {
        let mut counted = Counted::default();
        for family in self.requests.collect() {
            for metric in family.get_metric() {
                let label = |name| metric.get_label().iter().find(|label| label.name() == name).map(|it| it.value());
                if label("endpoint").is_some_and(|endpoint| PROTOCOL.contains(&endpoint)) {
                    let count = metric.get_counter().get_value() as u64;
                    counted.requests += count;
                    counted.failures += if label("status").is_some_and(|it| it.starts_with('5')) { count } else { 0 };
                }
            }
        }
        for family in self.seconds.collect() {
            for metric in family.get_metric() {
                let is_protocol = metric.get_label().iter().any(|label| PROTOCOL.contains(&label.value()));
                for (sum, bucket) in counted.cumulative.iter_mut().zip(metric.get_histogram().get_bucket()) {
                    *sum += if is_protocol { bucket.cumulative_count() } else { 0 };
                }
            }
        }
        counted
    }
}

/// Requests of a protocol up to some moment.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Counted {
    pub(super) requests: u64,
    /// Those that were answered by 5xx.
    pub(super) failures: u64,
    /// For each bound those that took so long at most.
    cumulative: [u64; BOUNDS.len()],
}

impl Counted {
    /// The time that a share of the requests since `before` took at most, in seconds; `None` when there were none.
    /// Between two bounds they are taken to be spread evenly.
    pub(super) fn quantile_since(&self, before: &Self, share: f64) -> Option<f64> {
        let count = self.requests.saturating_sub(before.requests);
        if count == 0 {
            return None;
        }
        let wanted = share * count as f64;
        let (mut below, mut from) = (0, 0.0);
        for (at, bound) in BOUNDS.into_iter().enumerate() {
            let upto = self.cumulative[at].saturating_sub(before.cumulative[at]);
            if upto as f64 >= wanted && upto > below {
                let part = (wanted - below as f64) / (upto - below) as f64;
                return Some(from + (bound - from) * part.clamp(0.0, 1.0));
            }
            (below, from) = (upto, bound);
        }
        BOUNDS.last().copied()
    }
}

/// A method by its name, or `other`: clients may make up as many as they like.
fn known(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        "POST" => "POST",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_up_methods_share_one_label() {
        let traffic = Traffic::default();
        for name in ["BREW", "COFFEE"] {
            let method = Method::from_bytes(name.as_bytes()).unwrap();
            traffic.note(&method, "/files/{path}", StatusCode::METHOD_NOT_ALLOWED, Duration::ZERO);
        }
        let requests = &traffic.families()[0];
        assert_eq!(requests.get_metric().len(), 1);
        assert_eq!(requests.get_metric()[0].get_counter().get_value(), 2.0);
    }

    #[test]
    fn quantiles_are_those_of_the_time_since() {
        let traffic = Traffic::default();
        let ask = |millis, endpoint| {
            traffic.note(&Method::GET, endpoint, StatusCode::OK, Duration::from_millis(millis));
        };
        (0..50).for_each(|_| ask(4000, "/files/{path}"));
        let before = traffic.counted();
        assert_eq!(before.quantile_since(&before, 0.5), None);
        (0..99).for_each(|_| ask(4, "/files/{path}"));
        ask(900, "/files/{path}");
        (0..500).for_each(|_| ask(1, "/metrics"));
        let now = traffic.counted();
        assert_eq!((now.requests, now.failures), (150, 0));
        let (half, most) = (now.quantile_since(&before, 0.5).unwrap(), now.quantile_since(&before, 0.999).unwrap());
        assert!((0.0025..0.005).contains(&half) && (0.5..=1.0).contains(&most), "{half} {most}");
    }
}
