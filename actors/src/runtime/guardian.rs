//! The root supervisor: counts restarts, watches that its children live, and gives up in time.
//!
//! Children restart themselves (see [`super::guard`]); what must be decided from above is when
//! restarting stops to help. Past the allowed intensity, or when a child died unguarded, the
//! guardian calls `on_fatal` once: the process is to end with a non-zero status, so that whatever
//! runs it starts it afresh.
//!
//! A thread cannot be taken back from what blocks it. So the thread of each child is asked for a sign of life; after a
//! while without one the actor is reported as stuck, which answers all who wait for it (see [`super::way`]), and after
//! twice that time the guardian gives up. A thread that comes back in time has its actor rebuilt: what it was at is
//! nobody's any more, and one that gets stuck again and again uses up the restarts that are allowed. Waiting for others
//! does not block: a handler that awaits a slow store is not stuck.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use actix::{Actor, ArbiterHandle, AsyncContext, Context, Handler, Message};

use super::guard::Vital;

/// This many restarts...
const RESTARTS_MAX: usize = 5;
/// ...within this time are tolerated.
const RESTARTS_WINDOW: Duration = Duration::from_secs(60);
/// How often the children are looked at, at least.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How many looks within the time after which a child is stuck.
const LOOKS_MIN: u32 = 4;
/// How long a thread may be kept when nothing else is said.
const STUCK_AFTER: Duration = Duration::from_secs(30);

/// What ends the process; gets one line that says why.
pub type OnFatal = Box<dyn FnOnce(String) + Send>;

/// The root of the tree.
pub struct Guardian {
    children: Vec<Child>,
    stuck_after: Duration,
    restarts: VecDeque<Instant>,
    on_fatal: Option<OnFatal>,
}

/// Event: a child was rebuilt after a fault.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct ChildRestarted {
    /// Which one.
    pub name: &'static str,
}

/// Request: watch that a child lives.
#[derive(Message)]
#[rtype(result = "()")]
pub struct WatchChild {
    /// Its health.
    pub vital: Vital,
    /// Whether its address still leads anywhere.
    pub is_alive: Box<dyn Fn() -> bool + Send>,
    /// Its thread.
    pub arbiter: ArbiterHandle,
    /// Has it rebuilt, once its thread answers again.
    pub rebuild: Box<dyn Fn() + Send>,
}

/// A child, and the sign of life that its thread was asked for last.
struct Child {
    watched: WatchChild,
    sign: Arc<AtomicBool>,
    /// Looks since it was asked for. Not a time: a process that was stopped for a while has not been stuck.
    looks: u32,
}

impl Child {
    /// Takes the sign if there is one, and asks for the next.
    fn look(&mut self) {
        if !self.sign.load(Ordering::Acquire) {
            self.looks += 1;
            return;
        }
        self.looks = 0;
        let sign = Arc::new(AtomicBool::new(false));
        self.sign = Arc::clone(&sign);
        // An arbiter that is gone tells by its child.
        self.watched.arbiter.spawn_fn(move || sign.store(true, Ordering::Release));
    }
}

impl Guardian {
    /// A guardian without children.
    pub fn new(on_fatal: OnFatal) -> Self {
        let (children, restarts) = Default::default();
        Self { children, stuck_after: STUCK_AFTER, restarts, on_fatal: Some(on_fatal) }
    }

    /// The same with another time after which a child whose thread does not answer is stuck.
    pub fn with_stuck_after(self, stuck_after: Duration) -> Self {
        Self { stuck_after, ..self }
    }

    fn look_every(&self) -> Duration {
        LOOK_EVERY.min(self.stuck_after / LOOKS_MIN)
    }

    fn look_again(&mut self, context: &mut Context<Self>) {
        context.run_later(self.look_every(), |guardian, context| {
            guardian.look();
            guardian.look_again(context);
        });
    }

    fn give_up(&mut self, why: String) {
        if let Some(on_fatal) = self.on_fatal.take() {
            log::error!("the guardian gives up reason=\"{why}\"");
            on_fatal(why);
        }
    }

    fn look(&mut self) {
        let dead =
            self.children.iter().find(|child| !(child.watched.is_alive)()).map(|child| child.watched.vital.name());
        if let Some(name) = dead {
            self.give_up(format!("actor {name} died"));
        }
        let (every, stuck_after) = (self.look_every(), self.stuck_after);
        let mut hopeless = None;
        for child in &mut self.children {
            let was_stuck = child.looks > 0 && every * (child.looks - 1) >= stuck_after;
            child.look();
            let silent_for = every * child.looks.saturating_sub(1);
            let vital = &child.watched.vital;
            let is_stuck = child.looks > 0 && silent_for >= stuck_after;
            if is_stuck != was_stuck {
                vital.stuck(is_stuck);
                let name = vital.name();
                match is_stuck {
                    true => log::error!("an actor is stuck actor={name} seconds={}", silent_for.as_secs_f32()),
                    false => {
                        log::warn!("an actor that was stuck answers again, it is rebuilt actor={name}");
                        (child.watched.rebuild)();
                    }
                }
            }
            if is_stuck && silent_for >= stuck_after * 2 {
                hopeless.get_or_insert((vital.name(), silent_for));
            }
        }
        if let Some((name, silent_for)) = hopeless {
            self.give_up(format!("actor {name} is stuck for {} s", silent_for.as_secs_f32()));
        }
    }
}

