//! Worker threads for what blocks or computes: a bounded queue, panics contained, joined on close.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use crossbeam_channel::{Sender, bounded};
use tokio::sync::{Semaphore, oneshot};

use crate::model::{Error, Kind, Result};

type Job = Box<dyn FnOnce() + Send>;

/// A fixed set of threads. Clones share them; the last one dropped lets the threads finish.
#[derive(Clone)]
pub struct BlockingPool(Arc<Shared>);

struct Shared {
    name: &'static str,
    jobs: Sender<Job>,
    room: Arc<Semaphore>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl BlockingPool {
    /// Starts `threads` threads behind a queue of `backlog` jobs.
    pub fn start(name: &'static str, threads: usize, backlog: usize) -> std::io::Result<Self> {
        let (jobs, inbox) = bounded::<Job>(backlog);
        let mut handles = Vec::with_capacity(threads);
        for number in 0..threads {
            let inbox = inbox.clone();
            let thread = std::thread::Builder::new().name(format!("{name}-{number}"));
            handles.push(thread.spawn(move || inbox.iter().for_each(|job| job()))?);
        }
        let room = Arc::new(Semaphore::new(backlog));
        Ok(Self(Arc::new(Shared { name, jobs, room, threads: Mutex::new(handles) })))
    }

    /// Runs `work` on one of the threads and waits for its result; waits for room in the queue
    /// first. A panic inside `work` is an [`Kind::Internal`] error for this caller only.
    ///
    /// Dropping the future does not stop work that was begun.
    pub async fn run<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let closed = || Error::new(Kind::Unavailable, "worker threads are shut down");
        let place = Arc::clone(&self.0.room).acquire_owned().await.map_err(|_| closed())?;
        let (reply, answer) = oneshot::channel();
        let name = self.0.name;
        let job: Job = Box::new(move || {
            drop(place);
            let outcome = catch_unwind(AssertUnwindSafe(work)).map_err(|_| {
                log::error!("a job panicked pool={name}");
                Error::new(Kind::Internal, "internal error")
            });
            // The caller may be gone: nobody is left to tell.
            let _ = reply.send(outcome);
        });
        self.0.jobs.try_send(job).map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }
}

impl fmt::Debug for BlockingPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlockingPool({})", self.0.name)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Closing the queue ends the threads; a pool thread that drops the last handle must not
        // wait for itself.
        let (closed, _) = bounded(0);
        self.jobs = closed;
        let current = std::thread::current().id();
        let threads = self.threads.get_mut().map(std::mem::take).unwrap_or_default();
        for thread in threads.into_iter().filter(|thread| thread.thread().id() != current) {
            if thread.join().is_err() {
                log::error!("a worker thread died pool={}", self.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[actix_rt::test]
    async fn a_panic_fails_its_caller_only_and_the_threads_live_on() {
        let pool = BlockingPool::start("test", 1, 4).unwrap();
        let broken: Result<()> = pool.run(|| panic!("boom")).await;
        assert_eq!(broken.unwrap_err().kind(), Kind::Internal);
        assert_eq!(pool.run(|| 7).await.unwrap(), 7);
    }

    #[actix_rt::test]
    async fn more_jobs_than_room_wait_their_turn() {
        let pool = BlockingPool::start("test", 2, 2).unwrap();
        let jobs = (0..64).map(|number| pool.run(move || number));
        let done = futures_util::future::join_all(jobs).await;
        let done: Vec<_> = done.into_iter().map(|one| one.unwrap()).collect();
        assert_eq!(done, (0..64).collect::<Vec<_>>());
    }
}
