//! SIGTERM and SIGINT: the first asks for a drain, the second ends the process at once.

use std::{fmt, io, thread};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::StartError;
use crate::exit;

/// A signal that asks the server to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// SIGINT.
    Interrupt,
    /// SIGTERM.
    Terminate,
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
        })
    }
}

impl Stop {
    fn exit_code(self) -> u8 {
        match self {
            Self::Interrupt => exit::INTERRUPTED,
            Self::Terminate => exit::TERMINATED,
        }
    }
}

/// Where the first signal arrives.
pub struct Signals(mpsc::Receiver<Stop>);

impl Signals {
    /// Takes over both signals, on a thread of its own: a second signal must end the process even
    /// when every other thread is stuck.
    pub fn listen() -> Result<Self, StartError> {
        let failed = |error: io::Error| StartError::new(format!("cannot handle signals: {error}"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(failed)?;
        // registered here, so that no signal can come before its handler
        let (interrupt, terminate) = {
            let _guard = runtime.enter();
            let take = |kind| signal(kind).map_err(failed);
            (take(SignalKind::interrupt())?, take(SignalKind::terminate())?)
        };
        let (sender, receiver) = mpsc::channel(1);
        let watch = move || runtime.block_on(watch(interrupt, terminate, sender));
        thread::Builder::new().name("signals".to_owned()).spawn(watch).map_err(failed)?;
        Ok(Self(receiver))
    }

    /// Waits for the first signal.
    pub async fn first(&mut self) -> Stop {
        match self.0.recv().await {
            Some(stop) => stop,
            // the thread only ends with the process
            None => std::future::pending().await,
        }
    }

    /// Signals that a test sends.
    #[cfg(test)]
    pub fn for_test() -> (mpsc::Sender<Stop>, Self) {
        let (sender, receiver) = mpsc::channel(1);
        (sender, Self(receiver))
    }
}

async fn watch(mut interrupt: Signal, mut terminate: Signal, first: mpsc::Sender<Stop>) {
    let stop = next(&mut interrupt, &mut terminate).await;
    if first.send(stop).await.is_err() {
        // nobody is there to drain
        std::process::exit(stop.exit_code().into());
    }
    let stop = next(&mut interrupt, &mut terminate).await;
    // not even a line in the log: whoever holds its lock may be what is stuck
    std::process::exit(stop.exit_code().into());
}

async fn next(interrupt: &mut Signal, terminate: &mut Signal) -> Stop {
    tokio::select! {
        _ = interrupt.recv() => Stop::Interrupt,
        _ = terminate.recv() => Stop::Terminate,
    }
}
