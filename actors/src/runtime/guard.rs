//! Guards against panics and errors, by what they could have touched.
//!
//! actix's `Supervisor` restarts an actor that *stops*; a panic in a handler kills the actor and
//! its supervisor for good. So no panic may leave a handler: [`Vital::guard_work`] wraps work that
//! does not borrow the actor (the actor lives on), [`Vital::guard_state`] wraps changes of its
//! state (the actor stops and its supervisor rebuilds it). An actor that meets an error with which it
//! cannot go on says so by [`Vital::fail`] and is rebuilt, too; an error that is only its caller's is an answer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Recipient};
use futures_util::FutureExt;
use rand::Rng;
use tokio::sync::watch;

use super::guardian::ChildRestarted;
use crate::model::{Error, Kind, Result};

/// The first pause before a restarted actor goes on; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// The fault of an actor that is stuck.
const SILENT: &str = "its thread does not answer";

/// What is known of one actor's health; shared between the actor and its guardian.
#[derive(Clone)]
pub struct Vital(Arc<Shared>);

struct Shared {
    name: &'static str,
    guardian: Recipient<ChildRestarted>,
    restarts: AtomicU32,
    panics: AtomicU64,
    last_fault: Mutex<Option<String>>,
    /// From the fault to the end of the pause.
    is_restarting: AtomicBool,
    is_stuck: watch::Sender<bool>,
}

/// How an actor does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ActorState {
    /// It takes messages.
    Up,
    /// It is being rebuilt after a fault; its mail waits.
    Restarting,
    /// Something has kept its thread for longer than is allowed.
    Stuck,
    /// It is gone and nothing brings it back: the process is about to end.
    Dead,
}

impl Vital {
    /// For a new actor called `name`.
    pub fn new(name: &'static str, guardian: Recipient<ChildRestarted>) -> Self {
        let (restarts, panics, last_fault, is_restarting) = Default::default();
        let is_stuck = watch::Sender::new(false);
        Self(Arc::new(Shared { name, guardian, restarts, panics, last_fault, is_restarting, is_stuck }))
    }

