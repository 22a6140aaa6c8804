//! The actor: takes requests, forms batches, hands out leases.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, Message, SpawnHandle, Supervised};
use tokio::sync::oneshot;

use super::key::LockKey;
use super::lease::{Epoch, KeyLease};
use super::queue::{Bounds, Queue, Times, Waiter};
use super::session::{LiveSession, SessionEvent, SessionKeeper, SessionSpec};
use super::settings::{DistributedLockSettings, DistributedLockStats};
use crate::model::{Error, Kind, Result};
use crate::runtime::behalf::Behalf;
use crate::runtime::guard::{Vital, can_be_rebuilt};
use crate::runtime::way::Seen;
use crate::store::postgres::Connector;

/// Requests that may wait, for each key that may be held.
const WAITING_PER_HELD: usize = 16;
/// How long requests wait for a session, counted from the beginning of their work: a client is to get its 503 within
/// five seconds. Without a session for so long nobody waits any more.
const DOWN_MAX: Duration = Duration::from_secs(4);
/// How often those who wait are looked at.
const SWEEP_EVERY: Duration = Duration::from_millis(50);

/// Request: the key of a content. Reply, through `reply`: the lease, when the key is held. A caller that
/// drops the receiver gives up. Idempotent: a lease that nobody takes is given back.
#[derive(Message)]
#[rtype(result = "()")]
pub struct AcquireKey {
    /// The content's keys.
    pub key: LockKey,
    /// Since when its client waits, and when to give up.
    pub times: Times,
    /// Gets the lease, or why there is none.
    pub reply: oneshot::Sender<Result<KeyLease>>,
    /// Who asks.
    pub behalf: Behalf,
}

/// Event: a lease was dropped.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct ReleaseKey {
    pub(super) key: LockKey,
    pub(super) epoch: Arc<Epoch>,
}

/// Who waits for a key.
struct Asking {
    reply: oneshot::Sender<Result<KeyLease>>,
    behalf: Behalf,
    since: Instant,
}

impl Waiter for Asking {
    fn is_gone(&self) -> bool {
        self.reply.is_closed()
    }
}

impl Asking {
    /// It may have gone in this moment; a lease comes back by being dropped then.
    fn tell(self, answer: Result<KeyLease>) {
        let waited_ms = self.since.elapsed().as_millis();
        self.behalf.enter(|| {
            match &answer {
                Ok(_) => log::debug!("the lock among instances is granted waited_ms={waited_ms}"),
                Err(error) => log::debug!("no lock among instances waited_ms={waited_ms} error=\"{error}\""),
            }
            drop(self.reply.send(answer));
        });
    }
}

/// What the actor is made of, again after each restart.
#[derive(Clone)]
pub struct DistributedLockPlan {
    bounds: Bounds,
    session: SessionSpec,
}

impl DistributedLockPlan {
    /// Refuses settings that cannot work; connects to nothing yet.
    pub fn new(settings: &DistributedLockSettings, stats: DistributedLockStats) -> Result<Self> {
        if settings.postgres.is_pooled {
            let problem = "locks need a connection of their own to the database, without a pooling proxy";
            return Err(Error::new(Kind::Invalid, problem));
        }
        let waiting_max = settings.held_max.saturating_mul(WAITING_PER_HELD);
        let bounds = Bounds { held_max: settings.held_max, waiting_max, down_max: DOWN_MAX };
        let connector = Connector::new(&settings.postgres)?;
        Ok(Self { bounds, session: SessionSpec { connector, ttl: settings.ttl, held_max: settings.held_max, stats } })
    }
}

/// Holds the locks of this instance in the database.
pub struct DistributedLockActor {
    vital: Vital,
    plan: DistributedLockPlan,
    queue: Queue<Asking>,
    keeper: Option<SessionKeeper>,
    session: Option<LiveSession>,
    is_batch_under_way: bool,
    is_pump_due: bool,
    /// Since when there has been no session.
    down_since: Instant,
    swept: Instant,
    timer: Option<(Instant, SpawnHandle)>,
}

impl DistributedLockActor {
    /// An actor that connects when it is started.
    pub fn new(vital: Vital, plan: DistributedLockPlan) -> Self {
        let now = Instant::now();
        Self {
            vital,
            queue: Queue::new(plan.bounds),
            plan,
            keeper: None,
            session: None,
            is_batch_under_way: false,
            is_pump_due: false,
            down_since: now,
            swept: now,
            timer: None,
        }
    }

