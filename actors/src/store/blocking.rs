//! Worker threads for what blocks or computes: a bounded queue, panics contained, joined on close.
//!
//! The queue is a plain mutex and condition variable: idle threads sleep at once. A channel that
//! spins before it sleeps takes the processor from the very threads that would give it work.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::thread::JoinHandle;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::model::{Error, Kind, Result};
use crate::runtime::behalf::Behalf;

type Job<S> = Box<dyn FnOnce(&mut S) + Send>;

/// Threads without state of their own.
pub type BlockingPool = WorkerPool<()>;

/// A fixed set of threads, each with a state `S` of its own (a connection, say). Clones share the
/// threads; dropping the last clone ends and joins them once their queue is empty.
pub struct WorkerPool<S>(Arc<Shared<S>>);

struct Shared<S> {
    name: &'static str,
    queue: Arc<Queue<S>>,
    room: Arc<Semaphore>,
    busy: Arc<AtomicUsize>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// Jobs in the order they came; the semaphore in front of it bounds their number.
struct Queue<S> {
    state: Mutex<QueueState<S>>,
    changed: Condvar,
}

struct QueueState<S> {
    jobs: VecDeque<Job<S>>,
    is_closed: bool,
}

impl<S> Queue<S> {
    fn lock(&self) -> MutexGuard<'_, QueueState<S>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, job: Job<S>) -> Result<()> {
        let mut state = self.lock();
        if state.is_closed {
            return Err(closed());
        }
        state.jobs.push_back(job);
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// The next job; waits for one. `None` when the queue is closed and empty.
    fn pop(&self) -> Option<Job<S>> {
        let waits = |state: &mut QueueState<S>| state.jobs.is_empty() && !state.is_closed;
        let mut state = self.changed.wait_while(self.lock(), waits).unwrap_or_else(PoisonError::into_inner);
        state.jobs.pop_front()
    }
}

impl BlockingPool {
    /// Starts `threads` threads behind a queue of `backlog` jobs.
    pub fn start(name: &'static str, threads: usize, backlog: usize) -> std::io::Result<Self> {
        Self::with_states(name, vec![(); threads], backlog)
    }
}

impl<S: Send + 'static> WorkerPool<S> {
    /// Starts one thread per state behind a common queue of `backlog` jobs.
    pub fn with_states(name: &'static str, states: Vec<S>, backlog: usize) -> std::io::Result<Self> {
        let state = Mutex::new(QueueState { jobs: VecDeque::new(), is_closed: false });
        let queue = Arc::new(Queue { state, changed: Condvar::new() });
        let busy = Arc::new(AtomicUsize::new(0));
        let mut threads = Vec::with_capacity(states.len());
        for (number, mut state) in states.into_iter().enumerate() {
            let (queue, busy) = (Arc::clone(&queue), Arc::clone(&busy));
            let thread = std::thread::Builder::new().name(format!("{name}-{number}"));
            let work = move || {
                while let Some(job) = queue.pop() {
                    busy.fetch_add(1, Relaxed);
                    job(&mut state);
                    busy.fetch_sub(1, Relaxed);
                }
            };
            threads.push(thread.spawn(work)?);
        }
        let room = Arc::new(Semaphore::new(backlog));
        Ok(Self(Arc::new(Shared { name, queue, room, busy, threads: Mutex::new(threads) })))
    }

    /// The threads, and how many of them have work.
    pub fn usage(&self) -> (usize, usize) {
        let threads = self.0.threads.lock().unwrap_or_else(PoisonError::into_inner).len();
        (threads, self.0.busy.load(Relaxed).min(threads))
    }

