//! The heart.

use std::time::{Duration, Instant};

use actix::fut::wrap_future;
use actix::{Actor, ActorFutureExt, AsyncContext, Context, Supervised};

use super::{Membership, trouble};
use crate::model::Result;
use crate::runtime::guard::{Vital, can_be_rebuilt};
use crate::store::instances::Peers;

/// The pause between heartbeats: three may get lost before others take this instance for gone.
const BEAT_EVERY: Duration = Duration::from_secs(5);

/// Says again and again that this instance is there, and tells people what is wrong between instances.
pub struct ClusterActor {
    vital: Vital,
    membership: Membership,
    beat_every: Duration,
    /// A heartbeat is under way: no second one is begun.
    is_beating: bool,
    /// The last heartbeat failed.
    is_failing: bool,
    /// The live others, as they were told last.
    others: Option<String>,
    told: trouble::Told,
}

impl ClusterActor {
    /// The heart of an instance that has joined.
    pub fn new(vital: Vital, membership: Membership) -> Self {
        Self::with_pace(vital, membership, BEAT_EVERY)
    }

    fn with_pace(vital: Vital, membership: Membership, beat_every: Duration) -> Self {
        let told = trouble::Told::default();
        Self { vital, membership, beat_every, is_beating: false, is_failing: false, others: None, told }
    }

    fn beat(&mut self, context: &mut Context<Self>) {
        if std::mem::replace(&mut self.is_beating, true) {
            return;
        }
        let membership = self.membership.clone();
        let beaten = self.vital.clone().guard_work(async move { membership.beat().await });
        let heard = |outcome, actor: &mut Self, context: &mut Context<Self>| {
            let vital = actor.vital.clone();
            // What it panicked about is in the log; the supervisor makes a new actor.
            let _ = vital.guard_state(actor, context, |actor, _| actor.heard(outcome));
        };
        context.spawn(wrap_future(beaten).map(heard));
    }

    fn heard(&mut self, outcome: Result<Option<Peers>>) {
        self.is_beating = false;
        let peers = match outcome {
            Ok(Some(peers)) => peers,
            Ok(None) => return,
            Err(error) => {
                self.vital.work_failed(&error);
                if !std::mem::replace(&mut self.is_failing, true) {
                    log::warn!("heartbeats fail, others may take this instance for gone error=\"{error}\"");
                }
                return;
            }
        };
        let me = self.membership.me();
        if std::mem::take(&mut self.is_failing) {
            log::info!("heartbeats arrive again instance={}", me.id);
        }
        let others = trouble::names(&peers.live);
        if self.others.as_ref() != Some(&others) {
            log::info!("instances instance={} others={others}", me.id);
            self.others = Some(others);
        }
        let (errors, over) = self.told.changes(Instant::now(), trouble::find(me, &peers));
        for line in errors {
            log::error!("{line}");
        }
        for line in over {
            log::info!("over: {line}");
        }
    }
}

impl Actor for ClusterActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        // Joining was a heartbeat, but told nobody what it heard.
        self.beat(context);
        context.run_interval(self.beat_every, Self::beat);
    }
}

impl Supervised for ClusterActor {
    fn restarting(&mut self, context: &mut Self::Context) {
        *self = Self::with_pace(self.vital.clone(), self.membership.clone(), self.beat_every);
        self.vital.clone().restarted(context);
    }
}

can_be_rebuilt!(ClusterActor, |actor| &actor.vital);

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

    use async_trait::async_trait;

    use super::*;
    use crate::model::{Error, Kind, Stamp};
    use crate::runtime::guardian::Guardian;
    use crate::store::instances::{Instance, InstanceRegistry, KnownInstance};

    #[derive(Default)]
    struct Registry {
        beats: AtomicUsize,
        left: AtomicUsize,
        is_stuck: AtomicBool,
        panics: AtomicBool,
        others: Vec<KnownInstance>,
    }

    #[async_trait]
    impl InstanceRegistry for Registry {
        async fn beat(&self, _: &Instance, _: i64) -> Result<Peers> {
            self.beats.fetch_add(1, SeqCst);
            assert!(!self.panics.load(SeqCst), "wanted");
            if self.is_stuck.load(SeqCst) {
                std::future::pending::<()>().await;
            }
            assert_eq!(self.left.load(SeqCst), 0, "a heartbeat after the farewell");
            Ok(Peers { live: self.others.clone(), is_name_taken: false })
        }

        async fn leave(&self, _: &str, _: i64) -> Result<()> {
            self.left.fetch_add(1, SeqCst);
            Ok(())
        }

        async fn instances(&self) -> Result<Vec<KnownInstance>> {
            Err(Error::new(Kind::Internal, "not asked for"))
        }

        async fn tie_to_contents(&self, _: &str) -> Result<String> {
            Err(Error::new(Kind::Internal, "not asked for"))
        }
    }

    fn me() -> Instance {
        let [id, address, version, contents, locks] = ["a", "a:80", "1", "s3 bucket x", "postgres"].map(str::to_owned);
        Instance { id, address, version, contents, locks }
    }

    async fn beating(registry: &Arc<Registry>) -> Membership {
        let membership = Membership::join(Arc::clone(registry) as _, me()).await.unwrap();
        let vital = Vital::new("cluster", Guardian::new(Box::new(|_| {})).start().recipient());
        ClusterActor::with_pace(vital, membership.clone(), Duration::from_millis(10)).start();
        membership
    }

    async fn pause() {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }

    #[actix_rt::test]
    async fn it_beats_until_it_leaves() {
        let registry = Arc::new(Registry::default());
        let membership = beating(&registry).await;
        pause().await;
        assert!(registry.beats.load(SeqCst) > 3);
        membership.leave().await.unwrap();
        let beats = registry.beats.load(SeqCst);
        pause().await;
        assert_eq!((registry.beats.load(SeqCst), registry.left.load(SeqCst)), (beats, 1));
    }

    #[actix_rt::test]
    async fn heartbeats_do_not_pile_up() {
        let registry = Arc::new(Registry::default());
        let _membership = beating(&registry).await;
        registry.is_stuck.store(true, SeqCst);
        pause().await;
        let beats = registry.beats.load(SeqCst);
        pause().await;
        assert_eq!(registry.beats.load(SeqCst), beats);
    }

    #[actix_rt::test]
    async fn a_panic_of_the_store_is_survived() {
        let registry = Arc::new(Registry::default());
        let _membership = beating(&registry).await;
        registry.panics.store(true, SeqCst);
        pause().await;
        registry.panics.store(false, SeqCst);
        let beats = registry.beats.load(SeqCst);
        pause().await;
        assert!(registry.beats.load(SeqCst) > beats);
    }

    #[actix_rt::test]
    async fn contents_elsewhere_are_refused_at_the_door() {
        let other = Instance { id: "b".into(), contents: "s3 bucket y".into(), ..me() };
        let silent_for = Duration::ZERO;
        let others = vec![KnownInstance { instance: other, started_at: Stamp::from_seconds(0), silent_for }];
        let registry = Arc::new(Registry { others, ..Registry::default() });
        let refusal = Membership::join(Arc::clone(&registry) as _, me()).await.map(drop).unwrap_err();
        assert_eq!((refusal.kind(), registry.left.load(SeqCst)), (Kind::Invalid, 1));
        assert!(refusal.to_string().contains("s3 bucket y"), "{refusal}");
    }
}