    /// Sends what is to be sent, when nothing is under way.
    fn pump(&mut self, context: &mut Context<Self>) {
        let now = Instant::now();
        let down_since = self.session.is_none().then_some(self.down_since);
        if now >= self.swept + SWEEP_EVERY {
            self.swept = now;
            self.queue.sweep(now, down_since);
        }
        if let Some(session) = &self.session
            && !self.is_batch_under_way
        {
            let steps = self.queue.next_batch(now);
            // When the session is gone its end is on the way here.
            self.is_batch_under_way = !steps.is_empty() && session.batches.send(steps).is_ok();
        }
        for waiter in self.queue.take_late() {
            waiter.tell(Err(match down_since {
                Some(_) => Error::new(Kind::Unavailable, "the lock session is down"),
                None => Error::new(Kind::Unavailable, "the content's lock was not free in time"),
            }));
        }
        self.plan.session.stats.counted(self.queue.held(), self.queue.waiting());
        self.set_timer(now, context);
    }

    /// Has `pump` called after all mail that is there: what arrives together goes together. While a batch is
    /// under way its end does that.
    fn pump_soon(&mut self, context: &mut Context<Self>) {
        if !self.is_pump_due && !self.is_batch_under_way {
            self.is_pump_due = true;
            context.spawn(actix::fut::wrap_future(std::future::ready(())).map(|(), actor: &mut Self, context| {
                actor.is_pump_due = false;
                actor.guarded(context, Self::pump);
            }));
        }
    }

    fn set_timer(&mut self, now: Instant, context: &mut Context<Self>) {
        let sweep = (self.queue.waiting() > 0).then(|| self.swept + SWEEP_EVERY);
        let retry = self.queue.next_due().filter(|_| !self.is_batch_under_way);
        let Some(due) = sweep.into_iter().chain(retry).min() else { return };
        if let Some((set, handle)) = self.timer {
            if set <= due {
                return;
            }
            context.cancel_future(handle);
        }
        let handle = context.run_later(due.saturating_duration_since(now), |actor, context| {
            actor.timer = None;
            actor.guarded(context, Self::pump);
        });
        self.timer = Some((due, handle));
    }

    fn on_event(&mut self, event: SessionEvent, context: &mut Context<Self>) {
        match event {
            SessionEvent::Began(session) => {
                self.session = Some(session);
                self.is_batch_under_way = false;
                self.pump(context);
            }
            SessionEvent::Settled { epoch, done } if self.is_current(&epoch) => {
                self.is_batch_under_way = false;
                let granted = self.queue.settle(done.into_iter(), Instant::now());
                let actor = context.address();
                for (key, waiter) in granted {
                    waiter.tell(Ok(KeyLease { actor: actor.clone(), epoch: Arc::clone(&epoch), key }));
                }
                self.pump_soon(context);
            }
            SessionEvent::Ended { epoch, since } if self.is_current(&epoch) => {
                self.session = None;
                self.is_batch_under_way = false;
                self.down_since = since;
                self.queue.forget_session();
                self.pump(context);
            }
            // Nobody would open a session any more.
            SessionEvent::Broke(error) => self.vital.clone().fail(context, &error),
            // Of a session that was given up.
            SessionEvent::Settled { .. } | SessionEvent::Ended { .. } => {}
        }
    }

    fn is_current(&self, epoch: &Arc<Epoch>) -> bool {
        self.session.as_ref().is_some_and(|session| Arc::ptr_eq(&session.epoch, epoch))
    }

    fn guarded(&mut self, context: &mut Context<Self>, change: impl FnOnce(&mut Self, &mut Context<Self>)) {
        let vital = self.vital.clone();
        // Nobody to tell: those who wait see their replies dropped.
        let _ = vital.guard_state(self, context, change);
    }
}

impl Actor for DistributedLockActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        let (session, actor) = (self.plan.session.clone(), context.address().downgrade());
        self.keeper = Some(SessionKeeper::start(session, self.vital.clone(), actor));
    }
}

impl Supervised for DistributedLockActor {
    fn restarting(&mut self, context: &mut Self::Context) {
        // The session ends with the former keeper, and what was held with it.
        *self = Self::new(self.vital.clone(), self.plan.clone());
        self.plan.session.stats.counted(0, 0);
        self.vital.clone().restarted(context);
    }
}