    /// Runs `work` on one of the threads and waits for its result; waits for room in the queue
    /// first. A panic inside `work` is a [`Kind::Panicked`] error for this caller only.
    ///
    /// Dropping the future does not stop work that was begun.
    pub async fn run<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut S) -> T + Send + 'static,
    {
        self.begin(work).await?.await
    }

    /// Like [`WorkerPool::run`], but comes back as soon as the work is in the queue.
    pub async fn begin<T, F>(&self, work: F) -> Result<Running<T>>
    where
        T: Send + 'static,
        F: FnOnce(&mut S) -> T + Send + 'static,
    {
        let place = Arc::clone(&self.0.room).acquire_owned().await.map_err(|_| closed())?;
        self.queue(place, work)
    }

    /// Like [`WorkerPool::run`], but a full queue is [`Kind::Overloaded`] at once.
    pub async fn try_run<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut S) -> T + Send + 'static,
    {
        let full = || Error::new(Kind::Overloaded, "too much work is waiting");
        let place = Arc::clone(&self.0.room).try_acquire_owned().map_err(|_| full())?;
        self.queue(place, work)?.await
    }

    fn queue<T, F>(&self, place: OwnedSemaphorePermit, work: F) -> Result<Running<T>>
    where
        T: Send + 'static,
        F: FnOnce(&mut S) -> T + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let (name, behalf) = (self.0.name, Behalf::current());
        let job: Job<S> = Box::new(move |state| {
            drop(place);
            let outcome = behalf.enter(|| {
                catch_unwind(AssertUnwindSafe(|| work(state))).map_err(|_| {
                    log::error!("a job panicked pool={name}");
                    Error::panicked()
                })
            });
            // The caller may be gone: nobody is left to tell.
            let _ = reply.send(outcome);
        });
        self.0.queue.push(job)?;
        Ok(Running(answer))
    }
}

/// Work in a queue or on a thread; ready with its result.
pub struct Running<T>(oneshot::Receiver<Result<T>>);

impl<T> Future for Running<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|answer| answer.unwrap_or_else(|_| Err(closed())))
    }
}

fn closed() -> Error {
    Error::new(Kind::Unavailable, "worker threads are shut down")
}

impl<S> Clone for WorkerPool<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S> fmt::Debug for WorkerPool<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WorkerPool({})", self.0.name)
    }
}

impl<S> Drop for Shared<S> {
    fn drop(&mut self) {
        self.queue.lock().is_closed = true;
        self.queue.changed.notify_all();
        // A pool thread that drops the last handle must not wait for itself.
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
        let broken: Result<()> = pool.run(|_| panic!("boom")).await;
        assert_eq!(broken.unwrap_err().kind(), Kind::Panicked);
        assert_eq!(pool.run(|_| 7).await.unwrap(), 7);
    }

    #[actix_rt::test]
    async fn more_jobs_than_room_wait_their_turn() {
        let pool = BlockingPool::start("test", 2, 2).unwrap();
        let jobs = (0..64).map(|number| pool.run(move |_| number));
        let done = futures_util::future::join_all(jobs).await;
        let done: Vec<_> = done.into_iter().map(|one| one.unwrap()).collect();
        assert_eq!(done, (0..64).collect::<Vec<_>>());
    }

    #[actix_rt::test]
    async fn try_run_refuses_when_the_queue_is_full() {
        let pool = BlockingPool::start("test", 1, 1).unwrap();
        let (release, gate) = std::sync::mpsc::channel::<()>();
        let (entered, inside) = oneshot::channel();
        let busy = pool.clone();
        let first = actix_rt::spawn(async move {
            busy.run(move |_| {
                entered.send(()).unwrap();
                gate.recv().unwrap();
            })
            .await
        });
        inside.await.unwrap();
        let waiting = pool.clone();
        let second = actix_rt::spawn(async move { waiting.run(|_| ()).await });
        tokio::task::yield_now().await;
        assert_eq!(pool.try_run(|_| ()).await.unwrap_err().kind(), Kind::Overloaded);
        release.send(()).unwrap();
        first.await.unwrap().unwrap();
        second.await.unwrap().unwrap();
    }
}
