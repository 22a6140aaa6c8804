//! Finds the lock of a content, or makes it.
//!
//! The directory and all locks run on one arbiter, and only the directory turns a weak address
//! into a strong one; so a lock can't leave between being found and being asked. Whoever waits for
//! or holds a lock keeps it alive; when nobody does, it stops and its entry goes.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use actix::{Actor, AsyncContext, Context, Handler, Message, ResponseFuture, Supervised, WeakAddr};

use super::actor::{Acquire, LockActor, Turn};
use crate::failpoint::{self, Point};
use crate::model::{Digest, Error, Kind, Result};
use crate::runtime::behalf::Behalf;
use crate::runtime::guard::{Vital, can_be_rebuilt};
use crate::runtime::way::Seen;

/// Request: the lock of a content. Reply: [`Turn`], when it is the caller's turn.
/// Idempotent: a lease that nobody takes is given back. Permit: the caller's.
#[derive(Message, Debug)]
#[rtype(result = "Result<Turn>")]
pub struct AcquireLock {
    /// The content.
    pub digest: Digest,
    /// Who asks.
    pub behalf: Behalf,
}

/// Event: a lock has left.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Vacated {
    pub(super) digest: Digest,
}

/// Numbers that can be read from outside.
#[derive(Clone, Debug, Default)]
pub struct LockStats {
    live: Arc<AtomicUsize>,
}

impl LockStats {
    /// Locks that are held or awaited now.
    pub fn live(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }
}

/// The one directory.
pub struct LockDirectory {
    vital: Vital,
    stats: LockStats,
    live: HashMap<Digest, WeakAddr<LockActor>>,
}

impl LockDirectory {
    /// An empty directory.
    pub fn new(vital: Vital, stats: LockStats) -> Self {
        Self { vital, stats, live: HashMap::new() }
    }

    fn counted(&self) {
        self.stats.live.store(self.live.len(), Ordering::Relaxed);
    }
}

impl Actor for LockDirectory {
    type Context = Context<Self>;
}

impl Supervised for LockDirectory {
    fn restarting(&mut self, context: &mut Self::Context) {
        // Locks that are held go on; at worst a content is uploaded twice, which does no harm.
        *self = Self::new(self.vital.clone(), self.stats.clone());
        self.counted();
        self.vital.clone().restarted(context);
    }
}

can_be_rebuilt!(LockDirectory, |actor| &actor.vital);

impl Handler<AcquireLock> for LockDirectory {
    type Result = ResponseFuture<Result<Turn>>;

    fn handle(&mut self, request: AcquireLock, context: &mut Self::Context) -> Self::Result {
        let vital = self.vital.clone();
        let AcquireLock { digest, behalf } = request;
        let lock = behalf.clone().enter(|| {
            vital.guard_state(self, context, |directory, context| {
                if let Err(error) = failpoint::hit_blocking(Point::PutAtLocks) {
                    directory.vital.fail(context, &error);
                    return Err(error);
                }
                if let Some(lock) = directory.live.get(&digest).and_then(WeakAddr::upgrade) {
                    return Ok(lock);
                }
                let lock = LockActor::new(digest, context.address().recipient()).start();
                directory.live.insert(digest, lock.downgrade());
                directory.counted();
                Ok(lock)
            })
        });
        let asking = behalf.clone();
        Box::pin(behalf.scope(vital.guard_work(async move {
            // Holds the strong address until the lock has answered.
            let gone = |error| Error::new(Kind::Unavailable, "the lock is gone").with_source(error);
            lock.flatten()?.send(Acquire { behalf: asking }).await.map_err(|error: actix::MailboxError| gone(error))?
        })))
    }
}

impl Handler<Seen<AcquireLock>> for LockDirectory {
    type Result = ResponseFuture<Result<Turn>>;

    fn handle(&mut self, request: Seen<AcquireLock>, context: &mut Self::Context) -> Self::Result {
        request.take_up(|request| self.handle(request, context))
    }
}

impl Handler<Vacated> for LockDirectory {
    type Result = ();

