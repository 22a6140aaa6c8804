//! Starting the tree of actors, and ending it.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use actix::{Actor, Addr, Arbiter, Handler, Supervised, Supervisor};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};

use super::actors::Roster;
use super::beside::{Beside, BesideSettings, MirrorActor};
use super::watch::Counts;
use super::{Engine, Inner};
use crate::cleaner::{CleanerActor, CleanerPlan, CleanerSettings, CleanerStats};
use crate::cluster::{ClusterActor, Membership};
use crate::download::{ContentCache, ContentSource, Damage};
use crate::exporter::{ExporterActor, ExporterPlan, ExporterSettings, ExporterStats};
use crate::failpoint::{self, Point};
use crate::lock::distributed::{
    DistributedLockActor, DistributedLockPlan, DistributedLockSettings, DistributedLockStats, DistributedLocks,
};
use crate::lock::{LockDirectory, LockStats, Locks};
use crate::metadata::{MetadataActor, MetadataRouter, NoteDamaged};
use crate::migrator::{Copier, MigrationPlan, MigratorActor};
use crate::model::{BlobKey, Error, KeyLayout, Kind, Result};
use crate::runtime::admission::Admission;
use crate::runtime::breaker::Breaker;
use crate::runtime::budget::MemoryBudget;
use crate::runtime::guard::{Rebuild, Vital};
use crate::runtime::guardian::{Guardian, OnFatal, StandDown, WatchChild};
use crate::runtime::pulse::Pulse;
use crate::runtime::way::Way;
use crate::spool::SpoolLimits;
use crate::store::blob::BlobStore;
use crate::store::blocking::BlockingPool;
use crate::store::meta::{MetaCare, MetaStore, MigrationJournal, NewIntent};
use crate::upload::{UploadStats, UploaderPool, UploaderPoolSpec};

/// How long threads may take to end: one may be inside a call that does not return, and the last one
/// to end closes the database.
const THREADS_END_MAX: Duration = Duration::from_secs(5);
/// How long a read waits until the damage that it found is noted: its client waits, too.
const NOTE_MAX: Duration = Duration::from_secs(1);
/// How long the guardian may take to stop watching.
const STAND_DOWN_MAX: Duration = Duration::from_secs(1);
/// How long the other instances may take to hear that this one goes.
const LEAVE_MAX: Duration = Duration::from_secs(1);
/// How long the batches that the cleaner is at may take to end. What is cut off is done by the next run.
const CLEANER_END_MAX: Duration = Duration::from_secs(3);

/// How long what the old server is being told may take to end.
const MIRROR_END_MAX: Duration = Duration::from_secs(5);
/// How long files that are copied may take to end.
const MIGRATION_END_MAX: Duration = Duration::from_secs(8);

/// How much the engine may take, and how it does its work.
#[derive(Clone, Debug)]
pub struct EngineSettings {
    /// Names this instance among others, in intents and logs.
    pub instance: String,
    /// The layout of new objects' names.
    pub layout: KeyLayout,
    /// What bounds one body.
    pub spool: SpoolLimits,
    /// The most bytes that all bodies together hold in memory.
    pub spool_memory_bytes_max: u64,
    /// Memory for small contents that are read often, in bytes.
    pub cache_bytes: u64,
    /// Requests inside at once.
    pub request_slots_max: usize,
    /// Metadata actors; each has a thread, and with SQLite a connection.
    pub metadata_actors: usize,
    /// Uploads done at once.
    pub uploaders: usize,
    /// Uploads that may wait.
    pub upload_backlog_max: usize,
    /// What one upload may take besides a second for each megabyte, see [`UPLOAD_TIME_MIN`](crate::UPLOAD_TIME_MIN).
    pub upload_time_min: Duration,
    /// Threads that hash and compress.
    pub compute_threads: usize,
    /// How long an actor's thread may be kept before the actor counts as stuck; after twice that time the engine
    /// cannot go on.
    pub stuck_after: Duration,
    /// Locks among instances that share the database; none for a single instance.
    pub distributed_locks: Option<DistributedLockSettings>,
    /// Periodic cleaning, if any.
    pub cleaner: Option<CleanerSettings>,
}

