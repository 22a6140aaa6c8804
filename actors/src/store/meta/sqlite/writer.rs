//! The one thread that writes: everything that is waiting goes into one commit.
//!
//! Each job runs in a savepoint of its own, so a failing job undoes only itself; answers are given
//! after the common commit is on the disk. With many writers the cost of a sync is shared.

use std::cell::Cell;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use rusqlite::Connection;
use tokio::sync::oneshot;

use super::sql_error;
use crate::model::{Error, Kind, Result};
use crate::runtime::behalf::Behalf;

/// The most jobs in one commit.
const BATCH_JOBS_MAX: usize = 256;

/// A job that waited longer than this is refused unrun: its client is about to give up.
const WAIT_MAX: Duration = Duration::from_secs(2);

/// Tells one job's caller how it went, once the fate of the commit is known.
type Finish = Box<dyn FnOnce(&Result<(), Unwritable>) + Send>;
type Work = Box<dyn FnOnce(Attempt<'_>) -> Ran + Send>;

/// A job that had its turn.
struct Ran {
    finish: Finish,
    /// Set when the job took the whole transaction with it: SQLite undoes all of it when, say, the
    /// disk is full.
    lost: Option<Unwritable>,
}

/// Why a batch could not be written; every job in it gets an error of its own.
#[derive(Clone, Debug)]
struct Unwritable {
    kind: Kind,
    cause: String,
}

impl Unwritable {
    /// A full disk, or anything else that is to be tried again later.
    fn new(error: &Error) -> Self {
        let kind = if error.kind() == Kind::NoSpace { Kind::NoSpace } else { Kind::Unavailable };
        Self { kind, cause: error.to_string() }
    }

    fn from_sql(doing: &str, error: rusqlite::Error) -> Self {
        Self::new(&sql_error(doing, error))
    }

    fn error(&self) -> Error {
        let context = match self.kind {
            Kind::NoSpace => "the database's disk is full",
            _ => "the database can't be written now",
        };
        Error::new(self.kind, context).with_source(self.cause.clone())
    }
}

/// Whether batches are written, so that a failure that lasts is logged once and not with every batch.
#[derive(Default)]
struct Health {
    failing: Option<Kind>,
}

impl Health {
    /// Takes note of a batch; returns whether it is news, which was logged then. A batch that changed
    /// nothing needs no room and proves nothing.
    fn note(&mut self, fate: &Result<(), Unwritable>, changed: bool) -> bool {
        let now = match fate {
            Ok(()) if !changed => return false,
            Ok(()) => None,
            Err(why) => Some(why.kind),
        };
        let is_news = now != self.failing;
        self.failing = now;
        match fate {
            _ if !is_news => {}
            Ok(()) => log::info!("the database can be written again"),
            Err(why) => log::error!("the database can't be written kind={:?} error=\"{}\"", why.kind, why.cause),
        }
        is_news
    }
}

/// A write transaction that several jobs share: the connection, and what the jobs add to the totals.
/// The totals are one row that every job changes, so it is written once, with the commit.
pub(super) struct Write<'a> {
    connection: &'a Connection,
    totals: Cell<TotalsChange>,
}

/// What is to be added to the row of totals.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct TotalsChange {
    pub(super) entries: i64,
    pub(super) contents: i64,
    pub(super) logical_bytes: i64,
    pub(super) stored_bytes: i64,
}

impl Deref for Write<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection
    }
}

impl Write<'_> {
    /// Adds to the totals, unless the job fails.
    pub(super) fn add_to_totals(&self, change: TotalsChange) {
        let sum = self.totals.get();
        self.totals.set(TotalsChange {
            entries: sum.entries + change.entries,
            contents: sum.contents + change.contents,
            logical_bytes: sum.logical_bytes + change.logical_bytes,
            stored_bytes: sum.stored_bytes + change.stored_bytes,
        });
    }

    /// Forgets what is to be added: the totals in the database have it already.
    pub(super) fn forget_totals(&self) {
        self.totals.set(TotalsChange::default());
    }

    fn write_totals(&self) -> rusqlite::Result<()> {
        let sum = self.totals.get();
        if sum == TotalsChange::default() {
            return Ok(());
        }
        let sql = "UPDATE state SET entries = entries + ?1, contents = contents + ?2,
            logical_bytes = logical_bytes + ?3, stored_bytes = stored_bytes + ?4 WHERE id = 1";
        let parameters = [sum.entries, sum.contents, sum.logical_bytes, sum.stored_bytes];
        self.connection.prepare_cached(sql)?.execute(parameters).map(drop)
    }
}