    fn handle(&mut self, vacated: Vacated, _: &mut Self::Context) {
        // A new lock may have taken the place already.
        if self.live.get(&vacated.digest).is_some_and(|lock| lock.upgrade().is_none()) {
            self.live.remove(&vacated.digest);
            self.counted();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::time::Duration;

    use actix::{Addr, Supervisor};

    use super::*;
    use crate::runtime::guardian::Guardian;

    fn directory() -> (Addr<LockDirectory>, LockStats) {
        let guardian = Guardian::new(Box::new(|_| ())).start();
        let stats = LockStats::default();
        let vital = Vital::new("locks", guardian.recipient());
        let mine = stats.clone();
        (Supervisor::start(move |_| LockDirectory::new(vital, mine)), stats)
    }

    fn digest(byte: u8) -> Digest {
        Digest::from_bytes([byte; 32])
    }

    async fn acquire(directory: &Addr<LockDirectory>, byte: u8) -> Turn {
        directory.send(AcquireLock { digest: digest(byte), behalf: Behalf::default() }).await.unwrap().unwrap()
    }

    async fn until_empty(stats: &LockStats) {
        while stats.live() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[actix_rt::test]
    async fn one_holder_at_a_time_and_nothing_left_behind() {
        let (directory, stats) = directory();
        let is_held = Arc::new(AtomicBool::new(false));
        let rounds = (0..200).map(|number| {
            let (directory, is_held) = (directory.clone(), Arc::clone(&is_held));
            async move {
                match acquire(&directory, 1).await {
                    Turn::Granted(lease) => {
                        assert!(!is_held.swap(true, Ordering::SeqCst), "two holders");
                        tokio::task::yield_now().await;
                        is_held.store(false, Ordering::SeqCst);
                        drop(lease);
                    }
                    turn => panic!("round {number}: {turn:?}"),
                }
            }
        });
        futures_util::future::join_all(rounds).await;
        until_empty(&stats).await;
    }

    #[actix_rt::test]
    async fn those_who_wait_share_the_holders_success_and_failure() {
        let (directory, stats) = directory();
        for succeeds in [true, false] {
            let Turn::Granted(lease) = acquire(&directory, 2).await else { panic!("not granted") };
            let waiters: Vec<_> = (0..10)
                .map(|_| {
                    let directory = directory.clone();
                    actix_rt::spawn(async move { acquire(&directory, 2).await })
                })
                .collect();
            tokio::time::sleep(Duration::from_millis(20)).await;
            if succeeds {
                lease.content_is_stored()
            } else {
                lease.failed(&Error::new(Kind::NoSpace, "full"))
            }
            for waiter in waiters {
                match waiter.await.unwrap() {
                    Turn::Stored => assert!(succeeds),
                    Turn::Failed { kind, context } => {
                        assert_eq!((succeeds, kind, context.as_str()), (false, Kind::NoSpace, "full"));
                    }
                    Turn::Granted(_) => panic!("granted"),
                }
            }
        }
        until_empty(&stats).await;
    }

    #[actix_rt::test]
    async fn a_waiter_that_goes_away_does_not_keep_the_lock() {
        let (directory, stats) = directory();
        let Turn::Granted(lease) = acquire(&directory, 3).await else { panic!("not granted") };
        let impatient = tokio::time::timeout(Duration::from_millis(10), acquire(&directory, 3)).await;
        assert!(impatient.is_err());
        drop(lease);
        assert!(matches!(acquire(&directory, 3).await, Turn::Granted(_)));
        until_empty(&stats).await;
    }

    /// Request: a panic that nothing catches.
    #[derive(Message)]
    #[rtype(result = "()")]
    struct Panic;

    impl Handler<Panic> for LockActor {
        type Result = ();

        fn handle(&mut self, _: Panic, _: &mut Self::Context) {
            panic!("on command");
        }
    }

    /// Request: the lock of a content, if it lives.
    #[derive(Message)]
    #[rtype(result = "Option<Addr<LockActor>>")]
    struct Find(Digest);

    impl Handler<Find> for LockDirectory {
        type Result = Option<Addr<LockActor>>;

        fn handle(&mut self, find: Find, _: &mut Self::Context) -> Self::Result {
            self.live.get(&find.0).and_then(WeakAddr::upgrade)
        }
    }

    #[actix_rt::test]
    async fn those_who_wait_for_a_lock_that_panics_are_told_and_the_next_one_is_made_anew() {
        let (directory, stats) = directory();
        let Turn::Granted(lease) = acquire(&directory, 6).await else { panic!("not granted") };
        let asking = directory.clone();
        let waiter = actix_rt::spawn(async move {
            asking.send(AcquireLock { digest: digest(6), behalf: Behalf::default() }).await.unwrap()
        });
        tokio::task::yield_now().await;
        let lock = directory.send(Find(digest(6))).await.unwrap().unwrap();
        lock.do_send(Panic);
        drop(lock);
        assert_eq!(waiter.await.unwrap().unwrap_err().kind(), Kind::Unavailable);
        assert!(matches!(acquire(&directory, 6).await, Turn::Granted(_)));
        // To a lock that is gone.
        drop(lease);
        until_empty(&stats).await;
    }

    #[actix_rt::test]
    async fn different_contents_do_not_wait_for_each_other() {
        let (directory, _) = directory();
        let one = acquire(&directory, 4).await;
        let other = acquire(&directory, 5).await;
        assert!(matches!((one, other), (Turn::Granted(_), Turn::Granted(_))));
    }
}
