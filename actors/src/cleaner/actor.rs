//! Cleaning from time to time.

use std::sync::Arc;
use std::time::Duration;

use actix::fut::wrap_future;
use actix::{Actor, ActorFutureExt, AsyncContext, Context, Supervised};

use super::{CleanOptions, CleanReport, Cleaner, CleanerLimits, CleanerStats, Schedule};
use crate::failpoint::{self, Point};
use crate::model::{Result, Stamp};
use crate::runtime::guard::{Vital, can_be_rebuilt};
use crate::store::blob::BlobStore;
use crate::store::meta::MetaStore;

/// Whose turn it is to clean periodically: the same instance's, as long as it is there. The runs themselves, and those of
/// the command line, exclude each other by [`super::TASK`].
const TURN: &str = "cleaner";
/// How long the others wait for an instance that has the turn and is gone.
const TURN_TERM: Duration = Duration::from_secs(30);
/// When the instance that has the turn says so again.
const KEEP_TURN_EVERY: Duration = Duration::from_secs(10);
/// The first run waits for this long at most: servers that are started have other things to do.
const FIRST_WAIT_MAX: Duration = Duration::from_secs(60);
/// Until the next try when the schedule has no next time.
const FAR: Duration = Duration::from_secs(24 * 3600);

/// The periodic cleaner.
#[derive(Clone, Debug)]
pub struct CleanerSettings {
    /// The pause between runs.
    pub interval: Duration,
    /// When a run also compares the stores; never without.
    pub full_scan: Option<Schedule>,
    /// How much a run may do.
    pub limits: CleanerLimits,
}

/// All that the actor needs.
#[derive(Clone)]
pub struct CleanerPlan {
    cleaner: Cleaner,
    metadata: Arc<dyn MetaStore>,
    instance: String,
    interval: Duration,
    full_scan: Option<Schedule>,
    stats: CleanerStats,
}

impl CleanerPlan {
    pub fn new(
        settings: &CleanerSettings,
        instance: &str,
        metadata: Arc<dyn MetaStore>,
        contents: Arc<dyn BlobStore>,
        stats: CleanerStats,
    ) -> Self {
        let cleaner = Cleaner::new(Arc::clone(&metadata), contents, settings.limits, instance.to_owned());
        let (interval, full_scan) = (settings.interval, settings.full_scan.clone());
        Self { cleaner, metadata, instance: instance.to_owned(), interval, full_scan, stats }
    }

    /// Lets no further batch begin, waits for the one that is under way, and gives the turn to others.
    pub async fn stop(&self) {
        self.cleaner.stop();
        while self.stats.is_running() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        if self.stats.is_leader() {
            // The others notice by themselves, a little later.
            let _ = self.metadata.lead(TURN, &self.instance, Duration::ZERO).await;
        }
    }

    /// Takes the turn, or keeps it.
    async fn take_turn(&self) -> Result<bool> {
        let is_leader = self.metadata.lead(TURN, &self.instance, TURN_TERM).await?;
        self.stats.set_leader(is_leader);
        Ok(is_leader)
    }

    /// A run, unless it is another instance's turn or somebody else cleans.
    async fn run(self, full_scan: bool) -> Result<Option<CleanReport>> {
        let is_leader = self.take_turn().await?;
        if !is_leader || self.cleaner.is_stopped() {
            return Ok(None);
        }
        Ok(self.cleaner.run(CleanOptions { full_scan, ..CleanOptions::default() }).await)
    }
}

/// Runs the cleaner again and again, never two runs at once.
pub struct CleanerActor {
    vital: Vital,
    plan: CleanerPlan,
    is_running: bool,
    /// A full scan became due during a run.
    is_scan_due: bool,
}

impl CleanerActor {
    /// A cleaner that begins by itself.
    pub fn new(vital: Vital, plan: CleanerPlan) -> Self {
        Self { vital, plan, is_running: false, is_scan_due: false }
    }

    fn tick(&mut self, context: &mut Context<Self>) {
        let vital = self.vital.clone();
        // What it panicked about is in the log; the supervisor makes a new actor.
        let _ = vital.guard_state(self, context, |actor, context| {
            match failpoint::hit_blocking(Point::CleanAtTick) {
                Ok(()) => actor.run(context, false),
                Err(error) => log::warn!("this run of the cleaner is left out error=\"{error}\""),
            }
            context.run_later(actor.plan.interval, Self::tick);
        });
    }

