//! The root supervisor: counts restarts, watches that its children live, and gives up in time.
//!
//! Children restart themselves (see [`super::guard`]); what must be decided from above is when
//! restarting stops to help. Past the allowed intensity, or when a child died unguarded, the
//! guardian calls `on_fatal` once: the process is to end with a non-zero status, so that whatever
//! runs it starts it afresh.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use actix::{Actor, AsyncContext, Context, Handler, Message};

/// This many restarts...
const RESTARTS_MAX: usize = 5;
/// ...within this time are tolerated.
const RESTARTS_WINDOW: Duration = Duration::from_secs(60);
/// How often the children are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What ends the process; gets one line that says why.
pub type OnFatal = Box<dyn FnOnce(String) + Send>;

/// The root of the tree.
pub struct Guardian {
    children: Vec<WatchChild>,
    restarts: VecDeque<Instant>,
    on_fatal: Option<OnFatal>,
}

/// Event: a child was rebuilt after a panic.
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
    /// Which one.
    pub name: &'static str,
    /// Whether its address still leads anywhere.
    pub is_alive: Box<dyn Fn() -> bool + Send>,
}

impl Guardian {
    /// A guardian without children.
    pub fn new(on_fatal: OnFatal) -> Self {
        Self { children: Vec::new(), restarts: VecDeque::new(), on_fatal: Some(on_fatal) }
    }

    fn give_up(&mut self, why: String) {
        if let Some(on_fatal) = self.on_fatal.take() {
            log::error!("the guardian gives up reason=\"{why}\"");
            on_fatal(why);
        }
    }

    fn look(&mut self) {
        let dead = self.children.iter().find(|child| !(child.is_alive)()).map(|child| child.name);
        if let Some(name) = dead {
            self.give_up(format!("actor {name} died"));
        }
    }
}

impl Actor for Guardian {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.run_interval(LOOK_EVERY, |guardian, _| guardian.look());
    }
}

impl Handler<WatchChild> for Guardian {
    type Result = ();

    fn handle(&mut self, child: WatchChild, _: &mut Self::Context) {
        self.children.push(child);
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
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

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
    async fn a_dead_child_is_noticed() {
        let (calls, on_fatal) = counting();
        let mut guardian = Guardian::new(on_fatal);
        guardian.children.push(WatchChild { name: "alive", is_alive: Box::new(|| true) });
        guardian.look();
        assert_eq!(calls.load(Ordering::SeqCst), 0);
        guardian.children.push(WatchChild { name: "dead", is_alive: Box::new(|| false) });
        guardian.look();
        assert_eq!(calls.load(Ordering::SeqCst), 1);
    }
}
