//! Proxies that fail when told to: the network between a server and what it stands on.

mod door;
mod http;
mod link;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc::SyncSender;
use std::thread::JoinHandle;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use self::door::{Door, reserve};
pub use self::http::{HttpFault, HttpFaultProxy};
use self::link::{Order, View, link};
use super::postgres::free_port;

/// What the network does with connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NetworkFault {
    /// Passes everything on this much later, in each direction.
    Delay(Duration),
    /// Accepts connections and holds what is sent on all of them, also that they were closed.
    Stall,
    /// Resets connections and refuses new ones. It is always done to all of them.
    Cut,
    /// Resets connections; new ones are accepted, and reset when something is sent on them.
    Reset,
    /// Half-open: accepts connections, and nothing comes through any of them any more, not even when the fault is
    /// over; nobody is told.
    Deaf,
    /// Passes on so many bytes a second, in each direction of each connection.
    Drip(u32),
}

/// A proxy to one address, on a thread of its own. Dropped, it closes its port and connections.
pub struct FaultProxy {
    port: u16,
    /// What to do from now on, and whom to tell when it is so.
    orders: Option<mpsc::UnboundedSender<(Order, SyncSender<()>)>>,
    thread: Option<JoinHandle<()>>,
}

impl FaultProxy {
    /// A proxy that passes everything on to `target`.
    pub fn start(target: SocketAddr) -> Self {
        Self::start_seeded(target, 0)
    }

    /// The same. The seed decides which connections a fault meets that does not meet all.
    pub fn start_seeded(target: SocketAddr, seed: u64) -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let (orders, given) = mpsc::unbounded_channel();
        let thread = on_thread(serve(address, target, given, seed));
        let proxy = Self { port: address.port(), orders: Some(orders), thread: Some(thread) };
        proxy.pass();
        proxy
    }

    /// Where it listens, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Passes everything on at once. What was held is passed on too, in its order.
    pub fn pass(&self) {
        self.order(Order { fault: None, share: 1.0 });
    }

    /// Begins to fail, instead of how it failed before. What is to happen at once has happened when this returns.
    pub fn fail(&self, fault: NetworkFault) {
        self.fail_some(fault, 1.0);
    }

    /// The same for this share of the connections, those that are open included.
    pub fn fail_some(&self, fault: NetworkFault, share: f64) {
        self.order(Order { fault: Some(fault), share: if fault == NetworkFault::Cut { 1.0 } else { share } });
    }

    /// [`NetworkFault::Delay`].
    pub fn delay(&self, delay: Duration) {
        self.fail(NetworkFault::Delay(delay));
    }

    /// [`NetworkFault::Stall`].
    pub fn stall(&self) {
        self.fail(NetworkFault::Stall);
    }

    /// [`NetworkFault::Cut`].
    pub fn cut(&self) {
        self.fail(NetworkFault::Cut);
    }

    fn order(&self, order: Order) {
        let (done, wait) = std::sync::mpsc::sync_channel(1);
        let given = self.orders.as_ref().is_some_and(|orders| orders.send((order, done)).is_ok());
        assert!(given && wait.recv().is_ok(), "the proxy on port {} has ended", self.port);
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            // It has said why it panicked.
            let _ = thread.join();
        }
    }
}

fn on_thread(work: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.unwrap_or_else(|error| panic!("no runtime for a proxy: {error}"));
    std::thread::spawn(move || runtime.block_on(work))
}

async fn serve(
    address: SocketAddr,
    target: SocketAddr,
    mut orders: mpsc::UnboundedReceiver<(Order, SyncSender<()>)>,
    seed: u64,
) {
    let mut luck = StdRng::seed_from_u64(seed);
    let current = watch::Sender::new(Order { fault: Some(NetworkFault::Cut), share: 1.0 });
    let mut door = Door::Closed(reserve(address));
    let mut links = JoinSet::new();
    loop {
        tokio::select! {
            order = orders.recv() => {
                let Some((wanted, done)) = order else { return };
                current.send_replace(wanted);
                if wanted.fault == Some(NetworkFault::Cut) {
                    door = door.close(address);
                    while links.join_next().await.is_some() {}
                } else {
                    door = door.open();
                }
                // Whoever asked may be gone.
                let _ = done.send(());
            }
            client = door.accept() => {
                links.spawn(link(client, target, View::new(current.subscribe(), luck.random())));
            }
            Some(_) = links.join_next() => {}
        }
    }
}

#[cfg(test)]
mod tests;