    /// The actor's name.
    pub fn name(&self) -> &'static str {
        self.0.name
    }

    /// How often it was rebuilt.
    pub fn restarts(&self) -> u32 {
        self.0.restarts.load(Ordering::Relaxed)
    }

    /// How many panics were caught in it.
    pub fn panics(&self) -> u64 {
        self.0.panics.load(Ordering::Relaxed)
    }

    /// What was wrong last.
    pub fn last_fault(&self) -> Option<String> {
        self.0.last_fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How it does, as long as it lives.
    pub fn state(&self) -> ActorState {
        match (*self.0.is_stuck.borrow(), self.0.is_restarting.load(Ordering::Relaxed)) {
            (true, _) => ActorState::Stuck,
            (false, true) => ActorState::Restarting,
            (false, false) => ActorState::Up,
        }
    }

    /// Notes that its thread does not answer, or does again: then it is about to be rebuilt.
    pub(super) fn stuck(&self, is_stuck: bool) {
        match is_stuck {
            true => self.fault(SILENT.to_owned()),
            false => self.0.is_restarting.store(true, Ordering::Relaxed),
        }
        self.0.is_stuck.send_replace(is_stuck);
    }

    /// Ready when its thread is known not to answer.
    pub(super) async fn turns_stuck(&self) {
        // The sender lives as long as this does.
        let _ = self.0.is_stuck.subscribe().wait_for(|is_stuck| *is_stuck).await;
    }

    /// Notes what went wrong in work that is tried again later: the actor itself is as it was.
    pub fn work_failed(&self, error: &Error) {
        self.fault(error.to_string());
    }

    /// The actor cannot go on after this error: it stops, and its supervisor rebuilds it.
    pub fn fail<A>(&self, context: &mut Context<A>, error: &Error)
    where
        A: Actor<Context = Context<A>>,
    {
        log::error!("an actor failed actor={} error=\"{error}\"", self.0.name);
        self.fault(error.to_string());
        self.0.is_restarting.store(true, Ordering::Relaxed);
        context.stop();
    }

    /// What [`Rebuild`] does.
    pub(crate) fn rebuild<A>(&self, actor: &mut A, context: &mut Context<A>, rebuild: &Rebuild)
    where
        A: Actor<Context = Context<A>>,
    {
        match rebuild {
            Rebuild::WasStuck => self.fail(context, &Error::new(Kind::Unavailable, SILENT)),
            #[cfg(feature = "testkit")]
            Rebuild::Panic => {
                // Nobody waits for an answer.
                let _ = self.guard_state(actor, context, |_, _| panic!("struck by a test"));
            }
            #[cfg(feature = "testkit")]
            Rebuild::Error => self.fail(context, &Error::new(Kind::Internal, "failed by a test")),
        }
        #[cfg(not(feature = "testkit"))]
        let _ = actor;
    }

    fn fault(&self, text: String) {
        *self.0.last_fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
    }

    /// Runs work that does not touch the actor: a panic becomes an error for this caller alone.
    pub async fn guard_work<T>(self, work: impl Future<Output = Result<T>>) -> Result<T> {
        AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|panic| Err(self.caught(panic.as_ref())))
    }

    /// Runs a change of the actor's state: after a panic the state may be torn, so the actor stops
    /// and is rebuilt by its supervisor.
    pub fn guard_state<A, T>(
        &self,
        actor: &mut A,
        context: &mut Context<A>,
        change: impl FnOnce(&mut A, &mut Context<A>) -> T,
    ) -> Result<T>
    where
        A: Actor<Context = Context<A>>,
    {
        catch_unwind(AssertUnwindSafe(|| change(actor, context))).map_err(|panic| {
            self.0.is_restarting.store(true, Ordering::Relaxed);
            context.stop();
            self.caught(panic.as_ref())
        })
    }

    /// To be called from `restarting`, after the state was rebuilt: mail waits for a pause that
    /// grows with every restart, and the guardian is told. An actor that stopped without a word is told of, too.
    pub fn restarted<A>(&self, context: &mut Context<A>)
    where
        A: Actor<Context = Context<A>>,
    {
        let restarts = self.0.restarts.fetch_add(1, Ordering::Relaxed);
        let longest = PAUSE_MIN.saturating_mul(1 << restarts.min(10)).min(PAUSE_MAX);
        let pause = longest.mul_f64(rand::rng().random_range(0.5..=1.0));
        log::warn!("an actor was restarted actor={} pause_ms={}", self.0.name, pause.as_millis());
        if !self.0.is_restarting.swap(true, Ordering::Relaxed) {
            self.fault("it stopped by itself".to_owned());
        }
        let vital = self.clone();
        context.wait(actix::fut::wrap_future(tokio::time::sleep(pause)).map(move |(), _: &mut A, _| {
            vital.0.is_restarting.store(false, Ordering::Relaxed);
        }));
        self.0.guardian.do_send(ChildRestarted { name: self.0.name });
    }

    fn caught(&self, panic: &(dyn std::any::Any + Send)) -> Error {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "panic".to_owned());
        self.0.panics.fetch_add(1, Ordering::Relaxed);
        log::error!("a panic was caught actor={} panic=\"{text}\"", self.0.name);
        self.fault(text);
        Error::panicked()
    }
}

/// Request of the guardian, or of a test: stop and be rebuilt.
#[derive(actix::Message, Debug)]
#[rtype(result = "()")]
pub enum Rebuild {
    /// The thread did not answer for so long that nobody waits any more for what was begun.
    WasStuck,
    /// As after a panic inside the actor's state.
    #[cfg(feature = "testkit")]
    Panic,
    /// As after an error with which the actor cannot go on.
    #[cfg(feature = "testkit")]
    Error,
}

/// Lets an actor be rebuilt from outside.
macro_rules! can_be_rebuilt {
    ($actor:ty, $vital:expr) => {
        impl actix::Handler<crate::runtime::guard::Rebuild> for $actor {
            type Result = ();

            fn handle(&mut self, rebuild: crate::runtime::guard::Rebuild, context: &mut Self::Context) {
                let vital: fn(&Self) -> &crate::runtime::guard::Vital = $vital;
                let vital = vital(self).clone();
                vital.rebuild(self, context, &rebuild);
            }
        }
    };
}

pub(crate) use can_be_rebuilt;
