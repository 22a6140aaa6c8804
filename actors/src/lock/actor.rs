//! One lock: who holds it and who waits.

use std::collections::VecDeque;
use std::time::Instant;

use actix::{Actor, Addr, AsyncContext, Context, Handler, Message, Recipient, ResponseFuture};
use tokio::sync::oneshot;

use super::directory::Vacated;
use super::distributed::KeyLease;
use crate::model::{Digest, Error, Kind, Result, Retry};
use crate::runtime::behalf::Behalf;

/// The lock of one content.
pub(super) struct LockActor {
    digest: Digest,
    directory: Recipient<Vacated>,
    is_held: bool,
    waiting: VecDeque<Waiter>,
}

struct Waiter {
    turn: oneshot::Sender<Turn>,
    behalf: Behalf,
    since: Instant,
}

impl Waiter {
    /// Its caller may be gone: nobody is left to tell then, and a lease comes back by being dropped.
    fn tell(self, digest: &Digest, turn: Turn) {
        let waited_ms = self.since.elapsed().as_millis();
        let what = match &turn {
            Turn::Granted(_) => "is granted",
            Turn::Stored => "is not needed any more",
            Turn::Failed { .. } => "failed with its holder",
        };
        self.behalf.enter(|| {
            log::debug!("the lock of a content {what} digest={digest} waited_ms={waited_ms}");
            drop(self.turn.send(turn));
        });
    }
}

/// Request: the lock, or news of what its holder achieved. Reply when there is either.
#[derive(Message)]
#[rtype(result = "Result<Turn>")]
pub(super) struct Acquire {
    /// Who asks.
    pub(super) behalf: Behalf,
}

/// Event: the holder is done.
#[derive(Message)]
#[rtype(result = "()")]
struct Release {
    outcome: Outcome,
}

/// What waiting for a lock ends with.
#[derive(Debug)]
pub enum Turn {
    /// The lock is yours.
    Granted(Lease),
    /// While you waited its holder stored the content: there is nothing to upload any more.
    Stored,
    /// While you waited its holder failed for a reason that is yours as well.
    Failed {
        /// What went wrong.
        kind: Kind,
        /// What to tell the client.
        context: String,
    },
}

#[derive(Clone, Debug)]
enum Outcome {
    Stored,
    Failed {
        kind: Kind,
        context: String,
    },
    /// Nothing is known: the next one tries.
    Open,
}

/// A held lock; dropping it lets the next one in.
#[derive(Debug)]
pub struct Lease {
    lock: Addr<LockActor>,
    outcome: Outcome,
    /// With several instances: the lock among them.
    key: Option<KeyLease>,
}

impl Lease {
    pub(super) fn with_key(mut self, key: KeyLease) -> Self {
        self.key = Some(key);
        self
    }

    /// Whether another instance may hold the lock by now.
    pub fn is_lost(&self) -> bool {
        self.key.as_ref().is_some_and(KeyLease::is_lost)
    }

    /// Gives the lock back and tells those who wait that the content is stored now.
    pub fn content_is_stored(mut self) {
        self.outcome = Outcome::Stored;
    }

    /// Gives the lock back after a failure. When it is one of a backend or of space, those who wait
    /// fail with it, so that they do not find out one after the other, each after a timeout.
    pub fn failed(mut self, error: &Error) {
        if error.retry() == Retry::Later {
            self.outcome = Outcome::Failed { kind: error.kind(), context: error.context().to_owned() };
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let outcome = std::mem::replace(&mut self.outcome, Outcome::Open);
        // The key first: whoever is next here asks for it after that.
        drop(self.key.take());
        self.lock.do_send(Release { outcome });
    }
}

impl LockActor {
    pub(super) fn new(digest: Digest, directory: Recipient<Vacated>) -> Self {
        Self { digest, directory, is_held: false, waiting: VecDeque::new() }
    }

    /// Gives the free lock to the first who still waits. A lease that finds its caller gone comes
    /// back by being dropped, like any other.
    fn grant(&mut self, lock: &Addr<Self>) {
        while !self.is_held
            && let Some(waiter) = self.waiting.pop_front()
        {
            if !waiter.turn.is_closed() {
                self.is_held = true;
                let lease = Lease { lock: lock.clone(), outcome: Outcome::Open, key: None };
                waiter.tell(&self.digest, Turn::Granted(lease));
            }
        }
    }
}

impl Actor for LockActor {
    type Context = Context<Self>;

    fn stopped(&mut self, _: &mut Self::Context) {
        self.directory.do_send(Vacated { digest: self.digest });
    }
}

impl Handler<Acquire> for LockActor {
    type Result = ResponseFuture<Result<Turn>>;

    fn handle(&mut self, request: Acquire, context: &mut Self::Context) -> Self::Result {
        let (grant, turn) = oneshot::channel();
        self.waiting.push_back(Waiter { turn: grant, behalf: request.behalf, since: Instant::now() });
        self.grant(&context.address());
        Box::pin(async move { turn.await.map_err(|_| Error::new(Kind::Unavailable, "the lock is gone")) })
    }
}

impl Handler<Release> for LockActor {
    type Result = ();

    fn handle(&mut self, release: Release, context: &mut Self::Context) {
        self.is_held = false;
        let news = || match &release.outcome {
            Outcome::Stored => Some(Turn::Stored),
            Outcome::Failed { kind, context } => Some(Turn::Failed { kind: *kind, context: context.clone() }),
            Outcome::Open => None,
        };
        while !self.waiting.is_empty()
            && let Some(news) = news()
        {
            if let Some(waiter) = self.waiting.pop_front() {
                waiter.tell(&self.digest, news);
            }
        }
        self.grant(&context.address());
    }
}
