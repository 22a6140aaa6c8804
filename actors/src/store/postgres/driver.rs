//! The thread that drives the connections of a pool.
//!
//! A connection is driven by the runtime that opened it. Pooled connections go from one thread of the server to another:
//! opened by whoever needs one first, they would all depend on threads that may be kept by something else.

use std::io;
use std::time::{Duration, Instant};

use deadpool_postgres::Connect;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, poll_fn};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, Error};

/// How long connections may take to say goodbye to the server when the thread is to end.
const GOODBYE_MAX: Duration = Duration::from_secs(1);

/// A thread that does nothing else; it ends when this is dropped.
pub struct Driver {
    runtime: Handle,
    _end: oneshot::Sender<()>,
}

impl Driver {
    /// Starts the thread.
    pub fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel::<()>();
        let drive = move || {
            runtime.block_on(async {
                // Nothing is ever sent: the other end is dropped.
                let _ = ended.await;
                let begun = Instant::now();
                while Handle::current().metrics().num_alive_tasks() > 0 && begun.elapsed() < GOODBYE_MAX {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            });
        };
        std::thread::Builder::new().name("postgres".into()).spawn(drive)?;
        Ok(Self { runtime: handle, _end: end })
    }

    /// Opens connections like `inner`; they belong to this thread.
    pub fn drive<C: Connect>(&self, inner: C) -> impl Connect + use<C> {
        Driven { inner, runtime: self.runtime.clone() }
    }
}

struct Driven<C> {
    inner: C,
    runtime: Handle,
}

impl<C: Connect> Connect for Driven<C> {
    /// The log-in, which takes some computing, is done by the caller. The socket and the task that drives it belong to
    /// the thread: that is decided by the runtime that is entered when they are made.
    fn connect(&self, config: &Config) -> BoxFuture<'_, Result<(Client, JoinHandle<()>), Error>> {
        let mut opening = self.inner.connect(config);
        let within = poll_fn(move |context| {
            let _entered = self.runtime.enter();
            opening.as_mut().poll(context)
        });
        within.boxed()
    }
}