enum Attempt<'a> {
    Run(&'a Write<'a>),
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

    /// None: everything is refused.
    pub(super) fn absent() -> Self {
        Self { jobs: None, thread: None }
    }

    /// Runs `work` inside a write transaction and answers once it is durable. A full queue is
    /// [`Kind::Overloaded`] at once.
    pub(super) async fn run<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Write<'_>) -> Result<T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel::<Result<T>>();
        let behalf = Behalf::current();
        let work: Work = Box::new(move |attempt| {
            let (outcome, lost) = match attempt {
                Attempt::Run(write) => {
                    let outcome = behalf.enter(|| in_savepoint(write, work));
                    let lost = write.is_autocommit().then(|| loss(&outcome));
                    (outcome, lost)
                }
                Attempt::Refuse(error) => (Err(error), None),
            };
            let finish: Finish = Box::new(move |fate| {
                let outcome = match fate {
                    Ok(()) => outcome,
                    Err(why) => outcome.and_then(|_| Err(why.error())),
                };
                // The caller may be gone: nobody is left to tell.
                let _ = reply.send(outcome);
            });
            Ran { finish, lost }
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
    let mut health = Health::default();
    while let Ok(first) = inbox.recv() {
        let mut batch = vec![first];
        batch.extend(inbox.try_iter().take(BATCH_JOBS_MAX - 1));
        write_batch(connection, batch, &mut health);
    }
    if let Err(error) = connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)") {
        log::warn!("the last checkpoint of the database failed error=\"{error}\"");
    }
}

fn write_batch(connection: &Connection, batch: Vec<Job>, health: &mut Health) {
    let changes = connection.total_changes();
    let mut lost = begin(connection).err();
    let write = Write { connection, totals: Cell::default() };
    let mut finishes = Vec::with_capacity(batch.len());
    for job in batch {
        let attempt = match &lost {
            Some(why) => Attempt::Refuse(why.error()),
            None if job.queued.elapsed() > WAIT_MAX => {
                Attempt::Refuse(Error::new(Kind::Overloaded, "metadata writes are too slow"))
            }
            None => Attempt::Run(&write),
        };
        let ran = (job.work)(attempt);
        finishes.push(ran.finish);
        lost = lost.or(ran.lost);
    }
    let fate = match lost {
        Some(why) => Err(why),
        None => commit(&write),
    };
    health.note(&fate, connection.total_changes() != changes);
    for finish in finishes {
        finish(&fate);
    }
}

fn begin(connection: &Connection) -> Result<(), Unwritable> {
    roll_back(connection);
    let begun = connection.execute_batch("BEGIN IMMEDIATE");
    begun.map_err(|error| Unwritable::from_sql("begin to write to the database", error))
}

fn commit(write: &Write<'_>) -> Result<(), Unwritable> {
    write.write_totals().and_then(|()| write.execute_batch("COMMIT")).map_err(|error| {
        roll_back(write);
        Unwritable::from_sql("commit to the database", error)
    })
}

/// Undoes the transaction if there is one.
fn roll_back(connection: &Connection) {
    if !connection.is_autocommit()
        && let Err(error) = connection.execute_batch("ROLLBACK")
    {
        log::error!("a rollback failed error=\"{error}\"");
    }
}

/// Runs `work`; when it fails or panics, what it wrote is undone and nothing else, unless that is
/// impossible: then the whole transaction is gone afterwards.
fn in_savepoint<T>(write: &Write<'_>, work: impl FnOnce(&Write<'_>) -> Result<T>) -> Result<T> {
    let step = |sql: &str| -> Result<()> {
        let run = write.prepare_cached(sql).and_then(|mut statement| statement.execute([]));
        run.map(drop).map_err(|error| sql_error("write to the database", error))
    };
    let totals = write.totals.get();
    step("SAVEPOINT job")?;
    let outcome = catch_unwind(AssertUnwindSafe(|| work(write))).unwrap_or_else(|_| {
        log::error!("a database write panicked");
        Err(Error::panicked())
    });
    if outcome.is_err() {
        write.totals.set(totals);
    }
    if write.is_autocommit() {
        return outcome;
    }
    let undone = if outcome.is_err() { step("ROLLBACK TO job") } else { Ok(()) };
    let Err(error) = undone.and_then(|()| step("RELEASE job")) else { return outcome };
    roll_back(write);
    // A job that failed knows better what went wrong.
    outcome.and(Err(error))
}