can_be_rebuilt!(DistributedLockActor, |actor| &actor.vital);

impl Handler<AcquireKey> for DistributedLockActor {
    type Result = ();

    fn handle(&mut self, request: AcquireKey, context: &mut Self::Context) {
        self.guarded(context, |actor, context| {
            let AcquireKey { key, times, reply, behalf } = request;
            let since = Instant::now();
            match actor.queue.push(key, Asking { reply, behalf, since }, since, times) {
                Ok(()) => actor.pump_soon(context),
                Err(asking) => asking.tell(Err(Error::new(Kind::Overloaded, "too many requests wait for a lock"))),
            }
        });
    }
}

impl Handler<Seen<AcquireKey>> for DistributedLockActor {
    type Result = ();

    fn handle(&mut self, request: Seen<AcquireKey>, context: &mut Self::Context) {
        request.take_up(|request| self.handle(request, context));
    }
}

impl Handler<ReleaseKey> for DistributedLockActor {
    type Result = ();

    fn handle(&mut self, release: ReleaseKey, context: &mut Self::Context) {
        self.guarded(context, |actor, context| {
            if actor.is_current(&release.epoch) {
                actor.queue.release(release.key, Instant::now());
                actor.pump_soon(context);
            }
        });
    }
}

impl Handler<SessionEvent> for DistributedLockActor {
    type Result = ();

    fn handle(&mut self, event: SessionEvent, context: &mut Self::Context) {
        self.guarded(context, |actor, context| actor.on_event(event, context));
    }
}

#[cfg(test)]
mod tests {
    use actix::Supervisor;

    use super::*;
    use crate::runtime::guardian::Guardian;
    use crate::store::postgres::{PostgresSettings, TlsMode};

    #[derive(Message)]
    #[rtype(result = "()")]
    struct Panic;

    impl Handler<Panic> for DistributedLockActor {
        type Result = ();

        fn handle(&mut self, _: Panic, context: &mut Self::Context) {
            self.guarded(context, |_, _| panic!("on command"));
        }
    }

    fn nowhere() -> PostgresSettings {
        PostgresSettings {
            host: "127.0.0.1".into(),
            // Nobody listens there.
            port: 1,
            user: "nobody".into(),
            password: None,
            database: "nothing".into(),
            tls: TlsMode::Disable,
            root_certificates: None,
            connect_timeout: Duration::from_secs(1),
            statement_timeout: Duration::from_secs(1),
            is_pooled: false,
            application_name: "test".into(),
        }
    }

    #[test]
    fn a_pooling_proxy_is_refused() {
        let mut settings = DistributedLockSettings::new(nowhere(), "b");
        settings.postgres.is_pooled = true;
        let refused = DistributedLockPlan::new(&settings, DistributedLockStats::default()).err().unwrap();
        assert_eq!(refused.kind(), Kind::Invalid);
    }

    #[actix_rt::test]
    async fn a_panic_fails_those_who_wait_and_the_actor_goes_on() {
        let guardian = Guardian::new(Box::new(|_| ())).start();
        let vital = Vital::new("locks-db", guardian.recipient());
        let stats = DistributedLockStats::default();
        let plan = DistributedLockPlan::new(&DistributedLockSettings::new(nowhere(), "b"), stats.clone()).unwrap();
        let watched = vital.clone();
        let actor = Supervisor::start(move |_| DistributedLockActor::new(vital, plan));
        let ask = |wait| {
            let (reply, lease) = oneshot::channel();
            let key = LockKey::new("b", &crate::model::Digest::from_bytes([1; 32]));
            let times = Times { begun: Instant::now(), deadline: Instant::now() + wait };
            actor.do_send(AcquireKey { key, times, reply, behalf: Behalf::default() });
            lease
        };
        let waiting = ask(Duration::from_secs(60));
        actor.do_send(Panic);
        assert!(waiting.await.is_err());
        let refused = ask(Duration::from_millis(20)).await.unwrap().unwrap_err();
        assert_eq!((refused.kind(), watched.restarts()), (Kind::Unavailable, 1));
        // Without a database, without a deadline in sight: told in time all the same.
        let refused = tokio::time::timeout(DOWN_MAX * 5, ask(Duration::from_secs(60))).await.unwrap();
        assert_eq!(refused.unwrap().unwrap_err().context(), "the lock session is down");
        assert_eq!((stats.held(), stats.waiting()), (0, 0));
    }
}