/// Request: everything is about to be ended on purpose. From the answer on nothing is watched any more.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct StandDown;

impl Handler<StandDown> for Guardian {
    type Result = ();

    fn handle(&mut self, _: StandDown, _: &mut Self::Context) {
        self.children.clear();
        self.on_fatal = None;
    }
}

impl Actor for Guardian {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        self.look_again(context);
    }
}

impl Handler<WatchChild> for Guardian {
    type Result = ();

    fn handle(&mut self, watched: WatchChild, _: &mut Self::Context) {
        let sign = Arc::new(AtomicBool::new(true));
        self.children.push(Child { watched, sign, looks: 0 });
    }
}

impl Handler<ChildRestarted> for Guardian {
    type Result = ();

    fn handle(&mut self, child: ChildRestarted, _: &mut Self::Context) {
        let now = Instant::now();
        self.restarts.push_back(now);
        self.restarts.retain(|restart| now.duration_since(*restart) < RESTARTS_WINDOW);
        if self.restarts.len() > RESTARTS_MAX {
            let seconds = RESTARTS_WINDOW.as_secs();
            let count = self.restarts.len();
            self.give_up(format!("{count} restarts within {seconds} s, the last of actor {}", child.name));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use actix::Arbiter;

    use super::super::guard::ActorState;
    use super::*;

    fn counting() -> (Arc<AtomicUsize>, OnFatal) {
        let calls = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&calls);
        let on_fatal = move |_| {
            counter.fetch_add(1, Ordering::SeqCst);
        };
        (calls, Box::new(on_fatal))
    }

    #[actix_rt::test]
    async fn past_the_budget_it_gives_up_once() {
        let (calls, on_fatal) = counting();
        let guardian = Guardian::new(on_fatal).start();
        for _ in 0..RESTARTS_MAX {
            guardian.send(ChildRestarted { name: "child" }).await.unwrap();
        }
        assert_eq!(calls.load(Ordering::SeqCst), 0);
        for _ in 0..3 {
            guardian.send(ChildRestarted { name: "child" }).await.unwrap();
        }
        assert_eq!(calls.load(Ordering::SeqCst), 1);
    }

    #[actix_rt::test]
    async fn who_ends_on_purpose_is_not_given_up() {
        let (calls, on_fatal) = counting();
        let guardian = Guardian::new(on_fatal).with_stuck_after(Duration::from_millis(40)).start();
        let arbiter = Arbiter::new();
        let vital = Vital::new("child", guardian.clone().recipient());
        let (is_alive, rebuild) = (Box::new(|| false), Box::new(|| ()));
        guardian.send(WatchChild { vital, is_alive, arbiter: arbiter.handle(), rebuild }).await.unwrap();
        guardian.send(StandDown).await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(calls.load(Ordering::SeqCst), 0);
        arbiter.stop();
        arbiter.join().unwrap();
    }

    #[actix_rt::test]
    async fn a_dead_child_is_noticed() {
        let (calls, on_fatal) = counting();
        let mut guardian = Guardian::new(on_fatal);
        let arbiter = Arbiter::new();
        guardian.children.push(child(&arbiter, true));
        guardian.look();
        assert_eq!(calls.load(Ordering::SeqCst), 0);
        guardian.children.push(child(&arbiter, false));
        guardian.look();
        assert_eq!(calls.load(Ordering::SeqCst), 1);
    }

    fn child(arbiter: &Arbiter, is_alive: bool) -> Child {
        let vital = Vital::new("child", Guardian::new(Box::new(|_| ())).start().recipient());
        let (is_alive, rebuild) = (Box::new(move || is_alive), Box::new(|| ()));
        let watched = WatchChild { vital, is_alive, arbiter: arbiter.handle(), rebuild };
        Child { watched, sign: Arc::new(AtomicBool::new(true)), looks: 0 }
    }

    #[actix_rt::test]
    async fn a_thread_that_is_kept_is_reported_forgiven_and_in_the_end_fatal() {
        let (calls, on_fatal) = counting();
        // Four looks make the time; none of them is waited for here.
        let mut guardian = Guardian::new(on_fatal).with_stuck_after(Duration::from_secs(4));
        let arbiter = Arbiter::new();
        guardian.children.push(child(&arbiter, true));
        let vital = guardian.children[0].watched.vital.clone();
        let keep = || {
            let (entered, inside) = tokio::sync::oneshot::channel();
            let (release, gate) = std::sync::mpsc::channel::<()>();
            arbiter.spawn_fn(move || {
                let _ = entered.send(());
                let _ = gate.recv();
            });
            (inside, release)
        };
        let (inside, release) = keep();
        inside.await.unwrap();
        for _ in 0..5 {
            guardian.look();
            assert_eq!(vital.state(), ActorState::Up);
        }
        guardian.look();
        assert_eq!(vital.state(), ActorState::Stuck);
        drop(release);
        while vital.state() == ActorState::Stuck {
            tokio::time::sleep(Duration::from_millis(1)).await;
            if guardian.children[0].sign.load(Ordering::Acquire) {
                guardian.look();
            }
        }
        assert_eq!(calls.load(Ordering::SeqCst), 0);
        let (inside, _release) = keep();
        inside.await.unwrap();
        for _ in 0..20 {
            guardian.look();
        }
        assert_eq!((calls.load(Ordering::SeqCst), vital.state()), (1, ActorState::Stuck));
    }
}