/// Why the transaction is gone after a job with this outcome.
fn loss<T>(outcome: &Result<T>) -> Unwritable {
    match outcome {
        Err(error) => Unwritable::new(error),
        Ok(_) => Unwritable { kind: Kind::Unavailable, cause: "the transaction ended early".to_owned() },
    }
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
        assert_eq!(panics.unwrap_err().kind(), Kind::Panicked);
        works.unwrap();
        let read = |connection: &Write<'_>| {
            let rows = connection.query_row("SELECT count(*), max(x) FROM t", [], |row| Ok((row.get(0)?, row.get(1)?)));
            rows.map_err(|error| sql_error("read", error))
        };
        assert_eq!(writer.run(read).await.unwrap(), (1i64, 3i64));
    }

    fn sqlite_failure(code: i32) -> rusqlite::Error {
        rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None)
    }

    #[test]
    fn a_full_disk_is_told_from_other_failures_of_a_batch() {
        use rusqlite::ffi;
        for (code, kind) in [
            (ffi::SQLITE_FULL, Kind::NoSpace),
            (ffi::SQLITE_IOERR_SHMSIZE, Kind::NoSpace),
            (ffi::SQLITE_IOERR_WRITE, Kind::Unavailable),
            (ffi::SQLITE_BUSY, Kind::Unavailable),
            (ffi::SQLITE_CORRUPT, Kind::Unavailable),
        ] {
            assert_eq!(Unwritable::from_sql("commit", sqlite_failure(code)).error().kind(), kind, "{code}");
        }
    }

    #[actix_rt::test]
    async fn a_full_disk_inside_a_job_is_no_space_and_passes() {
        let dir = tempfile::tempdir().unwrap();
        let writer = writer(dir.path());
        let pages = |most: i64| {
            move |connection: &Write<'_>| {
                let set = connection.query_row(&format!("PRAGMA max_page_count = {most}"), [], |_| Ok(()));
                set.map_err(|error| sql_error("limit", error))
            }
        };
        let fill = |connection: &Write<'_>| {
            let run = connection.execute("CREATE TABLE big AS SELECT zeroblob(1000000)", []);
            run.map(drop).map_err(|error| sql_error("fill", error))
        };
        writer.run(pages(10)).await.unwrap();
        let full = futures_util::future::join3(writer.run(fill), writer.run(fill), writer.run(fill)).await;
        for outcome in [full.0, full.1, full.2] {
            assert_eq!(outcome.unwrap_err().kind(), Kind::NoSpace);
        }
        writer.run(pages(1_000_000)).await.unwrap();
        writer.run(fill).await.unwrap();
    }

    #[actix_rt::test]
    async fn a_job_that_loses_the_transaction_fails_its_batch_and_no_later_one() {
        let dir = tempfile::tempdir().unwrap();
        let writer = writer(dir.path());
        let before = writer.run(|connection| insert(connection, 1));
        let loses = writer.run(|connection| -> Result<()> {
            // What SQLite does by itself when it cannot go on.
            connection.execute_batch("ROLLBACK").unwrap();
            Err(sql_error("write", sqlite_failure(rusqlite::ffi::SQLITE_FULL)))
        });
        let after = writer.run(|connection| insert(connection, 2));
        // Holds the writer until all three are waiting, so that they share a batch.
        let (release, gate) = std::sync::mpsc::channel::<()>();
        let (entered, inside) = oneshot::channel();
        let holds = writer.run(move |_| {
            let _ = entered.send(());
            gate.recv().map_err(|_| stopped())
        });
        let released = async {
            inside.await.unwrap();
            let queued = futures_util::future::join3(before, loses, after);
            let release = async {
                release.send(()).unwrap();
            };
            futures_util::future::join(queued, release).await.0
        };
        let (held, (before, loses, after)) = futures_util::future::join(holds, released).await;
        held.unwrap();
        for outcome in [before, loses, after] {
            assert_eq!(outcome.unwrap_err().kind(), Kind::NoSpace);
        }
        writer.run(|connection| insert(connection, 1)).await.unwrap();
        writer.run(|connection| insert(connection, 2)).await.unwrap();
    }

    #[actix_rt::test]
    async fn a_commit_that_fails_is_unavailable_and_undone() {
        let dir = tempfile::tempdir().unwrap();
        let writer = writer(dir.path());
        let deferred = |connection: &Write<'_>| {
            connection.execute_batch("CREATE TABLE c (x REFERENCES t (x) DEFERRABLE INITIALLY DEFERRED)").unwrap();
            Ok(())
        };
        writer.run(deferred).await.unwrap();
        let orphan = writer.run(|connection| {
            connection.execute("INSERT INTO c VALUES (7)", []).map(drop).map_err(|error| sql_error("insert", error))
        });
        assert_eq!(orphan.await.unwrap_err().kind(), Kind::Unavailable);
        writer.run(|connection| insert(connection, 1)).await.unwrap();
    }

    #[test]
    fn a_failure_that_lasts_is_news_once() {
        let mut health = Health::default();
        let full = || Err(Unwritable { kind: Kind::NoSpace, cause: "full".into() });
        let busy = || Err(Unwritable { kind: Kind::Unavailable, cause: "busy".into() });
        assert!(!health.note(&Ok(()), true));
        assert!(health.note(&full(), true) && !health.note(&full(), true));
        assert!(!health.note(&Ok(()), false), "nothing was written");
        assert!(!health.note(&full(), true));
        assert!(health.note(&busy(), false) && !health.note(&busy(), false));
        assert!(health.note(&Ok(()), true) && !health.note(&Ok(()), true));
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