/// The running actors. Ends them in order when told to.
pub struct EngineTree {
    guardian: Addr<Guardian>,
    arbiters: Vec<(&'static str, Arbiter)>,
    admission: Admission,
    membership: Option<Membership>,
    cleaner: Option<CleanerPlan>,
    migration: Option<Copier>,
    beside: Option<Beside>,
    exporter: Option<ExporterPlan>,
    exporter_stats: ExporterStats,
    roster: Roster,
    #[cfg(feature = "testkit")]
    children: Vec<(&'static str, actix::Recipient<Rebuild>)>,
}

impl Engine {
    /// Starts the actors in front of the two stores. `on_fatal` is called at most once, when
    /// restarting parts does not help any more: the process should end then.
    ///
    /// To be called inside an actix system.
    pub fn start(
        settings: EngineSettings,
        metadata: Arc<dyn MetaStore>,
        contents: Arc<dyn BlobStore>,
        on_fatal: OnFatal,
    ) -> Result<(Self, EngineTree)> {
        let threads = settings.compute_threads.max(1);
        let compute = BlockingPool::start("compute", threads, threads * 16)
            .map_err(|error| Error::new(Kind::Internal, "can't start threads").with_source(error))?;
        let key_stats = DistributedLockStats::default();
        let distributed = match &settings.distributed_locks {
            Some(locks) => Some((locks.bucket.clone(), DistributedLockPlan::new(locks, key_stats.clone())?)),
            None => None,
        };
        let root = Arbiter::new();
        let stuck_after = settings.stuck_after;
        let guardian = Guardian::new(on_fatal).with_stuck_after(stuck_after);
        let guardian = Guardian::start_in_arbiter(&root.handle(), |_| guardian);
        let pulse =
            Pulse::start().map_err(|error| Error::new(Kind::Internal, "can't start threads").with_source(error))?;
        let admission = Admission::new(settings.request_slots_max, pulse.clone());
        let mut tree = EngineTree {
            roster: Roster::new(guardian.clone()),
            guardian,
            arbiters: Vec::new(),
            admission,
            membership: None,
            cleaner: None,
            migration: None,
            beside: None,
            exporter: None,
            exporter_stats: ExporterStats::default(),
            #[cfg(feature = "testkit")]
            children: Vec::new(),
        };

        let lock_stats = LockStats::default();
        let stats = lock_stats.clone();
        let locks = tree.child("locks", move |vital| LockDirectory::new(vital, stats));
        let distributed = match distributed {
            Some((bucket, plan)) => {
                let actor = tree.child("locks-db", move |vital| DistributedLockActor::new(vital, plan));
                Some(DistributedLocks::new(actor, &bucket))
            }
            None => None,
        };
        let locks = Locks::new(locks, distributed);
        let is_metadata_near = metadata.is_near();
        let cleaner_stats = CleanerStats::default();
        if let Some(cleaner) = &settings.cleaner {
            let (metadata, contents, stats) = (Arc::clone(&metadata), Arc::clone(&contents), cleaner_stats.clone());
            let plan = CleanerPlan::new(cleaner, &settings.instance, metadata, contents, stats);
            tree.cleaner = Some(plan.clone());
            tree.child("cleaner", move |vital| CleanerActor::new(vital, plan));
        }
        let metadata_store = Arc::clone(&metadata);
        let metadata = (0..settings.metadata_actors.max(1)).map(|_| {
            let store = Arc::clone(&metadata);
            tree.child("metadata", move |vital| MetadataActor::new(vital, store))
        });
        let metadata = Arc::new(MetadataRouter::new(metadata));
        let upload_stats = UploadStats::default();
        let stats = upload_stats.clone();
        let (uploaders, backlog_max) = (settings.uploaders.max(1), settings.upload_backlog_max);
        let time_min = settings.upload_time_min;
        let breaker = Arc::new(Breaker::new("the content store"));
        let counts = Counts::default();
        let (meter, slots_max) = (Arc::clone(&counts.opens), settings.request_slots_max);
        let source = ContentSource::new(Arc::clone(&contents), Arc::clone(&breaker), meter, slots_max);
        let router = Arc::clone(&metadata);
        let note = move |key| note_damaged(Arc::clone(&router), key);
        let damage = Damage::new(Arc::clone(&contents), compute.clone(), note);
        let meter = Arc::clone(&counts.uploads);
        let content_breaker = Arc::clone(&breaker);
        let uploads = tree.child("uploads", move |vital| {
            UploaderPool::new(UploaderPoolSpec {
                vital,
                store: contents,
                breaker,
                meter,
                uploaders,
                backlog_max,
                time_min,
                stats,
            })
        });
        tree.arbiters.push(("guardian", root));

        let inner = Inner {
            admission: tree.admission.clone(),
            locks,
            metadata,
            metadata_store,
            uploads,
            source,
            compute,
            cache: ContentCache::new(settings.cache_bytes),
            spool_limits: settings.spool,
            spool_budget: MemoryBudget::new(settings.spool_memory_bytes_max),
            intent: NewIntent { instance: settings.instance, layout: settings.layout },
            lock_stats,
            key_stats,
            upload_stats,
            cleaner_stats,
            exporter_stats: tree.exporter_stats.clone(),
            damage,
            roster: tree.roster.clone(),
            content_breaker,
            contents_trouble: Mutex::default(),
            counts,
            uploaders,
            pulse,
            is_metadata_near,
            migration: OnceLock::new(),
            migrated: AtomicU64::new(0),
            beside: OnceLock::new(),
        };
        Ok((Self { inner: Arc::new(inner) }, tree))
    }
}

/// Tells uploads that an object is missing or damaged.
async fn note_damaged(metadata: Arc<MetadataRouter>, key: BlobKey) -> Result<()> {
    let late = |_| Error::new(Kind::Unavailable, "the metadata store does not answer in time");
    failpoint::hit(Point::HealBeforeNote).await?;
    let deadline = Instant::now() + NOTE_MAX;
    let noted = timeout_at(deadline, metadata.ask(NoteDamaged(key), deadline.into_std()));
    noted.await.map_err(late)??;
    failpoint::hit(Point::HealAfterNote).await
}

impl EngineTree {
    /// Keeps telling the other instances that this one is there, until it stops.
    pub fn keep_up(&mut self, membership: Membership) {
        self.membership = Some(membership.clone());
        self.child("cluster", move |vital| ClusterActor::new(vital, membership));
    }

    /// Migrates files into this store until that is done or the engine ends; at most one migration in the life of an
    /// engine. `journal` is the metadata store.
    pub fn migrate(&mut self, engine: &Engine, journal: Arc<dyn MigrationJournal>, plan: MigrationPlan) {
        let copier = Copier::new(engine.clone(), journal, plan);
        if engine.inner.migration.set(copier.progress().clone()).is_err() {
            log::error!("a migration runs already");
            return;
        }
        self.migration = Some(copier.clone());
        self.child("migrator", move |vital| MigratorActor::new(vital, copier));
    }

    /// Lets the store stand beside an old server from now on: see the module `beside`. To be called once, before the
    /// first request.
    pub fn stand_beside(&mut self, engine: &Engine, settings: BesideSettings) {
        let beside = Beside::new(settings);
        if engine.inner.beside.set(beside.clone()).is_err() {
            log::error!("there is an old server beside this store already");
            return;
        }
        self.beside = Some(beside.clone());
        let (engine, worker) = (engine.clone(), beside.clone());
        self.child("mirror", move |vital| MirrorActor::new(vital, engine, worker));
        if let Some((_, arbiter)) = self.arbiters.last() {
            beside.work_on(arbiter.handle());
        }
    }

    /// Exports all names from time to time, until it stops.
    pub fn export(&mut self, settings: ExporterSettings, instance: &str, metadata: Arc<dyn MetaCare>) -> Result<()> {
        let plan = ExporterPlan::new(settings, instance, metadata, self.exporter_stats.clone())?;
        self.exporter = Some(plan.clone());
        self.child("exporter", move |vital| ExporterActor::new(vital, plan));
        Ok(())
    }

    /// Starts a supervised child on an arbiter of its own and has it watched.
    fn child<A>(&mut self, name: &'static str, make: impl FnOnce(Vital) -> A + Send + 'static) -> Way<A>
    where
        A: Supervised + Actor<Context = actix::Context<A>> + Handler<Rebuild>,
    {
        let arbiter = Arbiter::new();
        let vital = Vital::new(name, self.guardian.clone().recipient());
        let health = vital.clone();
        let child = Supervisor::start_in_arbiter(&arbiter.handle(), move |_| make(vital));
        let (watched, listed) = (child.clone(), child.clone());
        self.roster.add(health.clone(), move || listed.connected());
        let is_alive = Box::new(move || watched.connected());
        let silent = child.clone();
        let rebuild = Box::new(move || silent.do_send(Rebuild::WasStuck));
        let vital = health.clone();
        self.guardian.do_send(WatchChild { vital, is_alive, arbiter: arbiter.handle(), rebuild });
        self.arbiters.push((name, arbiter));
        #[cfg(feature = "testkit")]
        self.children.push((name, child.clone().recipient()));
        Way::new(child, health)
    }

    /// Makes actors panic, for tests: all of that name.
    #[cfg(feature = "testkit")]
    pub fn strike(&self, name: &str) {
        for (_, actor) in self.children.iter().filter(|(known, _)| *known == name) {
            actor.do_send(Rebuild::Panic);
        }
    }

    /// Lets actors end with an error, for tests: all of that name.
    #[cfg(feature = "testkit")]
    pub fn fail(&self, name: &str) {
        for (_, actor) in self.children.iter().filter(|(known, _)| *known == name) {
            actor.do_send(Rebuild::Error);
        }
    }

    /// Keeps the threads of actors of that name, for tests, each until what is returned for it is dropped.
    #[cfg(feature = "testkit")]
    pub fn hold(&self, name: &str) -> Vec<std::sync::mpsc::Sender<()>> {
        let named = self.arbiters.iter().filter(|(known, _)| *known == name);
        let hold = |(_, arbiter): &(&'static str, Arbiter)| {
            let (release, gate) = std::sync::mpsc::channel::<()>();
            // The end of the other side is the signal.
            arbiter.spawn_fn(move || {
                let _ = gate.recv();
            });
            release
        };
        named.map(hold).collect()
    }

    /// Waits until no request is inside, at most `requests_wait_max`, then ends the actors and their
    /// threads, which closes the stores; that takes a few seconds at most. Returns whether all
    /// requests had left.
    pub async fn stop(self, requests_wait_max: Duration) -> bool {
        let cleaner_ended = async {
            match &self.cleaner {
                Some(cleaner) => timeout(CLEANER_END_MAX, cleaner.stop()).await.is_ok(),
                None => true,
            }
        };
        let migration_ended = async {
            let Some(copier) = &self.migration else { return };
            copier.stop();
            if timeout(MIGRATION_END_MAX, copier.ended()).await.is_err() {
                log::info!("the migration is cut off; it goes on at the next start");
            }
        };
        let (all_left, cleaner_ended, ()) =
            tokio::join!(timeout(requests_wait_max, self.admission.all_left()), cleaner_ended, migration_ended);
        if let Some(beside) = self.beside {
            // Requests told it things until now; what is cut off is marked.
            beside.stop(MIRROR_END_MAX).await;
        }
        let all_left = all_left.is_ok();
        if !cleaner_ended {
            log::info!("the cleaner is cut off; the next run goes on");
        }
        if let Some(exporter) = &self.exporter {
            let _ = timeout(LEAVE_MAX, exporter.stop()).await;
        }
        // They have the stores, which are closed by the last thread to end.
        drop(self.cleaner);
        drop(self.migration);
        drop(self.exporter);
        if let Some(membership) = self.membership {
            let left = timeout(LEAVE_MAX, membership.leave()).await;
            if !matches!(left, Ok(Ok(()))) {
                log::info!("the other instances could not be told that this one goes; they notice by themselves");
            }
        }
        // It would take actors that end for dead ones.
        let _ = timeout(STAND_DOWN_MAX, self.guardian.send(StandDown)).await;
        drop(self.guardian);
        for name in end_threads(self.arbiters, THREADS_END_MAX).await {
            log::warn!("a thread did not end in time thread={name}");
        }
        all_left
    }
}

/// Stops the arbiters and joins their threads, within `wait_max` altogether; returns who did not end.
///
/// Joining blocks, so it has threads of its own, which nothing waits for when time is up: tasks of
/// the runtime would be waited for at its end.
async fn end_threads(arbiters: Vec<(&'static str, Arbiter)>, wait_max: Duration) -> Vec<&'static str> {
    for (_, arbiter) in &arbiters {
        arbiter.stop();
    }
    let deadline = Instant::now() + wait_max;
    let joins: Vec<_> = arbiters.into_iter().map(|(name, arbiter)| (name, join(arbiter))).collect();
    let mut late = Vec::new();
    for (name, join) in joins {
        match timeout_at(deadline, join).await {
            Ok(Ok(true)) => {}
            Ok(_) => log::error!("an arbiter thread died thread={name}"),
            Err(_) => late.push(name),
        }
    }
    late
}

/// Ready with whether the thread ended well.
fn join(arbiter: Arbiter) -> oneshot::Receiver<bool> {
    let (ended, end) = oneshot::channel();
    let wait = move || {
        // Nobody may be waiting any more.
        let _ = ended.send(arbiter.join().is_ok());
    };
    if let Err(error) = std::thread::Builder::new().name("join".into()).spawn(wait) {
        log::warn!("can't start a thread error=\"{error}\"");
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[actix_rt::test]
    async fn a_thread_that_is_stuck_does_not_keep_the_others_from_ending() {
        let (release, gate) = std::sync::mpsc::channel::<()>();
        let (entered, inside) = oneshot::channel();
        let (stuck, idle) = (Arbiter::new(), Arbiter::new());
        stuck.spawn_fn(move || {
            let _ = entered.send(());
            let _ = gate.recv();
        });
        inside.await.unwrap();
        let (held, dropped) = oneshot::channel::<()>();
        idle.spawn(async move {
            let _held = held;
            std::future::pending::<()>().await;
        });
        let arbiters = vec![("stuck", stuck), ("idle", idle)];
        assert_eq!(end_threads(arbiters, Duration::from_millis(500)).await, ["stuck"]);
        assert!(dropped.await.is_err(), "what lived on the other thread is gone");
        drop(release);
    }
}
