//! The thread that drives the connections of a pool.
//!
//! A connection is driven by the runtime that opened it. Pooled connections go from one thread of the server to another:
//! opened by whoever needs one first, they would all depend on threads that may be kept by something else.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use deadpool_postgres::Connect;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
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

    /// Opens connections like `inner`, on this thread.
    pub fn drive<C: Connect + 'static>(&self, inner: C) -> impl Connect + use<C> {
        Driven { inner: Arc::new(inner), runtime: self.runtime.clone() }
    }
}

struct Driven<C> {
    inner: Arc<C>,
    runtime: Handle,
}

impl<C: Connect + 'static> Connect for Driven<C> {
    fn connect(&self, config: &Config) -> BoxFuture<'_, Result<(Client, JoinHandle<()>), Error>> {
        let (inner, theirs) = (Arc::clone(&self.inner), config.clone());
        let opened = self.runtime.spawn(async move { inner.connect(&theirs).await });
        let config = config.clone();
        async move {
            match opened.await {
                Ok(opened) => opened,
                // The thread is gone: the caller can drive it as well.
                Err(_) => self.inner.connect(&config).await,
            }
        }
        .boxed()
    }
}
