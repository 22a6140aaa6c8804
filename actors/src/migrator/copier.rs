//! A migration from its first name to its last.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use futures_util::{FutureExt, Stream, StreamExt, stream};
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use super::MigrationPlan;
use super::listing::Listed;
use super::patience::{Patience, Pauses, Stopped};
use super::progress::{MigrationPhase, MigrationProgress};
use super::source::Source;
use crate::engine::Engine;
use crate::model::{Error, Kind, Result};
use crate::store::meta::{Fate, Migration, MigrationId, MigrationJournal, MigrationState};

/// Names that one transaction notes or reads.
pub(super) const BATCH: usize = 500;
/// Files in flight for each that is fetched: most of the time small ones wait for disks, and they share syncs.
const IN_FLIGHT_PER_TURN: usize = 6;
/// Settled names are noted at least this often.
const NOTE_EVERY: Duration = Duration::from_secs(1);
/// Files in flight that may still end when the migration is told to stop.
const END_MAX: Duration = Duration::from_secs(5);
/// How long a migration is somebody's without being renewed.
pub const TERM: Duration = Duration::from_secs(60);
/// How often it is renewed.
const RENEW_EVERY: Duration = Duration::from_secs(15);

/// How a run ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ended {
    /// All names were dealt with.
    Done(Migration),
    /// It was told to stop, and goes on when it is run again.
    Stopped,
    /// Somebody else who shares the database is at it.
    Busy,
}

/// Runs a migration. Clones are the same one.
#[derive(Clone)]
pub struct Copier(Arc<Inner>);

struct Inner {
    engine: Engine,
    journal: Arc<dyn MigrationJournal>,
    plan: MigrationPlan,
    progress: MigrationProgress,
    patience: Patience,
    running: watch::Sender<bool>,
    /// Files that are fetched at once.
    turns: Semaphore,
}

/// A run is under way as long as this is there, however it ends.
struct Running<'a>(&'a watch::Sender<bool>);

impl<'a> Running<'a> {
    fn enter(running: &'a watch::Sender<bool>) -> Self {
        running.send_replace(true);
        Self(running)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.send_replace(false);
    }
}

/// Why a run ended early.
pub(super) enum Cut {
    Stopped,
    Busy,
    Failed(Error),
}

impl From<Stopped> for Cut {
    fn from(_: Stopped) -> Self {
        Self::Stopped
    }
}

impl From<Error> for Cut {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl Copier {
    /// A migration into the store behind `engine`; `journal` is that store's.
    pub fn new(engine: Engine, journal: Arc<dyn MigrationJournal>, plan: MigrationPlan) -> Self {
        let progress = MigrationProgress::new(plan.source.kind(), plan.source.place());
        let patience = Patience::new(progress.clone());
        let running = watch::Sender::new(false);
        let turns = Semaphore::new(plan.concurrency.max(1));
        Self(Arc::new(Inner { engine, journal, plan, progress, patience, running, turns }))
    }

    /// How far it is.
    pub fn progress(&self) -> &MigrationProgress {
        &self.0.progress
    }

    /// The number that it is noted under, once it has begun.
    pub fn id(&self) -> Option<MigrationId> {
        self.progress().snapshot().id
    }

    /// Tells a run to end: files in flight are given a few seconds. There is no way back.
    pub fn stop(&self) {
        self.0.patience.stop();
    }

    /// Whether it was told to end.
    pub fn is_stopped(&self) -> bool {
        self.0.patience.is_stopped()
    }

    /// Ready when no run is under way.
    pub async fn ended(&self) {
        let is_over = |running: &bool| !running;
        // The sender is in `self`.
        let _ = self.0.running.subscribe().wait_for(is_over).await;
    }

    pub(super) fn engine(&self) -> &Engine {
        &self.0.engine
    }

    pub(super) fn journal(&self) -> &dyn MigrationJournal {
        self.0.journal.as_ref()
    }

    pub(super) fn source(&self) -> &dyn Source {
        self.0.plan.source.as_ref()
    }

    pub(super) fn patience(&self) -> &Patience {
        &self.0.patience
    }

    /// Waits for a turn at the source.
    pub(super) async fn turn(&self) -> Result<SemaphorePermit<'_>> {
        let closed = |_| Error::new(Kind::Internal, "internal error");
        self.0.turns.acquire().await.map_err(closed)
    }

