//! A TCP proxy that fails when told to: the network between a server and what it stands on.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc::SyncSender;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::postgres::free_port;

const PIECE_BYTES: usize = 32 << 10;
/// How much is on its way in each direction of a connection before the sender has to wait.
const PIECES_HELD_MAX: usize = 64;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    Pass,
    Delay(Duration),
    Stall,
    Cut,
}

/// A proxy to one address, on a thread of its own. Dropped, it closes its port and connections.
pub struct FaultProxy {
    port: u16,
    /// What to do from now on, and whom to tell when it is so.
    orders: Option<mpsc::UnboundedSender<(Mode, SyncSender<()>)>>,
    thread: Option<JoinHandle<()>>,
}

impl FaultProxy {
    /// A proxy that passes everything on to `target`.
    pub fn start(target: SocketAddr) -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let (orders, given) = mpsc::unbounded_channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.unwrap_or_else(|error| panic!("no runtime for a proxy: {error}"));
        let thread = std::thread::spawn(move || runtime.block_on(serve(address, target, given)));
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
        self.order(Mode::Pass);
    }

    /// Passes everything on this much later, in each direction.
    pub fn delay(&self, delay: Duration) {
        self.order(Mode::Delay(delay));
    }

    /// Accepts connections and holds what is sent on all of them, also that they were closed.
    pub fn stall(&self) {
        self.order(Mode::Stall);
    }

    /// Resets all connections and refuses new ones. It is done when this returns.
    pub fn cut(&self) {
        self.order(Mode::Cut);
    }

    fn order(&self, mode: Mode) {
        let (done, wait) = std::sync::mpsc::sync_channel(1);
        let given = self.orders.as_ref().is_some_and(|orders| orders.send((mode, done)).is_ok());
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

async fn serve(address: SocketAddr, target: SocketAddr, mut orders: mpsc::UnboundedReceiver<(Mode, SyncSender<()>)>) {
    let mode = watch::Sender::new(Mode::Cut);
    let mut door = Door::Closed(reserve(address));
    let mut links = JoinSet::new();
    loop {
        tokio::select! {
            order = orders.recv() => {
                let Some((wanted, done)) = order else { return };
                mode.send_replace(wanted);
                if wanted == Mode::Cut {
                    door = door.close(address);
                    while links.join_next().await.is_some() {}
                } else {
                    door = door.open();
                }
                // Whoever asked may be gone.
                let _ = done.send(());
            }
            client = door.accept() => {
                links.spawn(link(client, target, mode.subscribe()));
            }
            Some(_) = links.join_next() => {}
        }
    }
}

/// The port. While it is closed it stays taken, so that nobody else gets it.
enum Door {
    Open(TcpListener),
    Closed(TcpSocket),
}

impl Door {
    fn open(self) -> Self {
        match self {
            Self::Open(listener) => Self::Open(listener),
            Self::Closed(socket) => {
                let listener = socket.listen(1024);
                Self::Open(listener.unwrap_or_else(|error| panic!("the proxy cannot listen: {error}")))
            }
        }
    }

    fn close(self, address: SocketAddr) -> Self {
        drop(self);
        Self::Closed(reserve(address))
    }

    async fn accept(&self) -> TcpStream {
        loop {
            match self {
                Self::Closed(_) => std::future::pending().await,
                Self::Open(listener) => match listener.accept().await {
                    Ok((client, _)) => return client,
                    // Gone already, or too many files are open.
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                },
            }
        }
    }
}

/// Takes a port without listening: connections are refused.
fn reserve(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().and_then(|socket| {
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        Ok(socket)
    });
    socket.unwrap_or_else(|error| panic!("the proxy does not get port {}: {error}", address.port()))
}

async fn link(mut client: TcpStream, target: SocketAddr, mode: watch::Receiver<Mode>) {
    let mut server = None;
    let cut = async {
        let mut mode = mode.clone();
        // Without anybody who gives orders it has ended as well.
        let _ = mode.wait_for(|mode| *mode == Mode::Cut).await;
    };
    let ended_well = tokio::select! {
        () = cut => false,
        talked = talk(&mut client, &mut server, target, &mode) => talked.is_ok(),
    };
    if !ended_well {
        // The next close is a reset.
        for stream in server.iter().chain([&client]) {
            let _ = stream.set_zero_linger();
        }
    }
}

async fn talk(
    client: &mut TcpStream,
    server: &mut Option<TcpStream>,
    target: SocketAddr,
    mode: &watch::Receiver<Mode>,
) -> io::Result<()> {
    until_not_stalled(mode).await;
    let server = server.insert(TcpStream::connect(target).await?);
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    tokio::try_join!(forward(from_client, to_server, mode), forward(from_server, to_client, mode))?;
    Ok(())
}

/// Carries one direction to its end.
async fn forward(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mode: &watch::Receiver<Mode>,
) -> io::Result<()> {
    let (held, mut due) = mpsc::channel::<(Instant, Vec<u8>)>(PIECES_HELD_MAX);
    let take = async move {
        loop {
            let mut piece = vec![0; PIECE_BYTES];
            match from.read(&mut piece).await {
                Ok(len) => piece.truncate(len),
                Err(error) => {
                    // A reset does not come through a network that carries nothing.
                    until_not_stalled(mode).await;
                    return Err(error);
                }
            }
            let is_end = piece.is_empty();
            let delay = if let Mode::Delay(delay) = *mode.borrow() { delay } else { Duration::ZERO };
            if held.send((Instant::now() + delay, piece)).await.is_err() || is_end {
                return Ok(());
            }
        }
    };
    let give = async {
        while let Some((when, piece)) = due.recv().await {
            tokio::time::sleep_until(when).await;
            until_not_stalled(mode).await;
            match piece.as_slice() {
                [] => to.shutdown().await?,
                bytes => to.write_all(bytes).await?,
            }
        }
        Ok(())
    };
    tokio::try_join!(take, give)?;
    Ok(())
}

async fn until_not_stalled(mode: &watch::Receiver<Mode>) {
    let mut mode = mode.clone();
    // Without anybody who gives orders the link ends anyway.
    let _ = mode.wait_for(|mode| *mode != Mode::Stall).await;
}

#[cfg(test)]
mod tests;
