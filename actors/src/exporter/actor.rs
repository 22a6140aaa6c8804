//! Exporting again and again.

use std::sync::Arc;
use std::time::Duration;

use actix::fut::wrap_future;
use actix::{Actor, ActorFutureExt, AsyncContext, Context, Supervised};
use tokio::time::timeout;

use super::file::Draft;
use super::{ExporterSettings, ExporterStats};
use crate::backup::export_to;
use crate::model::{Error, Kind, Result, Stamp};
use crate::runtime::guard::{Vital, can_be_rebuilt};
use crate::store::blocking::BlockingPool;
use crate::store::meta::MetaCare;

/// Whose turn it is to export.
const TURN: &str = "export";
/// The first export waits for this long at most: servers that are started have other things to do.
const FIRST_WAIT_MAX: Duration = Duration::from_secs(60);
/// A disk that takes longer for a page of names does not answer.
const WRITE_MAX: Duration = Duration::from_secs(60);

/// All that the actor needs.
#[derive(Clone)]
pub struct ExporterPlan {
    settings: ExporterSettings,
    metadata: Arc<dyn MetaCare>,
    instance: String,
    disk: BlockingPool,
    stats: ExporterStats,
}

impl ExporterPlan {
    pub fn new(
        settings: ExporterSettings,
        instance: &str,
        metadata: Arc<dyn MetaCare>,
        stats: ExporterStats,
    ) -> Result<Self> {
        let disk = BlockingPool::start("export-write", 1, 1)
            .map_err(|error| Error::new(Kind::Internal, "can't start threads").with_source(error))?;
        Ok(Self { settings, metadata, instance: instance.to_owned(), disk, stats })
    }

    /// Gives the turn to others, at the end of the process.
    pub async fn stop(&self) {
        if self.stats.is_leader() {
            // The others notice by themselves, a little later.
            let _ = self.metadata.lead(TURN, &self.instance, Duration::ZERO).await;
        }
    }

    /// An export, unless it is another instance's turn; returns the number of names.
    async fn run(self) -> Result<Option<u64>> {
        // Longer than the pause, so that the turn stays; not much longer, so that a dead one is followed soon.
        let term = self.settings.interval * 2 + Duration::from_secs(60);
        let is_leader = self.metadata.lead(TURN, &self.instance, term).await?;
        self.stats.set_leader(is_leader);
        if !is_leader {
            return Ok(None);
        }
        let (path, keep) = (self.settings.path.clone(), self.settings.keep);
        let mut draft = Some(self.disk(move || Draft::begin(&path, keep, Stamp::now())).await?);
        let names = export_to(self.metadata.as_ref(), async |lines| {
            let Some(mut file) = draft.take() else { return Err(Error::new(Kind::Internal, "an export went on")) };
            let written = self.disk(move || file.write(&lines).map(|()| file)).await?;
            draft = Some(written);
            Ok(())
        });
        let names = names.await?;
        let Some(file) = draft else { return Err(Error::new(Kind::Internal, "an export came to no end")) };
        let path = self.disk(move || file.finish(names)).await?;
        log::info!("exported names={names} file={}", path.display());
        Ok(Some(names))
    }

    /// Work that may block, on the one thread for it. When that does not come back, no further export begins.
    async fn disk<T: Send + 'static>(&self, work: impl FnOnce() -> std::io::Result<T> + Send + 'static) -> Result<T> {
        let late = |_| Error::new(Kind::Unavailable, "the disk of the export does not answer");
        let done = timeout(WRITE_MAX, self.disk.try_run(move |_| work())).await.map_err(late)??;
        done.map_err(|error| Error::io("can't write the export", error))
    }
}

/// Runs the exporter again and again, never two at once.
pub struct ExporterActor {
    vital: Vital,
    plan: ExporterPlan,
    is_running: bool,
}

impl ExporterActor {
    /// An exporter that begins by itself.
    pub fn new(vital: Vital, plan: ExporterPlan) -> Self {
        Self { vital, plan, is_running: false }
    }

    fn tick(&mut self, context: &mut Context<Self>) {
        context.run_later(self.plan.settings.interval, Self::tick);
        if std::mem::replace(&mut self.is_running, true) {
            return;
        }
        self.plan.stats.set_running(true);
        let ran = self.vital.clone().guard_work(self.plan.clone().run());
        let ended = |outcome, actor: &mut Self, context: &mut Context<Self>| {
            let vital = actor.vital.clone();
            // What it panicked about is in the log; the supervisor makes a new actor.
            let _ = vital.guard_state(actor, context, |actor, _| actor.ended(outcome));
        };
        context.spawn(wrap_future(ran).map(ended));
    }

    fn ended(&mut self, outcome: Result<Option<u64>>) {
        self.is_running = false;
        self.plan.stats.set_running(false);
        match outcome {
            Ok(Some(names)) => self.plan.stats.succeeded(names),
            Ok(None) => log::debug!("another instance exports"),
            Err(error) => {
                log::error!("an export failed, it is tried again later error=\"{error}\"");
                self.plan.stats.failed(error.to_string());
            }
        }
    }
}

impl Actor for ExporterActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.run_later(self.plan.settings.interval.min(FIRST_WAIT_MAX), Self::tick);
    }
}

impl Supervised for ExporterActor {
    fn restarting(&mut self, context: &mut Self::Context) {
        self.plan.stats.set_running(false);
        *self = Self::new(self.vital.clone(), self.plan.clone());
        self.vital.clone().restarted(context);
    }
}

can_be_rebuilt!(ExporterActor, |actor| &actor.vital);