    /// Whether this store can take files.
    pub(super) async fn expect_ready(&self) -> Result<()> {
        let readiness = self.engine().readiness().await;
        match readiness.metadata.or(readiness.contents).or(readiness.actors) {
            None => Ok(()),
            Some(why) => Err(Error::new(Kind::Unavailable, why)),
        }
    }

    /// Goes on with the unfinished migration from the source, or begins one. Errors are what waiting does not help against.
    pub async fn run(&self) -> Result<Ended> {
        let _running = Running::enter(&self.0.running);
        let ended = match self.migrate().await {
            Ok(done) => Ok(Ended::Done(done)),
            Err(Cut::Stopped) => Ok(Ended::Stopped),
            Err(Cut::Busy) => Ok(Ended::Busy),
            Err(Cut::Failed(error)) => Err(error),
        };
        self.progress().enter(match &ended {
            Ok(Ended::Done(_)) => MigrationPhase::Done,
            Ok(Ended::Stopped) => MigrationPhase::Stopped,
            Ok(Ended::Busy) => MigrationPhase::Waiting,
            Err(_) => MigrationPhase::Failed,
        });
        ended
    }

    async fn migrate(&self) -> Result<Migration, Cut> {
        let (journal, source) = (&self.0.journal, self.source());
        let begin = async || journal.begin_migration(source.kind(), source.place()).await;
        let migration = self.patience().insist("the database", begin).await??;
        let id = migration.id;
        self.progress().noted_as(id);
        let task = format!("migration {}", id.0);
        let holder = &self.0.plan.holder;
        let lead = async |term| journal.lead(&task, holder, term).await;
        if !self.patience().insist("the database", async || lead(TERM).await).await?? {
            return Err(Cut::Busy);
        }
        let renewed = async {
            let mut renewals = interval_at(Instant::now() + RENEW_EVERY, RENEW_EVERY);
            loop {
                renewals.tick().await;
                // Nobody takes it while the database does not answer.
                if let Ok(false) = lead(TERM).await {
                    break;
                }
            }
        };
        let outcome = tokio::select! {
            outcome = self.steps(migration) => outcome,
            () = renewed => Err(Cut::Busy),
        };
        if !matches!(outcome, Err(Cut::Busy)) {
            // Whoever comes next need not wait; it can do so, too.
            let _ = lead(Duration::ZERO).await;
        }
        outcome
    }

    async fn steps(&self, migration: Migration) -> Result<Migration, Cut> {
        let (journal, id) = (&self.0.journal, migration.id);
        let is_resumed = migration.state == MigrationState::Copying || migration.counts.total > 0;
        self.progress().resume(&migration, is_resumed);
        if is_resumed {
            let (state, counts) = (migration.state.as_str(), migration.counts);
            log::info!("the migration goes on state={state} names={} settled={}", counts.total, counts.settled());
        }
        while self.patience().insist("the database", async || journal.forget_former(id).await).await?? {}
        if migration.state == MigrationState::Listing {
            log::info!("names are listed source={:?}", migration.source);
            let mut pauses = Pauses::new();
            loop {
                self.progress().enter(MigrationPhase::Listing);
                if self.list(id, &mut pauses).await? == Listed::All {
                    break;
                }
                let noted = self.noted(id).await?;
                self.progress().resume(&noted, is_resumed);
                // What it named need not wait for what it did not.
                self.progress().enter(MigrationPhase::Copying);
                self.copy(id).await?;
            }
            self.patience().insist("the database", async || journal.end_listing(id).await).await??;
            let noted = self.noted(id).await?;
            self.progress().resume(&noted, is_resumed);
            log::info!("all names are known names={}", noted.counts.total);
        }
        self.progress().enter(MigrationPhase::Copying);
        self.copy(id).await?;
        self.patience().insist("the database", async || journal.end_migration(id).await).await??;
        self.noted(id).await
    }

    async fn noted(&self, id: MigrationId) -> Result<Migration, Cut> {
        let noted = self.patience().insist("the database", async || self.0.journal.migration(id).await).await??;
        noted.ok_or_else(|| Error::new(Kind::Corrupt, "the migration is gone from the database").into())
    }

    async fn copy(&self, id: MigrationId) -> Result<(), Cut> {
        let mut notes = Notes { copier: self, id, waiting: Vec::new(), under_way: None };
        let outcome = self.settle_all(id, &mut notes).await;
        // No file is in flight any more that could keep a connection to the database.
        notes.finish().await?;
        outcome
    }

