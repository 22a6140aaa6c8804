//! Starting the tree of actors, and ending it.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr, Arbiter, Supervised, Supervisor};

use super::{Engine, Inner};
use crate::download::{ContentCache, ContentSource};
use crate::lock::{LockDirectory, LockStats};
use crate::metadata::{MetadataActor, MetadataRouter};
use crate::model::{Error, KeyLayout, Kind, Result};
use crate::runtime::admission::Admission;
use crate::runtime::breaker::Breaker;
use crate::runtime::budget::MemoryBudget;
use crate::runtime::guard::Vital;
use crate::runtime::guardian::{Guardian, OnFatal, WatchChild};
use crate::spool::SpoolLimits;
use crate::store::blob::BlobStore;
use crate::store::blocking::BlockingPool;
use crate::store::meta::{MetaStore, NewIntent};
use crate::upload::{UploadStats, UploaderPool, UploaderPoolSpec};

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
    /// Threads that hash and compress.
    pub compute_threads: usize,
}

/// The running actors. Ends them in order when told to.
pub struct EngineTree {
    guardian: Addr<Guardian>,
    arbiters: Vec<Arbiter>,
    admission: Admission,
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
        let root = Arbiter::new();
        let guardian = Guardian::start_in_arbiter(&root.handle(), |_| Guardian::new(on_fatal));
        let mut tree =
            EngineTree { guardian, arbiters: Vec::new(), admission: Admission::new(settings.request_slots_max) };

        let lock_stats = LockStats::default();
        let stats = lock_stats.clone();
        let locks = tree.child("locks", move |vital| LockDirectory::new(vital, stats));
        let metadata = (0..settings.metadata_actors.max(1)).map(|_| {
            let store = Arc::clone(&metadata);
            tree.child("metadata", move |vital| MetadataActor::new(vital, store))
        });
        let metadata = MetadataRouter::new(metadata.collect());
        let upload_stats = UploadStats::default();
        let stats = upload_stats.clone();
        let (uploaders, backlog_max) = (settings.uploaders.max(1), settings.upload_backlog_max);
        let breaker = Arc::new(Breaker::new("the content store"));
        let source = ContentSource::new(Arc::clone(&contents), Arc::clone(&breaker));
        let uploads = tree.child("uploads", move |vital| {
            UploaderPool::new(UploaderPoolSpec { vital, store: contents, breaker, uploaders, backlog_max, stats })
        });
        tree.arbiters.push(root);

        let inner = Inner {
            admission: tree.admission.clone(),
            locks,
            metadata,
            uploads,
            source,
            compute,
            cache: ContentCache::new(settings.cache_bytes),
            spool_limits: settings.spool,
            spool_budget: MemoryBudget::new(settings.spool_memory_bytes_max),
            intent: NewIntent { instance: settings.instance, layout: settings.layout },
            lock_stats,
            upload_stats,
            damage: Arc::default(),
        };
        Ok((Self { inner: Arc::new(inner) }, tree))
    }
}

impl EngineTree {
    /// Starts a supervised child on an arbiter of its own and has it watched.
    fn child<A>(&mut self, name: &'static str, make: impl FnOnce(Vital) -> A + Send + 'static) -> Addr<A>
    where
        A: Supervised + Actor<Context = actix::Context<A>>,
    {
        let arbiter = Arbiter::new();
        let vital = Vital::new(name, self.guardian.clone().recipient());
        let child = Supervisor::start_in_arbiter(&arbiter.handle(), move |_| make(vital));
        let watched = child.clone();
        self.guardian.do_send(WatchChild { name, is_alive: Box::new(move || watched.connected()) });
        self.arbiters.push(arbiter);
        child
    }

    /// Waits until no request is inside, at most `wait_max`, then ends the actors. Returns whether
    /// all requests had left.
    pub async fn stop(self, wait_max: Duration) -> bool {
        let all_left = tokio::time::timeout(wait_max, self.admission.all_left()).await.is_ok();
        drop(self.guardian);
        for arbiter in &self.arbiters {
            arbiter.stop();
        }
        for arbiter in self.arbiters {
            if arbiter.join().is_err() {
                log::error!("an arbiter thread died");
            }
        }
        all_left
    }
}