    /// Whoever has the turn keeps it from run to run.
    fn keep_turn(&mut self, context: &mut Context<Self>) {
        if !self.plan.stats.is_leader() || self.plan.cleaner.is_stopped() {
            return;
        }
        let plan = self.plan.clone();
        let kept = self.vital.clone().guard_work(async move { plan.take_turn().await });
        context.spawn(wrap_future(kept).map(|kept, _: &mut Self, _| match kept {
            Ok(true) => {}
            Ok(false) => log::info!("another instance cleans from now on"),
            Err(error) => log::debug!("the turn could not be kept error=\"{error}\""),
        }));
    }

    fn wait_for_scan(&mut self, context: &mut Context<Self>) {
        let Some(schedule) = &self.plan.full_scan else { return };
        match schedule.wait_from(Stamp::now()) {
            Some(wait) if wait <= FAR => context.run_later(wait, |actor, context| {
                actor.run(context, true);
                actor.wait_for_scan(context);
            }),
            // Clocks are set: a long wait is taken in pieces.
            _ => context.run_later(FAR, Self::wait_for_scan),
        };
    }

    fn run(&mut self, context: &mut Context<Self>, full_scan: bool) {
        if std::mem::replace(&mut self.is_running, true) {
            self.is_scan_due |= full_scan;
            return;
        }
        self.plan.stats.set_running(true);
        let ran = self.vital.clone().guard_work(self.plan.clone().run(full_scan));
        let ended = |outcome, actor: &mut Self, context: &mut Context<Self>| {
            let vital = actor.vital.clone();
            // What it panicked about is in the log; the supervisor makes a new actor.
            let _ = vital.guard_state(actor, context, |actor, context| actor.ended(outcome, context));
        };
        context.spawn(wrap_future(ran).map(ended));
    }

    fn ended(&mut self, outcome: Result<Option<CleanReport>>, context: &mut Context<Self>) {
        self.is_running = false;
        self.plan.stats.set_running(false);
        match outcome {
            Ok(Some(report)) => {
                self.plan.stats.add(&report);
                if let Some(error) = &report.first_error {
                    self.vital.work_failed(error);
                }
                tell(&report);
            }
            Ok(None) => log::debug!("another instance cleans"),
            Err(error) => {
                self.plan.stats.add_error();
                self.vital.work_failed(&error);
                log::warn!("cleaning failed, it is tried again later error=\"{error}\"");
            }
        }
        if std::mem::take(&mut self.is_scan_due) {
            self.run(context, true);
        }
    }
}

/// One line for what was done, one for what went wrong, one for what the scan found.
fn tell(report: &CleanReport) {
    let deleted = report.deleted();
    if deleted > 0 || report.parts.done > 0 {
        log::info!(
            "cleaned deleted={deleted} freed_bytes={} unused={} abandoned_uploads={} condemned_before={} parts={} partial={}",
            report.freed_bytes(),
            report.unused.done,
            report.intents.done,
            report.condemned.done,
            report.parts.done,
            report.is_partial
        );
    }
    if let Some(error) = &report.first_error {
        let (errors, kept) = (report.errors, report.kept);
        log::warn!("cleaning went wrong, the rest is done later errors={errors} kept={kept} error=\"{error}\"");
    }
    let Some(scan) = &report.scan else { return };
    let (missing, wrong_size, unreadable, orphans) = (&scan.missing, &scan.wrong_size, &scan.unreadable, &scan.orphans);
    log::info!(
        "full scan objects={} contents={} orphans={} orphan_bytes={} missing={} wrong_size={} unreadable_rows={} strangers={}",
        scan.objects,
        scan.contents,
        orphans.count,
        orphans.bytes,
        missing.count,
        wrong_size.count,
        unreadable.count,
        scan.strangers.count
    );
    if unreadable.count > 0 {
        log::error!("rows of contents cannot be read: run s3dedup verify first=\"{}\"", unreadable.first.join("; "));
    }
    if missing.count + wrong_size.count > 0 {
        let names: Vec<_> = missing.first.iter().chain(&wrong_size.first).map(String::as_str).collect();
        log::error!("contents are missing or have the wrong size first={}", names.join(","));
    }
}

impl Actor for CleanerActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.run_later(self.plan.interval.min(FIRST_WAIT_MAX), Self::tick);
        self.wait_for_scan(context);
        context.run_interval(KEEP_TURN_EVERY, Self::keep_turn);
    }
}

impl Supervised for CleanerActor {
    fn restarting(&mut self, context: &mut Self::Context) {
        self.plan.stats.set_running(false);
        *self = Self::new(self.vital.clone(), self.plan.clone());
        self.vital.clone().restarted(context);
    }
}

can_be_rebuilt!(CleanerActor, |actor| &actor.vital);