    /// Settles the pending names; what came of them is in `notes`, or noted already.
    async fn settle_all(&self, id: MigrationId, notes: &mut Notes<'_>) -> Result<(), Cut> {
        let settled = self.pending(id).map(|name| async {
            let name = name?;
            let fate = self.settle(&name).await?;
            Ok::<_, Cut>((name, fate))
        });
        let settled = settled.buffer_unordered(self.0.plan.concurrency.max(1) * IN_FLIGHT_PER_TURN);
        let mut settled = std::pin::pin!(settled);
        let mut note = interval_at(Instant::now() + NOTE_EVERY, NOTE_EVERY);
        note.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let outcome = loop {
            // Files in flight go on while names are noted: one that is not looked after may keep the very connection that
            // the noting waits for.
            tokio::select! {
                next = settled.next() => match next {
                    None => break Ok(()),
                    Some(Ok((name, fate))) => {
                        self.progress().settled(&fate);
                        notes.waiting.push((name, fate));
                        if notes.waiting.len() >= BATCH {
                            notes.begin();
                        }
                    }
                    Some(Err(cut)) => break Err(cut),
                },
                noted = notes.noted() => noted?,
                _ = note.tick() => notes.begin(),
            }
        };
        if let Err(Cut::Stopped) = outcome {
            let rest = async {
                loop {
                    tokio::select! {
                        next = settled.next() => match next {
                            Some(next) => notes.waiting.extend(next.ok()),
                            None => break,
                        },
                        _ = notes.noted() => {}
                    }
                }
            };
            if timeout(END_MAX, rest).await.is_err() {
                log::info!("files in flight are cut off; they are copied when the migration goes on");
            }
        }
        outcome
    }

    /// Names that are pending, until told to stop.
    fn pending(&self, id: MigrationId) -> impl Stream<Item = Result<String, Cut>> {
        let pages = stream::try_unfold(None, move |after: Option<String>| async move {
            if self.patience().is_stopped() {
                return Err(Cut::Stopped);
            }
            let page = async || self.0.journal.pending_names(id, after.clone(), BATCH).await;
            let page = self.patience().insist("the database", page).await??;
            let last = page.last().cloned();
            Ok(last.map(|last| (page, Some(last))))
        });
        pages.flat_map(move |page| match page {
            Ok(names) => {
                let names = names
                    .into_iter()
                    .map(move |name| if self.patience().is_stopped() { Err(Cut::Stopped) } else { Ok(name) });
                stream::iter(names).left_stream()
            }
            Err(cut) => stream::iter([Err(cut)]).right_stream(),
        })
    }

    /// Notes what was settled; names that are noted twice count once.
    async fn note(&self, id: MigrationId, settled: Vec<(String, Fate)>) -> Result<(), Cut> {
        if self.patience().is_stopped() {
            // One attempt: what is not noted is looked at again.
            let _ = self.0.journal.settle_names(id, settled).await;
            return Ok(());
        }
        let note = async || self.0.journal.settle_names(id, settled.clone()).await;
        self.patience().insist("the database", note).await??;
        Ok(())
    }
}

/// What came of names and is not noted yet. There is not much of it: while the database takes nothing, no name is settled.
struct Notes<'a> {
    copier: &'a Copier,
    id: MigrationId,
    waiting: Vec<(String, Fate)>,
    under_way: Option<LocalBoxFuture<'a, Result<(), Cut>>>,
}

impl Notes<'_> {
    /// Begins to note a batch, unless one is under way.
    fn begin(&mut self) {
        if self.under_way.is_some() || self.waiting.is_empty() {
            return;
        }
        let rest = self.waiting.split_off(self.waiting.len().min(BATCH));
        let batch = std::mem::replace(&mut self.waiting, rest);
        let (copier, id) = (self.copier, self.id);
        self.under_way = Some(copier.note(id, batch).boxed_local());
    }

    /// Ready when the batch that is under way is noted; never when there is none.
    async fn noted(&mut self) -> Result<(), Cut> {
        let Some(under_way) = &mut self.under_way else { return std::future::pending().await };
        let noted = under_way.await;
        self.under_way = None;
        noted
    }

    /// Notes the rest.
    async fn finish(&mut self) -> Result<(), Cut> {
        loop {
            self.begin();
            if self.under_way.is_none() {
                return Ok(());
            }
            self.noted().await?;
        }
    }
}
