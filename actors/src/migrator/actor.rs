//! A migration in a server.

use std::time::Duration;

use actix::fut::wrap_future;
use actix::{Actor, ActorFutureExt, AsyncContext, Context, Supervised};

use super::copier::{Copier, Ended};
use super::progress::{MigrationPhase, MigrationSnapshot};
use crate::model::{Kind, Result};
use crate::runtime::guard::{Vital, can_be_rebuilt};

/// Until it is looked again whether another instance is still at it, and after what cannot go on.
const AGAIN_AFTER: Duration = Duration::from_secs(30);

/// How often it says how far it is.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Runs a migration once to its end.
pub(crate) struct MigratorActor {
    vital: Vital,
    copier: Copier,
}

impl MigratorActor {
    /// A migration that begins by itself.
    pub(crate) fn new(vital: Vital, copier: Copier) -> Self {
        Self { vital, copier }
    }

    fn run(&mut self, context: &mut Context<Self>) {
        let copier = self.copier.clone();
        let ran = self.vital.clone().guard_work(async move { copier.run().await });
        context.spawn(wrap_future(ran).map(|ended, actor: &mut Self, context: &mut Context<Self>| {
            if let Err(error) = &ended {
                actor.vital.work_failed(error);
            }
            tell(&ended, context);
        }));
    }
}

fn tell(ended: &Result<Ended>, context: &mut Context<MigratorActor>) {
    match ended {
        Ok(Ended::Done(done)) => {
            let counts = done.counts;
            log::info!(
                "the migration is done copied={} skipped={} gone={} deleted_here={} failed={}",
                counts.copied,
                counts.skipped,
                counts.gone,
                counts.refused,
                counts.failed
            );
            return;
        }
        Ok(Ended::Stopped) => return,
        Ok(Ended::Busy) => log::debug!("another instance migrates"),
        Err(error) if matches!(error.kind(), Kind::Invalid) => {
            log::error!("the migration cannot go on error=\"{error}\"");
            return;
        }
        Err(error) => log::error!("the migration failed, it is tried again later error=\"{error}\""),
    }
    context.run_later(AGAIN_AFTER, MigratorActor::run);
}

fn tell_progress(now: &MigrationSnapshot) {
    if !now.is_active() || now.phase == MigrationPhase::Waiting {
        return;
    }
    let counts = &now.counts;
    log::info!(
        "migrating phase={} names={} settled={} copied={} failed={} logical_bytes={} stored_bytes={} saved={} \
         received_bytes={} files_per_second={:.0} seconds_left={}{}",
        now.phase.as_str(),
        counts.total,
        counts.settled(),
        counts.copied,
        counts.failed,
        counts.copied_bytes,
        counts.stored_bytes,
        now.savings().map_or_else(|| "-".to_owned(), |share| format!("{:.1}%", share * 100.0)),
        now.received_bytes,
        now.rate(),
        now.time_left().map_or_else(|| "?".to_owned(), |left| left.as_secs().to_string()),
        now.waits_for.as_ref().map(|what| format!(" waits_for={what:?}")).unwrap_or_default()
    );
}

impl Actor for MigratorActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.run_interval(TELL_EVERY, |actor, _| tell_progress(&actor.copier.progress().snapshot()));
        self.run(context);
    }
}

impl Supervised for MigratorActor {
    fn restarting(&mut self, context: &mut Self::Context) {
        *self = Self::new(self.vital.clone(), self.copier.clone());
        self.vital.clone().restarted(context);
    }
}

can_be_rebuilt!(MigratorActor, |actor| &actor.vital);
