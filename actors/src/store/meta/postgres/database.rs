//! Running statements: connections from the pool, timeouts, and what is tried again.

use std::time::{Duration, Instant, SystemTime};

use deadpool_postgres::{
    Manager, ManagerConfig, Object, Pool, PoolConfig, PoolError, RecyclingMethod, Runtime, TimeoutType, Timeouts,
};
use rand::Rng;
use tokio::sync::Semaphore;
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};

use super::clock::Clock;
use crate::model::{Error, Kind, Result};
use crate::runtime::breaker::Breaker;
use crate::store::meta::Connections;
use crate::store::postgres::{Connector, PostgresSettings, describe, is_lost, is_undone, sql_error};

/// The longest that one operation takes, all attempts together.
const OPERATION_MAX: Duration = Duration::from_secs(4);
/// A database that does not let anybody in is asked again for so long.
const CONNECT_AGAIN_MAX: Duration = Duration::from_millis(1500);
/// So many times an operation is tried again.
const REPEATS_MAX: u32 = 12;
/// The first pause before it is tried again; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(5);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_millis(250);
/// Past the time that the server is given for a statement, its answer is waited for so long.
const ANSWER_GRACE: Duration = Duration::from_millis(300);

/// A request that the database refused because it came too late; see [`super::clock`].
const TOO_LATE: &str = "S3D01";
/// Rows that contradict each other.
const DAMAGED: &str = "S3D02";
/// The database is set up in a way that the transactions are not made for.
const WRONG_SETTINGS: &str = "S3D03";

/// A statement with the types of its parameters, so that it can be run in one round trip.
pub(super) struct Sql {
    pub(super) text: &'static str,
    pub(super) types: &'static [Type],
}

/// What a statement whose answer was lost may do when it is run again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Again {
    /// The second answer is as good as the first.
    Harmless,
    /// It is run again only when it surely did nothing: the second answer would be another one.
    Misleading,
}

/// The pool, and everything around one statement.
pub(super) struct Database {
    pool: Pool,
    /// Operations inside: on a connection or waiting for one.
    places: Semaphore,
    breaker: Breaker,
    pub(super) clock: Clock,
    statement_timeout: Duration,
    is_pooled: bool,
}

/// A connection with a statement under way: unless the answer came, it is closed and not used again.
struct Lent(Option<Object>);

impl Lent {
    /// The answer came: the connection goes back to the pool.
    fn back(mut self) {
        drop(self.0.take());
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            drop(Object::take(connection));
        }
    }
}

/// One statement to run.
struct Work<'a> {
    /// What it does, for errors.
    doing: &'static str,
    again: Again,
    is_write: bool,
    sql: &'a Sql,
    parameters: &'a [&'a (dyn ToSql + Sync)],
}

const READ_CLOCK: Sql = Sql { text: "SELECT clock_timestamp()", types: &[] };

/// Why an attempt failed, as far as the next one depends on it.
enum Failure {
    /// Nothing was done.
    Undone(Error),
    /// Nothing was done, because the database lets nobody in.
    Closed(Error),
    /// Nobody knows.
    Unknown(Error),
    /// Trying again does not help.
    Final(Error),
}

impl Database {
    /// A pool of at most `connections` connections, before which at most `backlog` operations wait.
    pub(super) fn new(settings: &PostgresSettings, connections: usize, backlog: usize) -> Result<Self> {
        let connector = Connector::new(settings)?;
        let manager = Manager::from_connect(
            connector.config().clone(),
            connector.for_pool(),
            ManagerConfig { recycling_method: RecyclingMethod::Fast },
        );
        let mut config = PoolConfig::new(connections);
        config.timeouts = Timeouts {
            wait: Some(OPERATION_MAX),
            create: Some(settings.connect_timeout),
            recycle: Some(settings.connect_timeout),
        };
        let pool = Pool::builder(manager).config(config).runtime(Runtime::Tokio1).build();
        let pool = pool.map_err(|error| Error::new(Kind::Internal, "cannot make a pool").with_source(error))?;
        Ok(Self {
            pool,
            places: Semaphore::new(connections + backlog),
            breaker: Breaker::new("the database"),
            clock: Clock::default(),
            statement_timeout: settings.statement_timeout,
            is_pooled: settings.is_pooled,
        })
    }

    /// How the connections do.
    pub(super) fn connections(&self) -> Connections {
        let status = self.pool.status();
        Connections { open: status.size, idle: status.available, breaker: self.breaker.state() }
    }

