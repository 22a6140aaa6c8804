//! The one thread that writes: everything that is waiting goes into one commit.
//!
//! Each job runs in a savepoint of its own, so a failing job undoes only itself; answers are given
//! after the common commit is on the disk. With many writers the cost of a sync is shared.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use rusqlite::Connection;
use tokio::sync::oneshot;

use super::sql_error;
use crate::model::{Error, Kind, Result};

/// The most jobs in one commit.
const BATCH_JOBS_MAX: usize = 256;

/// A job that waited longer than this is refused unrun: its client is about to give up.
const WAIT_MAX: Duration = Duration::from_secs(2);

/// Tells one job's caller how it went, once the fate of the commit is known.
type Finish = Box<dyn FnOnce(&Result<(), CommitFailed>) + Send>;
type Work = Box<dyn FnOnce(Attempt<'_>) -> Finish + Send>;

/// The common commit failed; every job in it gets an error of its own.
struct CommitFailed(String);

enum Attempt<'a> {
    Run(&'a Connection),
    Refuse(Error),
}

struct Job {
    queued: Instant,
    work: Work,
}

/// A handle on the writer thread; dropping it ends the thread after what is queued.
pub(super) struct Writer {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts the thread with its connection behind a queue of `backlog` jobs.
    pub(super) fn start(connection: Connection, backlog: usize) -> std::io::Result<Self> {
        let (jobs, inbox) = bounded(backlog);
        let thread = std::thread::Builder::new().name("sqlite-writer".into());
        let thread = thread.spawn(move || write_until_closed(&connection, &inbox))?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread) })
    }

    /// Runs `work` inside a write transaction and answers once it is durable. A full queue is
    /// [`Kind::Overloaded`] at once.
    pub(super) async fn run<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel::<Result<T>>();
        let work: Work = Box::new(move |attempt| {
            let outcome = match attempt {
                Attempt::Run(connection) => in_savepoint(connection, work),
                Attempt::Refuse(error) => Err(error),
            };
            Box::new(move |commit| {
                let outcome = match commit {
                    Ok(()) => outcome,
                    Err(CommitFailed(cause)) => outcome.and_then(|_| Err(unwritable(cause.clone()))),
                };
                // The caller may be gone: nobody is left to tell.
                let _ = reply.send(outcome);
            })
        });
        let jobs = self.jobs.as_ref().ok_or_else(stopped)?;
        jobs.try_send(Job { queued: Instant::now(), work }).map_err(|error| match error {
            TrySendError::Full(_) => Error::new(Kind::Overloaded, "too many metadata writes are waiting"),
            TrySendError::Disconnected(_) => stopped(),
        })?;
        answer.await.map_err(|_| stopped())?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the database writer thread died");
        }
    }
}

fn write_until_closed(connection: &Connection, inbox: &Receiver<Job>) {
    while let Ok(first) = inbox.recv() {
        let mut batch = vec![first];
        batch.extend(inbox.try_iter().take(BATCH_JOBS_MAX - 1));
        write_batch(connection, batch);
    }
    if let Err(error) = connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)") {
        log::warn!("the last checkpoint of the database failed error=\"{error}\"");
    }
}

fn write_batch(connection: &Connection, batch: Vec<Job>) {
    if let Err(error) = begin(connection) {
        let cause = error.to_string();
        for job in batch {
            (job.work)(Attempt::Refuse(unwritable(cause.clone())))(&Ok(()));
        }
        log::warn!("the database can't be written error=\"{cause}\"");
        return;
    }
    let mut finishes = Vec::with_capacity(batch.len());
    for job in batch {
        let attempt = if job.queued.elapsed() > WAIT_MAX {
            Attempt::Refuse(Error::new(Kind::Overloaded, "metadata writes are too slow"))
        } else {
            Attempt::Run(connection)
        };
        finishes.push((job.work)(attempt));
    }
    let commit = connection.execute_batch("COMMIT").map_err(|error| {
        let cause = error.to_string();
        log::error!("a commit failed error=\"{cause}\"");
        roll_back(connection);
        CommitFailed(cause)
    });
    for finish in finishes {
        finish(&commit);
    }
}

