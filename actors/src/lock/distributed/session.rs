//! The one session of an instance: opened, kept alive, opened again.
//!
//! Runs beside the actor on its thread, so that the actor is never kept waiting. Whatever goes wrong ends
//! the session: after a failure it is unknown what is held, and the server frees all of it at the end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Message, WeakAddr};
use rand::Rng;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::actor::DistributedLockActor;
use super::lease::Epoch;
use super::queue::{Outcome, Step};
use super::settings::DistributedLockStats;
use super::statement::LockStatement;
use crate::model::{Error, Kind, Result};
use crate::runtime::guard::Vital;
use crate::store::postgres::{Connector, Session, describe};

/// A statement that takes longer is given up, and the session with it.
const ANSWER_MAX: Duration = Duration::from_secs(4);
/// The first pause before a session is opened again; it doubles...
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// ...up to this: shorter than requests wait for a session.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// A session that lasted so long was a good one.
const STEADY_MIN: Duration = Duration::from_secs(5);

/// How sessions are opened.
#[derive(Clone)]
pub(super) struct SessionSpec {
    pub connector: Connector,
    pub ttl: Duration,
    pub held_max: usize,
    pub stats: DistributedLockStats,
}

/// Event: what happens to the session.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) enum SessionEvent {
    /// There is one.
    Began(LiveSession),
    /// A batch was done.
    Settled { epoch: Arc<Epoch>, done: Vec<(Step, Outcome)> },
    /// It is gone; it was last known to work at this time.
    Ended { epoch: Arc<Epoch>, since: Instant },
    /// The keeper panicked: what it had is gone, and it opens no other.
    Broke(Error),
}

/// The way to a session that runs.
pub(super) struct LiveSession {
    pub epoch: Arc<Epoch>,
    pub batches: mpsc::UnboundedSender<Vec<Step>>,
}

/// Keeps a session; dropping it ends the session.
pub(super) struct SessionKeeper(JoinHandle<()>);

impl SessionKeeper {
    /// To be called on the actor's thread.
    pub(super) fn start(spec: SessionSpec, vital: Vital, actor: WeakAddr<DistributedLockActor>) -> Self {
        Self(actix_rt::spawn(async move {
            let kept = async {
                keep(&spec, &actor).await;
                Ok(())
            };
            if let Err(error) = vital.guard_work(kept).await {
                tell(&actor, SessionEvent::Broke(error));
            }
        }))
    }
}

impl Drop for SessionKeeper {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Ends the epoch in whatever way the session ends.
struct EndOnDrop<'a>(&'a Epoch, &'a DistributedLockStats);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.end();
        self.1.connected(false);
    }
}

async fn keep(spec: &SessionSpec, actor: &WeakAddr<DistributedLockActor>) {
    let mut pause = PAUSE_MIN;
    let mut has_complained = false;
    loop {
        match open(spec).await {
            Ok((session, statement, began)) => {
                log::info!("the lock session is open");
                has_complained = false;
                serve(spec, actor, session, statement, began).await;
                if began.elapsed() > STEADY_MIN {
                    pause = PAUSE_MIN;
                }
            }
            Err(error) => {
                if !has_complained {
                    log::warn!("the lock session can't be opened, trying again error=\"{error}\"");
                }
                has_complained = true;
            }
        }
        if actor.upgrade().is_none() {
            return;
        }
        tokio::time::sleep(pause.mul_f64(rand::rng().random_range(0.5..=1.0))).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

async fn open(spec: &SessionSpec) -> Result<(Session, LockStatement, Instant)> {
    let opening = async {
        let session = spec.connector.connect().await?;
        set_up(&session, spec.ttl).await?;
        let statement = LockStatement::prepare(session.client()).await?;
        let began = Instant::now();
        // Shows a proxy that hands statements to different connections before anything is locked.
        statement.run(session.client(), &[]).await?;
        warn_of_small_table(&session, spec.held_max).await;
        Ok((session, statement, began))
    };
    in_time(opening).await
}

/// Says so when all instances together might fill the server's table of locks, with which the whole database fails.
async fn warn_of_small_table(session: &Session, held_max: usize) {
    let size =
        "SELECT current_setting('max_locks_per_transaction')::bigint * current_setting('max_connections')::bigint";
    let rows = session.client().query_typed(size, &[]).await;
    let size: Option<i64> = rows.ok().and_then(|rows| rows.first()?.try_get(0).ok());
    if let Some(size) = size
        && i64::try_from(held_max).unwrap_or(i64::MAX) > size / 4
    {
        log::warn!(
            "LOCKS_HELD_MAX is more than a quarter of the database server's lock table held_max={held_max} \
             table={size}: when the table is full the whole database fails; raise max_locks_per_transaction"
        );
    }
}

/// Has the server end the session when this process is silent or gone.
async fn set_up(session: &Session, ttl: Duration) -> Result<()> {
    let (millis, seconds) = (ttl.as_millis(), ttl.as_secs().max(3));
    let settings = [
        ("idle_session_timeout", millis),
        ("tcp_keepalives_idle", u128::from(seconds / 3)),
        ("tcp_keepalives_interval", u128::from(seconds / 5).max(1)),
        ("tcp_keepalives_count", 3),
        ("tcp_user_timeout", millis),
        ("client_connection_check_interval", millis / 3),
    ]
    .map(|(name, value)| (name, value.to_string()));
    // The plan of the statement does not depend on its parameters.
    let plan = ("plan_cache_mode", "force_generic_plan".to_owned());
    for (name, value) in settings.into_iter().chain([plan]) {
        if let Err(error) = session.client().batch_execute(&format!("SET {name} = {value}")).await {
            let error_text = describe(&error);
            if session.client().is_closed() {
                return Err(Error::new(Kind::Unavailable, "can't set the lock session up").with_source(error_text));
            }
            if name == "idle_session_timeout" {
                warn_once(&error_text);
            }
            log::debug!("the server does not take a setting name={name} error=\"{error_text}\"");
        }
    }
    Ok(())
}

fn warn_once(error: &str) {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        log::warn!(
            "the server does not end idle sessions: locks of an instance that is stopped but not ended stay \
             (PostgreSQL 14 and later do) error=\"{error}\""
        );
    });
}