    /// Runs a statement that reads.
    pub(super) async fn read(&self, sql: &Sql, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>> {
        let work = Work { doing: "read the database", again: Again::Harmless, is_write: false, sql, parameters };
        self.operate(&work).await
    }

    /// Runs a statement that writes. Its first parameter, before `parameters`, is the moment from which on
    /// it must not be carried out.
    pub(super) async fn write(&self, again: Again, sql: &Sql, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>> {
        let work = Work { doing: "write to the database", again, is_write: true, sql, parameters };
        self.operate(&work).await
    }

    /// Runs the work on a connection until it succeeds, time is up or trying again does not help.
    async fn operate(&self, work: &Work<'_>) -> Result<Vec<Row>> {
        let full = |_| Error::new(Kind::Overloaded, "too many metadata operations are waiting");
        let _place = self.places.try_acquire().map_err(full)?;
        self.breaker.call(self.attempts(work)).await
    }

    async fn attempts(&self, work: &Work<'_>) -> Result<Vec<Row>> {
        let begun = Instant::now();
        let deadline = begun + OPERATION_MAX;
        let mut pause_max = PAUSE_MIN;
        for repeat in 0.. {
            let error = match self.attempt(work, deadline).await {
                Ok(answer) => return Ok(answer),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Unknown(error)) if work.again == Again::Misleading => return Err(error),
                Err(Failure::Closed(error)) if begun.elapsed() > CONNECT_AGAIN_MAX => return Err(error),
                Err(Failure::Undone(error) | Failure::Closed(error) | Failure::Unknown(error)) => error,
            };
            let pause = pause_max.mul_f64(rand::rng().random_range(0.3..=1.0));
            if repeat >= REPEATS_MAX || Instant::now() + pause >= deadline {
                return Err(error);
            }
            log::debug!("a database operation is tried again error=\"{error:?}\"");
            tokio::time::sleep(pause).await;
            pause_max = (pause_max * 2).min(PAUSE_MAX);
        }
        Err(Error::new(Kind::Internal, "internal error"))
    }

    async fn attempt(&self, work: &Work<'_>, deadline: Instant) -> Result<Vec<Row>, Failure> {
        let late = |_| Error::new(Kind::Unavailable, "the database does not answer in time");
        let got = tokio::time::timeout_at(deadline.into(), self.pool.get()).await;
        let connection = got.map_err(|elapsed| Failure::Closed(late(elapsed)))?.map_err(no_connection)?;
        let lent = Lent(Some(connection));
        let Some(connection) = &lent.0 else {
            return Err(Failure::Final(Error::new(Kind::Internal, "internal error")));
        };
        let answer_by = deadline.min(Instant::now() + self.statement_timeout + ANSWER_GRACE);
        let answered = tokio::time::timeout_at(answer_by.into(), self.run(connection, work, deadline)).await;
        let answered = answered.map_err(|elapsed| {
            // Those that are idle may lead nowhere as well, and nothing would tell.
            drop(self.pool.retain(|_, _| false));
            Failure::Unknown(late(elapsed))
        });
        match answered? {
            Ok(rows) => {
                lent.back();
                Ok(rows)
            }
            Err(error) => {
                let is_lost = connection.is_closed() || is_lost(&error);
                if is_lost {
                    // The next connection may lead to another server.
                    self.clock.forget();
                } else {
                    lent.back();
                }
                Err(self.understand(work.doing, error, is_lost))
            }
        }
    }

    async fn run(
        &self,
        connection: &Object,
        work: &Work<'_>,
        deadline: Instant,
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        if !work.is_write {
            return self.query(connection, work.sql, work.parameters).await;
        }
        let valid_until = match self.clock.time_at(deadline) {
            Some(time) => time,
            None => {
                let rows = self.query(connection, &READ_CLOCK, &[]).await?;
                if let Some(row) = rows.first() {
                    self.clock.read(row.try_get(0)?);
                }
                self.clock.time_at(deadline).unwrap_or(SystemTime::UNIX_EPOCH)
            }
        };
        let mut parameters: Vec<&(dyn ToSql + Sync)> = Vec::with_capacity(1 + work.parameters.len());
        parameters.push(&valid_until);
        parameters.extend_from_slice(work.parameters);
        self.query(connection, work.sql, &parameters).await
    }

    async fn query(
        &self,
        connection: &Object,
        sql: &Sql,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        if self.is_pooled {
            let typed: Vec<_> = parameters.iter().copied().zip(sql.types.iter().cloned()).collect();
            return connection.query_typed(sql.text, &typed).await;
        }
        let statement = connection.prepare_typed_cached(sql.text, sql.types).await?;
        connection.query(&statement, parameters).await
    }

    fn understand(&self, doing: &str, error: tokio_postgres::Error, is_lost: bool) -> Failure {
        let code = error.code().map(|code| code.code().to_owned()).unwrap_or_default();
        if code == TOO_LATE {
            self.clock.forget();
            return Failure::Undone(Error::new(Kind::Unavailable, "the request was on its way for too long"));
        }
        if code == DAMAGED {
            let text = format!("the database is damaged: {}", describe(&error));
            return Failure::Final(Error::new(Kind::Corrupt, text));
        }
        if code == WRONG_SETTINGS {
            return Failure::Final(Error::new(Kind::Unavailable, describe(&error)));
        }
        if let Some(&SqlState::INVALID_SQL_STATEMENT_NAME | &SqlState::DUPLICATE_PSTATEMENT) = error.code() {
            log::error!("prepared statements get lost: is there a proxy? set POSTGRES_TRANSACTION_POOLING=true");
        }
        let is_undone = is_undone(&error);
        let error = sql_error(doing, error);
        if is_undone {
            Failure::Undone(error)
        } else if is_lost {
            Failure::Unknown(error)
        } else {
            Failure::Final(error)
        }
    }
}

fn no_connection(error: PoolError) -> Failure {
    match error {
        PoolError::Timeout(TimeoutType::Wait) => {
            Failure::Final(Error::new(Kind::Overloaded, "all database connections are busy"))
        }
        PoolError::Backend(error) => Failure::Closed(sql_error("connect to the database", error)),
        other => {
            Failure::Closed(Error::new(Kind::Unavailable, "the database does not answer in time").with_source(other))
        }
    }
}
