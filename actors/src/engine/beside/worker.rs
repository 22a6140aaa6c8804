//! Telling the old server what it could not be told at once.

use std::sync::PoisonError;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use actix::fut::wrap_future;
use actix::{Actor, ActorFutureExt, AsyncContext, Context, Supervised};
use tokio::time::{Instant, timeout};

use super::Beside;
use super::tell::{WORKER_LEASE, new_claim};
use crate::engine::Engine;
use crate::model::Result;
use crate::runtime::guard::{Vital, can_be_rebuilt};

/// How often it is looked for names whose time has come.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How often they are counted although nothing is known to have changed: other instances write, too.
const COUNT_EVERY: Duration = Duration::from_secs(5);
/// How often when something has, or as long a pause as this many counts take: there may be millions of names.
const COUNT_AGAIN: Duration = Duration::from_millis(500);
const COUNTS_OF_A_PAUSE: u32 = 20;
/// Until it begins anew after something went wrong.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Tells the old server of names in the background, for as long as the engine lives.
pub(crate) struct MirrorActor {
    vital: Vital,
    engine: Engine,
    beside: Beside,
}

impl MirrorActor {
    pub(crate) fn new(vital: Vital, engine: Engine, beside: Beside) -> Self {
        Self { vital, engine, beside }
    }

    fn run(&mut self, context: &mut Context<Self>) {
        let (engine, beside) = (self.engine.clone(), self.beside.clone());
        let ran = self.vital.clone().guard_work(async move { beside.work(&engine).await });
        context.spawn(wrap_future(ran).map(|ended, actor: &mut Self, context: &mut Context<Self>| {
            if let Err(error) = ended {
                actor.vital.work_failed(&error);
                log::error!("telling the old server was interrupted error=\"{error}\"");
                context.run_later(AGAIN_AFTER, Self::run);
            }
        }));
    }
}

impl Actor for MirrorActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        self.run(context);
    }
}

impl Supervised for MirrorActor {
    fn restarting(&mut self, context: &mut Self::Context) {
        *self = Self::new(self.vital.clone(), self.engine.clone(), self.beside.clone());
        self.vital.clone().restarted(context);
    }
}

can_be_rebuilt!(MirrorActor, |actor| &actor.vital);

/// Counts a name that the worker tells of.
struct Telling(Beside);

impl Telling {
    fn enter(beside: Beside) -> Self {
        beside.0.counts.telling.fetch_add(1, Relaxed);
        Self(beside)
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        self.0.0.counts.telling.fetch_sub(1, Relaxed);
    }
}

/// When the names that wait were counted last.
struct Counted {
    moves: u64,
    begun: Instant,
    took: Duration,
}

impl Counted {
    /// Whether it is time to count them again.
    fn is_old(&self, moves: u64, now: Instant) -> bool {
        let pause = match moves == self.moves {
            true => COUNT_EVERY,
            false => COUNT_AGAIN.max(self.took.saturating_mul(COUNTS_OF_A_PAUSE)).min(COUNT_EVERY),
        };
        now.saturating_duration_since(self.begun) >= pause
    }
}

impl Beside {
    async fn work(&self, engine: &Engine) -> Result<()> {
        let mut counted: Option<Counted> = None;
        while !self.is_stopping() {
            let (moves, begun) = (self.0.moves.load(Relaxed), Instant::now());
            if counted.as_ref().is_none_or(|counted| counted.is_old(moves, begun)) {
                self.count().await;
                counted = Some(Counted { moves, begun, took: begun.elapsed() });
            }
            self.tell_due(engine).await;
            // Whichever is first.
            let _ = timeout(LOOK_EVERY, self.0.wake.notified()).await;
        }
        Ok(())
    }

    async fn count(&self) {
        match self.journal(self.0.settings.journal.mark_summary()).await {
            Ok(summary) => *self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner) = summary,
            Err(error) => log::debug!("names that wait for the old server cannot be counted error=\"{error}\""),
        }
    }

    /// Begins what there is room for.
    async fn tell_due(&self, engine: &Engine) {
        let settings = &self.0.settings;
        if settings.server.as_ref().is_some_and(|server| server.expect_up().is_err()) {
            return;
        }
        let room = settings.concurrency.max(1).saturating_sub(self.0.counts.telling.load(Relaxed));
        if room == 0 {
            return;
        }
        let claim = new_claim();
        let due = match self.journal(settings.journal.claim_due_marks(claim, WORKER_LEASE, room)).await {
            Ok(due) => due,
            Err(error) => return log::debug!("names that wait for the old server are not known error=\"{error}\""),
        };
        for mark in due {
            let (beside, engine) = (self.clone(), engine.clone());
            let telling = Telling::enter(self.clone());
            self.begin(async move {
                let _telling = telling;
                beside.tell(&engine, mark, claim).await;
                beside.0.wake.notify_one();
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_counted_again_soon_after_a_change_and_now_and_then_without_one() {
        let begun = Instant::now();
        let old = |took: u64, moves: u64, after: u64| {
            let counted = Counted { moves: 3, begun, took: Duration::from_millis(took) };
            counted.is_old(moves, begun + Duration::from_millis(after))
        };
        assert!(!old(1, 3, 4_900) && old(1, 3, 5_000));
        assert!(!old(1, 4, 400) && old(1, 4, 500));
        // A long table is not counted all the time.
        assert!(!old(100, 4, 1_900) && old(100, 4, 2_000));
        assert!(!old(3_000, 4, 4_900) && old(3_000, 4, 5_000));
    }
}
