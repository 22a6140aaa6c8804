//! What the server knows of itself: the numbers behind `/metrics`, `/api/...` and the dashboard.
//!
//! Looking must not disturb: nothing here takes a request slot, and however many look, the metadata store is asked for its
//! totals once a second at most. What is not known is left out, never guessed.

pub mod families;
mod history;
mod shared;
pub mod shown;
mod traffic;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use s3dedup_actors::model::Stamp;
use s3dedup_actors::store::instances::InstanceRegistry;
use s3dedup_actors::store::meta::{MetaBrowser, MigrationJournal};
use s3dedup_actors::{Engine, Totals};
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};

pub use self::history::{Range, Sample};
pub use self::shared::Shared;
pub use self::traffic::Traffic;

use self::history::History;
use self::traffic::Counted;

/// How old totals may be that are shown.
const TOTALS_AGE_MAX: Duration = Duration::from_secs(1);
/// How long the metadata store may take for them.
const TOTALS_WAIT_MAX: Duration = Duration::from_secs(2);
/// How often the content store is asked whether it is there. With the time that an answer may take, and the second between
/// two looks of the dashboard, an outage is seen there within 10 s.
const PROBE_EVERY: Duration = Duration::from_secs(4);
/// The time between two points of the history.
const SAMPLE_EVERY: Duration = Duration::from_secs(10);

/// What does not change while the server runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Facts {
    /// This instance's name.
    pub instance: String,
    /// What paths of files begin with, such as `/ft`; empty for the root.
    pub prefix: String,
    /// Where the metadata are: "sqlite", "postgres".
    pub metadata: &'static str,
    /// Where the contents are: "filesystem", "s3".
    pub contents: &'static str,
    /// Where the locks are: "memory", "postgres".
    pub locks: &'static str,
    /// Whether this instance cleans from time to time.
    pub cleans: bool,
}

/// Watches the server. Clones are the same one.
#[derive(Clone)]
pub struct Observer(Arc<Inner>);

struct Inner {
    engine: Engine,
    facts: Facts,
    browser: Arc<dyn MetaBrowser>,
    journal: Arc<dyn MigrationJournal>,
    registry: Option<Arc<dyn InstanceRegistry>>,
    shared: Shared,
    begun: Instant,
    started_at: Stamp,
    traffic: Traffic,
    /// When they were asked for last, and the answer. Locked while they are asked for: others wait for the same answer.
    totals: tokio::sync::Mutex<Option<(Instant, Option<Totals>)>>,
    contents_up: Mutex<Option<bool>>,
    certificate_expiry: Mutex<Option<i64>>,
    history: Mutex<History>,
}

impl Observer {
    /// Watches this engine. `browser` and `journal` are its metadata store; `registry` knows the other instances, if there can
    /// be any.
    pub fn new(
        engine: Engine,
        facts: Facts,
        browser: Arc<dyn MetaBrowser>,
        journal: Arc<dyn MigrationJournal>,
        registry: Option<Arc<dyn InstanceRegistry>>,
    ) -> Self {
        Self(Arc::new(Inner {
            engine,
            facts,
            shared: Shared::new(Arc::clone(&browser)),
            browser,
            journal,
            registry,
            begun: Instant::now(),
            started_at: Stamp::now(),
            traffic: Traffic::default(),
            totals: tokio::sync::Mutex::default(),
            contents_up: Mutex::default(),
            certificate_expiry: Mutex::default(),
            history: Mutex::default(),
        }))
    }

    /// What is watched.
    pub fn engine(&self) -> &Engine {
        &self.0.engine
    }

    /// What does not change.
    pub fn facts(&self) -> &Facts {
        &self.0.facts
    }

    /// The metadata store, for people who look around.
    pub fn browser(&self) -> &dyn MetaBrowser {
        self.0.browser.as_ref()
    }

    /// What is noted of migrations.
    pub fn journal(&self) -> &dyn MigrationJournal {
        self.0.journal.as_ref()
    }

    /// The most shared contents.
    pub fn shared(&self) -> &Shared {
        &self.0.shared
    }

    /// The list of instances, where there can be several.
    pub fn registry(&self) -> Option<&Arc<dyn InstanceRegistry>> {
        self.0.registry.as_ref()
    }

    /// Where requests are counted.
    pub fn traffic(&self) -> &Traffic {
        &self.0.traffic
    }

    /// For how long the server has been running.
    pub fn uptime(&self) -> Duration {
        self.0.begun.elapsed()
    }

    /// When it started.
    pub fn started_at(&self) -> Stamp {
        self.0.started_at
    }

    /// Totals over everything, a second old at most; `None` when the metadata store does not tell them.
    pub async fn totals(&self) -> Option<Totals> {
        let mut known = self.0.totals.lock().await;
        if let Some((asked, answer)) = *known
            && asked.elapsed() < TOTALS_AGE_MAX
        {
            return answer;
        }
        let answer = timeout(TOTALS_WAIT_MAX, self.0.engine.totals()).await;
        let answer = answer.ok().and_then(|totals| totals.inspect_err(|error| log::debug!("no totals: {error}")).ok());
        *known = Some((Instant::now(), answer));
        answer
    }

    /// Whether the content store answered when it was last asked; `None` before that.
    pub fn is_contents_up(&self) -> Option<bool> {
        *self.0.contents_up.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the certificate of this server ends, in seconds since 1970, if it has one.
    pub fn certificate_expiry(&self) -> Option<i64> {
        *self.0.certificate_expiry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes when it ends.
    pub fn set_certificate_expiry(&self, expiry: Option<i64>) {
        *self.0.certificate_expiry.lock().unwrap_or_else(PoisonError::into_inner) = expiry;
    }

    /// What was noted over time, oldest first.
    pub fn history(&self, range: Range) -> Vec<Sample> {
        self.0.history.lock().unwrap_or_else(PoisonError::into_inner).samples(range)
    }

    /// Looks at the stores and notes numbers, for as long as the server runs.
    pub async fn watch(self) {
        // Neither waits for the other: a store that does not answer is no reason to look at the other one later.
        tokio::join!(self.probe(), self.sample());
    }

    async fn probe(&self) {
        let mut ticks = ticks(PROBE_EVERY);
        loop {
            ticks.tick().await;
            let outcome = self.0.engine.probe_contents().await;
            self.note_contents(outcome.as_ref().err().map(|error| error as &dyn std::fmt::Display));
        }
    }

    async fn sample(&self) {
        let mut ticks = ticks(SAMPLE_EVERY);
        let (mut counted, mut last) = (Counted::default(), Instant::now());
        loop {
            ticks.tick().await;
            let totals = self.totals().await;
            let now = self.0.traffic.counted();
            let sample = Sample::new(Stamp::now(), totals, &now, &counted, last.elapsed());
            (counted, last) = (now, Instant::now());
            self.0.history.lock().unwrap_or_else(PoisonError::into_inner).note(sample);
        }
    }

    fn note_contents(&self, trouble: Option<&dyn std::fmt::Display>) {
        let mut contents_up = self.0.contents_up.lock().unwrap_or_else(PoisonError::into_inner);
        let was_up = contents_up.replace(trouble.is_none());
        match trouble {
            Some(trouble) if was_up != Some(false) => {
                log::warn!("the content store does not answer a look error=\"{trouble}\"");
            }
            None if was_up == Some(false) => log::info!("the content store answers again"),
            _ => {}
        }
    }
}

fn ticks(every: Duration) -> Interval {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
