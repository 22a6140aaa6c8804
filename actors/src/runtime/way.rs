//! The way to an actor, for those who must not wait for one that does not answer.
//!
//! Some answers may take minutes: the lock of a content that somebody uploads, an upload. So there is no time limit on
//! them that would tell a slow one from one that never comes. But an actor takes a request up at once, or it is not
//! well: who waits is told ([`Kind::Unavailable`]) when its request was not even taken up after `TAKE_MAX`, and when
//! the actor turns out to be stuck.

use std::time::Duration;

use actix::dev::ToEnvelope;
use actix::{Actor, Addr, Handler, MailboxError, Message};
use tokio::sync::oneshot;

use super::guard::{ActorState, Vital};
use crate::model::{Error, Kind, Result};

/// How long an actor may take to look at a request, pauses after a restart included: a client is to get its 503 within
/// five seconds.
const TAKE_MAX: Duration = Duration::from_secs(4);

/// The way to one actor.
pub struct Way<A: Actor> {
    address: Addr<A>,
    vital: Vital,
}

/// A request whose sender knows when it was taken up, or thrown away.
#[derive(Debug)]
pub struct Seen<M> {
    request: M,
    /// Its end is the news.
    _unseen: oneshot::Sender<()>,
}

impl<M: Message> Message for Seen<M> {
    type Result = M::Result;
}

impl<M> Seen<M> {
    /// Takes the request up. A `handle` that does not come back has not done so.
    pub fn take_up<T>(self, handle: impl FnOnce(M) -> T) -> T {
        let Self { request, _unseen } = self;
        handle(request)
    }
}

impl<A: Actor> Way<A> {
    /// To this actor, which is as well as `vital` says.
    pub fn new(address: Addr<A>, vital: Vital) -> Self {
        Self { address, vital }
    }

    /// Its address.
    pub fn address(&self) -> &Addr<A> {
        &self.address
    }

    /// How it does.
    pub fn state(&self) -> ActorState {
        self.vital.state()
    }

    /// Fails at once when nothing would be answered.
    pub fn expect_answers(&self) -> Result<()> {
        if self.state() == ActorState::Stuck { Err(stuck()) } else { Ok(()) }
    }

    /// Asks, and waits for the answer for as long as there is hope.
    pub async fn ask<M, T>(&self, request: M) -> Result<T>
    where
        M: Message<Result = Result<T>> + Send + 'static,
        T: Send + 'static,
        A: Handler<Seen<M>>,
        A::Context: ToEnvelope<A, Seen<M>>,
    {
        self.expect_answers()?;
        let (unseen, seen) = oneshot::channel();
        let answer = self.address.send(Seen { request, _unseen: unseen });
        self.hope(seen, async { answer.await.map_err(gone)? }).await
    }

    /// The same with an answer that comes by another way; when that way ends the actor was restarted.
    pub async fn ask_by<M, T>(&self, request: M, answer: oneshot::Receiver<Result<T>>) -> Result<T>
    where
        M: Message<Result = ()> + Send + 'static,
        A: Handler<Seen<M>>,
        A::Context: ToEnvelope<A, Seen<M>>,
    {
        self.expect_answers()?;
        let (unseen, seen) = oneshot::channel();
        self.address.do_send(Seen { request, _unseen: unseen });
        self.hope(seen, async { answer.await.map_err(|_| restarted())? }).await
    }

    async fn hope<T>(&self, seen: oneshot::Receiver<()>, answer: impl Future<Output = Result<T>>) -> Result<T> {
        let never_seen = async {
            if tokio::time::timeout(TAKE_MAX, seen).await.is_ok() {
                // When it was thrown away the answer tells.
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            biased;
            answer = answer => answer,
            () = self.vital.turns_stuck() => Err(stuck()),
            () = never_seen => Err(Error::new(Kind::Unavailable, "a part of the server does not answer in time")),
        }
    }
}

impl<A: Actor> Clone for Way<A> {
    fn clone(&self) -> Self {
        Self { address: self.address.clone(), vital: self.vital.clone() }
    }
}

/// An actor did not answer: it panicked, is being restarted or has ended.
pub fn gone(error: MailboxError) -> Error {
    restarted().with_source(error)
}

fn restarted() -> Error {
    Error::new(Kind::Unavailable, "a part of the server is being restarted")
}

fn stuck() -> Error {
    Error::new(Kind::Unavailable, "a part of the server is stuck")
}
