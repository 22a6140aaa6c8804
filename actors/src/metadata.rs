//! The only owner of metadata: every transaction goes through these actors.
//!
//! They decide nothing and keep nothing: the store behind them does the concurrency. Look-ups, the
//! step of every request, are answered on the actor's own thread where the store can do that, so
//! that one costs two changes of threads and not four; a look-up that has to wait for a disk holds
//! up only its own actor, and the router prefers those that have nothing to do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use actix::dev::ToEnvelope;
use actix::{Actor, Context, Handler, Message, Response, ResponseFuture, Supervised};

use crate::model::{BlobKey, Entry, EntryKey, Error, Kind, Result, Stamp};
use crate::runtime::behalf::Behalf;
use crate::runtime::guard::{ActorState, Vital, can_be_rebuilt};
use crate::runtime::way::{Way, gone};
use crate::store::meta::{
    CommitPut, DeleteOutcome, ListPage, LocalReader, MetaStore, NamePage, PlanPut, PutCommit, PutPlan, Totals,
};

/// Requests that one actor takes before another one is woken: each is a matter of microseconds.
const QUEUE_PER_ACTOR: usize = 4;

/// One of the actors; all are alike.
pub struct MetadataActor {
    vital: Vital,
    store: Arc<dyn MetaStore>,
    reader: Option<Box<dyn LocalReader>>,
}

impl MetadataActor {
    /// In front of `store`.
    pub fn new(vital: Vital, store: Arc<dyn MetaStore>) -> Self {
        let reader = store.local_reader().unwrap_or_else(|error| {
            log::warn!("no reader for this thread, look-ups take a detour error=\"{error}\"");
            None
        });
        Self { vital, store, reader }
    }
}

/// The way to the actors.
pub struct MetadataRouter {
    actors: Vec<Member>,
}

/// One of them, as the router knows it.
struct Member {
    way: Way<MetadataActor>,
    inside: AtomicUsize,
    /// The last one who asked went away without an answer: others are asked first, as far as they have time.
    is_slow: AtomicBool,
}

impl Member {
    fn inside(&self) -> usize {
        self.inside.load(Ordering::Relaxed)
    }

    fn is_up(&self) -> bool {
        self.way.state() == ActorState::Up
    }

    fn is_free(&self) -> bool {
        self.is_up() && !self.is_slow.load(Ordering::Relaxed) && self.inside() < QUEUE_PER_ACTOR
    }
}

/// Counts a request as inside its actor for as long as it lives.
struct Inside<'a> {
    member: &'a Member,
    is_answered: bool,
}

impl<'a> Inside<'a> {
    fn enter(member: &'a Member) -> Self {
        member.inside.fetch_add(1, Ordering::Relaxed);
        Self { member, is_answered: false }
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.member.inside.fetch_sub(1, Ordering::Relaxed);
        self.member.is_slow.store(!self.is_answered, Ordering::Relaxed);
    }
}

impl MetadataRouter {
    /// In front of at least one actor.
    pub fn new(actors: impl Iterator<Item = Way<MetadataActor>>) -> Self {
        let member = |way| Member { way, inside: AtomicUsize::new(0), is_slow: AtomicBool::new(false) };
        Self { actors: actors.map(member).collect() }
    }

    /// Requests inside each actor, waiting ones included.
    pub fn in_flight(&self) -> impl Iterator<Item = usize> {
        self.actors.iter().map(Member::inside)
    }

    /// Asks the first actor that is up and not busy, or else the least busy one; nothing is begun after `deadline`.
    pub async fn ask<M, T>(&self, request: M, deadline: Instant) -> Result<T>
    where
        M: Message<Result = Result<T>> + Send + 'static,
        T: Send + 'static,
        MetadataActor: Handler<Timely<M>>,
        <MetadataActor as Actor>::Context: ToEnvelope<MetadataActor, Timely<M>>,
    {
        let free = self.actors.iter().find(|member| member.is_free());
        let least_busy = || self.actors.iter().min_by_key(|member| (!member.is_up(), member.inside()));
        let Some(member) = free.or_else(least_busy) else {
            return Err(Error::new(Kind::Internal, "internal error"));
        };
        member.way.expect_answers()?;
        let mut inside = Inside::enter(member);
        let answer = member.way.address().send(Timely { request, deadline, behalf: Behalf::current() }).await;
        inside.is_answered = true;
        answer.map_err(gone)?
    }
}

impl Actor for MetadataActor {
    type Context = Context<Self>;
}

impl Supervised for MetadataActor {
    fn restarting(&mut self, context: &mut Self::Context) {
        *self = Self::new(self.vital.clone(), Arc::clone(&self.store));
        self.vital.clone().restarted(context);
    }
}