/// Runs batches until something goes wrong.
async fn serve(
    spec: &SessionSpec,
    actor: &WeakAddr<DistributedLockActor>,
    mut session: Session,
    statement: LockStatement,
    began: Instant,
) {
    let epoch = Arc::new(Epoch::new(began, spec.ttl));
    let end = EndOnDrop(&epoch, &spec.stats);
    spec.stats.session_opened();
    spec.stats.connected(true);
    let (batches, mut received) = mpsc::unbounded_channel();
    tell(actor, SessionEvent::Began(LiveSession { epoch: Arc::clone(&epoch), batches }));
    let ping_every = spec.ttl / 5;
    // Made once: moving a timer further away costs nothing.
    let (ping, limit) = (tokio::time::sleep(ping_every), tokio::time::sleep(ANSWER_MAX));
    tokio::pin!(ping, limit);
    let mut sent = began;
    let (why, since) = loop {
        let batch = tokio::select! {
            biased;
            batch = received.recv() => batch,
            () = session.closed() => {
                break (Error::new(Kind::Unavailable, "the connection was closed"), Instant::now());
            }
            () = &mut ping => {
                ping.as_mut().reset((sent + ping_every).max(Instant::now() + ping_every / 10).into());
                if sent.elapsed() < ping_every {
                    continue;
                }
                Some(Vec::new())
            }
        };
        // The actor has gone on without this session.
        let Some(steps) = batch else { return };
        sent = Instant::now();
        limit.as_mut().reset((sent + ANSWER_MAX).into());
        let answer = tokio::select! {
            biased;
            answer = statement.run(session.client(), &steps) => answer,
            () = &mut limit => Err(too_late()),
        };
        match answer {
            Ok(outcomes) => {
                epoch.prove(sent);
                if !steps.is_empty() {
                    spec.stats.batch_sent();
                    let done = steps.into_iter().zip(outcomes).collect();
                    tell(actor, SessionEvent::Settled { epoch: Arc::clone(&epoch), done });
                }
            }
            Err(error) => break (error, sent),
        }
    };
    // Leases tell that they are lost before the server gives their keys to others.
    drop(end);
    drop(session);
    log::warn!("the lock session is lost, opening another one error=\"{why}\"");
    tell(actor, SessionEvent::Ended { epoch, since });
}

async fn in_time<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(ANSWER_MAX, work).await.map_err(|_| too_late())?
}

fn too_late() -> Error {
    Error::new(Kind::Unavailable, "the database does not answer in time")
}

fn tell(actor: &WeakAddr<DistributedLockActor>, event: SessionEvent) {
    if let Some(actor) = actor.upgrade() {
        actor.do_send(event);
    }
}