fn begin(connection: &Connection) -> rusqlite::Result<()> {
    if !connection.is_autocommit() {
        roll_back(connection);
    }
    connection.execute_batch("BEGIN IMMEDIATE")
}

fn roll_back(connection: &Connection) {
    if !connection.is_autocommit()
        && let Err(error) = connection.execute_batch("ROLLBACK")
    {
        log::error!("a rollback failed error=\"{error}\"");
    }
}

/// Runs `work`; when it fails or panics, what it wrote is undone and nothing else.
fn in_savepoint<T>(connection: &Connection, work: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
    let step = |sql: &str| -> Result<()> {
        let run = connection.prepare_cached(sql).and_then(|mut statement| statement.execute([]));
        run.map(drop).map_err(|error| sql_error("write to the database", error))
    };
    step("SAVEPOINT job")?;
    let outcome = catch_unwind(AssertUnwindSafe(|| work(connection))).unwrap_or_else(|_| {
        log::error!("a database write panicked");
        Err(Error::new(Kind::Internal, "internal error"))
    });
    if outcome.is_err() {
        step("ROLLBACK TO job")?;
    }
    step("RELEASE job")?;
    outcome
}

fn unwritable(cause: String) -> Error {
    Error::new(Kind::Unavailable, "the database can't be written now").with_source(cause)
}

fn stopped() -> Error {
    Error::new(Kind::Unavailable, "the database is shut down")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer(dir: &std::path::Path) -> Writer {
        let connection = super::super::migrate::connect(&dir.join("kv.db"), 1024).unwrap();
        connection.execute_batch("CREATE TABLE t (x INTEGER PRIMARY KEY)").unwrap();
        Writer::start(connection, 64).unwrap()
    }

    fn insert(connection: &Connection, x: i64) -> Result<()> {
        connection.execute("INSERT INTO t VALUES (?1)", [x]).map(drop).map_err(|error| sql_error("insert", error))
    }

    #[actix_rt::test]
    async fn a_failing_or_panicking_job_undoes_only_itself() {
        let dir = tempfile::tempdir().unwrap();
        let writer = writer(dir.path());
        let fails = writer.run(|connection| {
            insert(connection, 1)?;
            Err::<(), _>(Error::new(Kind::Invalid, "no"))
        });
        let panics = writer.run(|connection| -> Result<()> {
            insert(connection, 2)?;
            panic!("boom")
        });
        let works = writer.run(|connection| insert(connection, 3));
        let (fails, panics, works) = futures_util::future::join3(fails, panics, works).await;
        assert_eq!(fails.unwrap_err().kind(), Kind::Invalid);
        assert_eq!(panics.unwrap_err().kind(), Kind::Internal);
        works.unwrap();
        let read = |connection: &Connection| {
            let rows = connection.query_row("SELECT count(*), max(x) FROM t", [], |row| Ok((row.get(0)?, row.get(1)?)));
            rows.map_err(|error| sql_error("read", error))
        };
        assert_eq!(writer.run(read).await.unwrap(), (1i64, 3i64));
    }

    #[actix_rt::test]
    async fn a_lock_held_by_another_process_is_unavailable_and_passes() {
        let dir = tempfile::tempdir().unwrap();
        let writer = writer(dir.path());
        let other = Connection::open(dir.path().join("kv.db")).unwrap();
        other.execute_batch("BEGIN EXCLUSIVE").unwrap();
        let blocked = writer.run(|connection| insert(connection, 1)).await;
        assert_eq!(blocked.unwrap_err().kind(), Kind::Unavailable);
        other.execute_batch("ROLLBACK").unwrap();
        writer.run(|connection| insert(connection, 1)).await.unwrap();
    }
}