can_be_rebuilt!(MetadataActor, |actor| &actor.vital);

/// A request that its sender waits for until the deadline. What is looked at later, because the process was
/// stopped for a while or the actor was, must not be begun: its sender may have done something else since.
#[derive(Debug)]
pub struct Timely<M> {
    request: M,
    deadline: Instant,
    behalf: Behalf,
}

impl<M: Message> Message for Timely<M> {
    type Result = M::Result;
}

impl<M> Timely<M> {
    fn in_time(self) -> Result<M> {
        if Instant::now() < self.deadline {
            return Ok(self.request);
        }
        Err(Error::new(Kind::Unavailable, "the request waited for too long"))
    }
}

/// Request: what a name points at. Idempotent: a read. Permit: the caller's.
#[derive(Message, Debug)]
#[rtype(result = "Result<Option<Entry>>")]
pub struct Lookup(pub EntryKey);

/// Request: removes a name. Idempotent by key and stamp. Permit: the caller's.
#[derive(Message, Debug)]
#[rtype(result = "Result<DeleteOutcome>")]
pub struct CommitDelete {
    /// The name.
    pub key: EntryKey,
    /// The newest version to remove.
    pub stamp: Stamp,
}

/// Request: removes a name, with an old server beside the store. Idempotent by key and stamp. Permit: the caller's.
#[derive(Message, Debug)]
#[rtype(result = "Result<DeleteOutcome>")]
pub struct CommitDeleteBeside {
    /// The name.
    pub key: EntryKey,
    /// The newest version to remove.
    pub stamp: Stamp,
}

/// Request: notes that an object is missing or damaged, so that the next upload of its content takes its place. Idempotent: a
/// note is there or not. Permit: the caller's.
#[derive(Message, Debug)]
#[rtype(result = "Result<()>")]
pub struct NoteDamaged(pub BlobKey);

/// Request: totals over everything. Idempotent: a read. Permit: none.
#[derive(Message, Debug)]
#[rtype(result = "Result<Totals>")]
pub struct GetTotals;

/// Request: proof that the store answers. Idempotent: a read. Permit: none.
#[derive(Message, Debug)]
#[rtype(result = "Result<()>")]
pub struct Probe;

impl Message for PlanPut {
    type Result = Result<PutPlan>;
}

impl Message for CommitPut {
    type Result = Result<PutCommit>;
}

impl Message for ListPage {
    type Result = Result<NamePage>;
}

/// Each message is one transaction of the store, under the guard against panics.
macro_rules! forward {
    ($($message:ty => $answer:ty, |$store:ident, $request:ident| $work:expr;)*) => {$(
        impl Handler<Timely<$message>> for MetadataActor {
            type Result = ResponseFuture<Result<$answer>>;

            fn handle(&mut self, request: Timely<$message>, _: &mut Self::Context) -> Self::Result {
                let $store = Arc::clone(&self.store);
                let behalf = request.behalf.clone();
                let work = async move {
                    let $request = request.in_time()?;
                    $work.await
                };
                Box::pin(behalf.scope(self.vital.clone().guard_work(work)))
            }
        }
    )*};
}

impl Handler<Timely<Lookup>> for MetadataActor {
    type Result = Response<Result<Option<Entry>>>;

    fn handle(&mut self, request: Timely<Lookup>, context: &mut Self::Context) -> Self::Result {
        let behalf = request.behalf.clone();
        let request = match request.in_time() {
            Ok(request) => request,
            Err(error) => return Response::reply(Err(error)),
        };
        let vital = self.vital.clone();
        let look_up =
            |actor: &mut Self, _: &mut Self::Context| actor.reader.as_ref().map(|reader| reader.lookup(&request.0));
        let looked_up = behalf.clone().enter(|| vital.guard_state(self, context, look_up));
        match looked_up.transpose() {
            Some(looked_up) => Response::reply(looked_up.and_then(|entry| entry)),
            None => {
                let store = Arc::clone(&self.store);
                Response::fut(behalf.scope(vital.guard_work(async move { store.lookup(request.0).await })))
            }
        }
    }
}

forward! {
    PlanPut => PutPlan, |store, request| store.plan_put(request);
    CommitPut => PutCommit, |store, request| store.commit_put(request);
    CommitDelete => DeleteOutcome, |store, request| store.delete(request.key, request.stamp);
    CommitDeleteBeside => DeleteOutcome, |store, request| store.delete_beside(request.key, request.stamp);
    NoteDamaged => (), |store, request| store.note_damaged(request.0);
    ListPage => NamePage, |store, request| store.list(request);
    GetTotals => Totals, |store, _request| store.totals();
    Probe => (), |store, _request| store.probe();
}
