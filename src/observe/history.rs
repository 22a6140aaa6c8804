//! Numbers over time, in memory: an hour by tens of seconds, a week by tens of minutes. A restart forgets them; for longer
//! there is Prometheus.

use std::collections::VecDeque;
use std::time::Duration;

use s3dedup_actors::Totals;
use s3dedup_actors::model::Stamp;

use super::traffic::Counted;

/// Points of the last hour.
const FINE_MAX: usize = 360;
/// Points of the last week.
const COARSE_MAX: usize = 1008;
/// So many points of the hour are one of the week.
const FINE_PER_COARSE: u64 = 60;

/// How far back to look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Range {
    /// A point every 10 seconds.
    Hour,
    /// A point every 10 minutes.
    Week,
}

/// One point.
#[derive(Clone, Copy, PartialEq, Default, Debug)]
pub struct Sample {
    /// When, in seconds.
    pub at: i64,
    /// Totals; `None` when the metadata store did not tell them.
    pub totals: Option<Totals>,
    /// Requests of clients a second, since the last point.
    pub requests: f64,
    /// Those of them that failed by 5xx.
    pub failures: f64,
    /// The time that half of them took at most, in seconds; `None` when there were none.
    pub half: Option<f64>,
    /// The time that 99 % of them took at most.
    pub most: Option<f64>,
}

impl Sample {
    pub(super) fn new(at: Stamp, totals: Option<Totals>, now: &Counted, before: &Counted, over: Duration) -> Self {
        let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / over.as_secs_f64().max(0.001);
        Self {
            at: at.seconds(),
            totals,
            requests: rate(now.requests, before.requests),
            failures: rate(now.failures, before.failures),
            half: now.quantile_since(before, 0.5),
            most: now.quantile_since(before, 0.99),
        }
    }
}

/// The points, a bounded number.
#[derive(Default)]
pub(super) struct History {
    fine: VecDeque<Sample>,
    coarse: VecDeque<Sample>,
    noted: u64,
    /// What the next point of the week is made of.
    sum: Sum,
}

#[derive(Default)]
struct Sum {
    points: u32,
    requests: f64,
    failures: f64,
    half: Option<f64>,
    most: Option<f64>,
}

impl Sum {
    /// Rates are averaged; of times the longest ones stay: what was bad for a moment is to be seen.
    fn add(&mut self, sample: &Sample) {
        self.points += 1;
        self.requests += sample.requests;
        self.failures += sample.failures;
        self.half = longer(self.half, sample.half);
        self.most = longer(self.most, sample.most);
    }
}

/// The longer of two times, as far as they are known.
fn longer(one: Option<f64>, other: Option<f64>) -> Option<f64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.max(other)),
        (one, other) => one.or(other),
    }
}

impl History {
    pub(super) fn note(&mut self, sample: Sample) {
        push(&mut self.fine, sample, FINE_MAX);
        self.sum.add(&sample);
        if self.noted.is_multiple_of(FINE_PER_COARSE) {
            let Sum { points, requests, failures, half, most } = std::mem::take(&mut self.sum);
            let points = f64::from(points.max(1));
            let (requests, failures) = (requests / points, failures / points);
            push(&mut self.coarse, Sample { requests, failures, half, most, ..sample }, COARSE_MAX);
        }
        self.noted += 1;
    }

    pub(super) fn samples(&self, range: Range) -> Vec<Sample> {
        match range {
            Range::Hour => self.fine.iter().copied().collect(),
            Range::Week => self.coarse.iter().copied().collect(),
        }
    }
}

fn push(ring: &mut VecDeque<Sample>, sample: Sample, max: usize) {
    if ring.len() == max {
        ring.pop_front();
    }
    ring.push_back(sample);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_bounded_and_a_bad_moment_stays_to_be_seen() {
        let mut history = History::default();
        for at in 0..200_000 {
            let most = Some(if at == 150_007 { 3.0 } else { 0.01 });
            history.note(Sample { at, requests: 2.0, most, ..Sample::default() });
        }
        let (hour, week) = (history.samples(Range::Hour), history.samples(Range::Week));
        assert_eq!((hour.len(), week.len()), (FINE_MAX, COARSE_MAX));
        assert_eq!((hour[0].at, hour[FINE_MAX - 1].at), (199_640, 199_999));
        assert_eq!(week.iter().filter(|sample| sample.most == Some(3.0)).count(), 1);
        assert!(week.iter().all(|sample| sample.requests == 2.0));
    }
}
