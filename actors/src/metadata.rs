//! The only owner of metadata: every transaction goes through this actor.
//!
//! It decides nothing and keeps nothing: the store behind it does the concurrency, so a message
//! costs one hop and a slow transaction delays nobody else.

use std::sync::Arc;

use actix::{Actor, Context, Handler, Message, ResponseFuture, Supervised};

use crate::model::{Entry, EntryKey, Result, Stamp};
use crate::runtime::guard::Vital;
use crate::store::meta::{
    CommitPut, DeleteOutcome, ListPage, MetaStore, NamePage, PlanPut, PutCommit, PutPlan, Totals,
};

/// The actor.
pub struct MetadataActor {
    vital: Vital,
    store: Arc<dyn MetaStore>,
}

impl MetadataActor {
    /// In front of `store`.
    pub fn new(vital: Vital, store: Arc<dyn MetaStore>) -> Self {
        Self { vital, store }
    }
}

impl Actor for MetadataActor {
    type Context = Context<Self>;
}

impl Supervised for MetadataActor {
    fn restarting(&mut self, context: &mut Self::Context) {
        self.vital.restarted(context);
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

/// Request: totals over everything. Idempotent: a read. Permit: none.
#[derive(Message, Debug)]
#[rtype(result = "Result<Totals>")]
pub struct GetTotals;

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
        impl Handler<$message> for MetadataActor {
            type Result = ResponseFuture<Result<$answer>>;

            fn handle(&mut self, $request: $message, _: &mut Self::Context) -> Self::Result {
                let $store = Arc::clone(&self.store);
                Box::pin(self.vital.clone().guard_work(async move { $work.await }))
            }
        }
    )*};
}

forward! {
    Lookup => Option<Entry>, |store, request| store.lookup(request.0);
    PlanPut => PutPlan, |store, request| store.plan_put(request);
    CommitPut => PutCommit, |store, request| store.commit_put(request);
    CommitDelete => DeleteOutcome, |store, request| store.delete(request.key, request.stamp);
    ListPage => NamePage, |store, request| store.list(request);
    GetTotals => Totals, |store, _request| store.totals();
}
