//! The uploaders and the bounded queue in front of them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use actix::{Actor, Addr, AsyncContext, Context, Handler, Message, ResponseFuture, Supervised};
use tokio::sync::oneshot;

use super::uploader::{S3UploaderActor, UploadBlob, UploadNow};
use crate::model::{Error, Kind, Result};
use crate::runtime::breaker::Breaker;
use crate::runtime::guard::{Vital, can_be_rebuilt};
use crate::runtime::meter::Meter;
use crate::runtime::way::Seen;
use crate::store::blob::BlobStore;

/// How long an upload may wait for an uploader.
const WAIT_MAX: Duration = Duration::from_secs(3);
/// How often the waiting ones are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What a pool is made of, and made again of after a restart.
#[derive(Clone)]
pub struct UploaderPoolSpec {
    /// The pool's health.
    pub vital: Vital,
    /// Where contents go.
    pub store: Arc<dyn BlobStore>,
    /// Leaves a broken store alone.
    pub breaker: Arc<Breaker>,
    /// Counts uploads.
    pub meter: Arc<Meter>,
    /// Uploads done at once.
    pub uploaders: usize,
    /// Uploads that may wait.
    pub backlog_max: usize,
    /// What an upload may take besides the time of its bytes.
    pub time_min: Duration,
    /// Numbers for the outside.
    pub stats: UploadStats,
}

/// Numbers that can be read from outside.
#[derive(Clone, Debug, Default)]
pub struct UploadStats {
    waiting: Arc<AtomicUsize>,
    busy: Arc<AtomicUsize>,
}

impl UploadStats {
    /// Uploads that wait for an uploader now.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Uploaders that have an upload now.
    pub fn busy(&self) -> usize {
        self.busy.load(Ordering::Relaxed)
    }
}

/// The pool.
pub struct UploaderPool {
    spec: UploaderPoolSpec,
    uploaders: Vec<Addr<S3UploaderActor>>,
    idle: Vec<usize>,
    waiting: VecDeque<Waiting>,
}

struct Waiting {
    upload: UploadBlob,
    since: Instant,
    reply: oneshot::Sender<Result<()>>,
}

/// Event: an uploader is done with its upload.
#[derive(Message)]
#[rtype(result = "()")]
struct UploaderFreed {
    number: usize,
}

impl UploaderPool {
    /// A pool without uploaders; they start with it.
    pub fn new(spec: UploaderPoolSpec) -> Self {
        Self { spec, uploaders: Vec::new(), idle: Vec::new(), waiting: VecDeque::new() }
    }

    fn uploader(&self) -> Addr<S3UploaderActor> {
        let spec = &self.spec;
        let (vital, store) = (spec.vital.clone(), Arc::clone(&spec.store));
        let (breaker, meter, time_min) = (Arc::clone(&spec.breaker), Arc::clone(&spec.meter), spec.time_min);
        S3UploaderActor { vital, store, breaker, meter, time_min }.start()
    }

    fn accept(&mut self, work: Waiting, pool: &Addr<Self>) {
        if let Some(number) = self.idle.pop() {
            self.dispatch(number, work, pool.clone());
            self.counted();
            return;
        }
        if self.waiting.len() < self.spec.backlog_max {
            self.waiting.push_back(work);
        } else {
            let full = Error::new(Kind::Overloaded, "too many uploads are waiting");
            drop(work.reply.send(Err(full)));
        }
        self.counted();
    }

    fn dispatch(&self, number: usize, work: Waiting, pool: Addr<Self>) {
        let uploader = self.uploaders[number].clone();
        actix::spawn(async move {
            let died = |error| Error::new(Kind::Unavailable, "the uploader died").with_source(error);
            let now = UploadNow { upload: work.upload, waited: work.since.elapsed() };
            let outcome = uploader.send(now).await.unwrap_or_else(|error| Err(died(error)));
            // The caller may be gone: nobody is left to tell.
            drop(work.reply.send(outcome));
            pool.do_send(UploaderFreed { number });
        });
    }

    /// Refuses what has waited too long: a client is to hear within five seconds that it must come
    /// again.
    fn refuse_late(&mut self) {
        while self.waiting.front().is_some_and(|waiting| waiting.since.elapsed() > WAIT_MAX) {
            if let Some(late) = self.waiting.pop_front() {
                let busy = Error::new(Kind::Overloaded, "all uploaders are busy");
                // The caller may be gone: nobody is left to tell.
                drop(late.reply.send(Err(busy)));
            }
        }
        self.counted();
    }

    fn counted(&self) {
        self.spec.stats.waiting.store(self.waiting.len(), Ordering::Relaxed);
        self.spec.stats.busy.store(self.uploaders.len() - self.idle.len(), Ordering::Relaxed);
    }
}

impl Actor for UploaderPool {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.run_interval(LOOK_EVERY, |pool, _| pool.refuse_late());
        self.uploaders = (0..self.spec.uploaders).map(|_| self.uploader()).collect();
        self.idle = (0..self.spec.uploaders).collect();
    }
}

impl Supervised for UploaderPool {
    fn restarting(&mut self, context: &mut Self::Context) {
        *self = Self::new(self.spec.clone());
        self.counted();
        self.spec.vital.restarted(context);
    }
}

can_be_rebuilt!(UploaderPool, |actor| &actor.spec.vital);

impl Handler<UploadBlob> for UploaderPool {
    type Result = ResponseFuture<Result<()>>;

    fn handle(&mut self, upload: UploadBlob, context: &mut Self::Context) -> Self::Result {
        let (reply, answer) = oneshot::channel();
        let vital = self.spec.vital.clone();
        let accepted = vital.guard_state(self, context, |pool, context| {
            pool.accept(Waiting { upload, since: Instant::now(), reply }, &context.address());
        });
        Box::pin(async move {
            accepted?;
            answer.await.map_err(|_| Error::new(Kind::Unavailable, "the uploader pool was restarted"))?
        })
    }
}

impl Handler<Seen<UploadBlob>> for UploaderPool {
    type Result = ResponseFuture<Result<()>>;

    fn handle(&mut self, upload: Seen<UploadBlob>, context: &mut Self::Context) -> Self::Result {
        upload.take_up(|upload| self.handle(upload, context))
    }
}

impl Handler<UploaderFreed> for UploaderPool {
    type Result = ();

    fn handle(&mut self, freed: UploaderFreed, context: &mut Self::Context) {
        let vital = self.spec.vital.clone();
        // A failed guard has stopped the actor already; an event has no caller to tell.
        let _ = vital.guard_state(self, context, |pool, context| {
            if !pool.uploaders[freed.number].connected() {
                pool.uploaders[freed.number] = pool.uploader();
            }
            // Freed by an upload from before a restart: the uploader is idle already.
            if pool.idle.contains(&freed.number) {
                return;
            }
            pool.idle.push(freed.number);
            if let Some(work) = pool.waiting.pop_front() {
                pool.accept(work, &context.address());
            }
            pool.counted();
        });
    }
}
