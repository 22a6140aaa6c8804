//! One connection through a proxy.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::NetworkFault;

const PIECE_BYTES: usize = 32 << 10;
/// How much is on its way in each direction of a connection before the sender has to wait.
const PIECES_HELD_MAX: usize = 64;
/// A connection that drips gets something so many times a second, if there are so many bytes.
const DRIPS_PER_SECOND: u32 = 50;

/// What a proxy was told.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Order {
    pub(super) fault: Option<NetworkFault>,
    /// Which share of the connections it meets.
    pub(super) share: f64,
}

/// The order, as one connection sees it.
#[derive(Clone)]
pub(super) struct View {
    orders: watch::Receiver<Order>,
    luck: f64,
}

impl View {
    /// `luck`: from 0 to 1; a fault meets a connection whose luck is below its share.
    pub(super) fn new(orders: watch::Receiver<Order>, luck: f64) -> Self {
        Self { orders, luck }
    }

    fn of(&self, order: &Order) -> Option<NetworkFault> {
        order.fault.filter(|_| self.luck < order.share)
    }

    fn fault(&self) -> Option<NetworkFault> {
        let order = *self.orders.borrow();
        self.of(&order)
    }

    async fn until(&self, is_so: impl Fn(Option<NetworkFault>) -> bool) {
        let mut orders = self.orders.clone();
        // Without anybody who gives orders the link ends anyway.
        let _ = orders.wait_for(|order| is_so(self.of(order))).await;
    }

    async fn until_not_stalled(&self) {
        self.until(|fault| fault != Some(NetworkFault::Stall)).await;
    }

    async fn until_cut(&self) {
        self.until(|fault| matches!(fault, Some(NetworkFault::Cut | NetworkFault::Reset))).await;
    }
}

enum End {
    Done,
    Reset,
    Deaf,
}

pub(super) async fn link(mut client: TcpStream, target: SocketAddr, view: View) {
    let mut server = None;
    let mut end = if view.fault() == Some(NetworkFault::Reset) {
        // In the middle of a request, if there is one.
        let _ = tokio::time::timeout(Duration::from_secs(1), client.readable()).await;
        End::Reset
    } else {
        tokio::select! {
            () = view.until_cut() => End::Reset,
            () = view.until(|fault| fault == Some(NetworkFault::Deaf)) => End::Deaf,
            talked = talk(&mut client, &mut server, target, &view) => if talked.is_ok() { End::Done } else { End::Reset },
        }
    };
    if let End::Deaf = end {
        // The server keeps its end open, too, until the client gives up.
        end = tokio::select! {
            () = view.until_cut() => End::Reset,
            () = swallow(&mut client) => End::Done,
        };
    }
    if let End::Reset = end {
        // The next close is a reset.
        for stream in server.iter().chain([&client]) {
            let _ = stream.set_zero_linger();
        }
    }
}

async fn swallow(client: &mut TcpStream) {
    let mut piece = vec![0; PIECE_BYTES];
    while matches!(client.read(&mut piece).await, Ok(1..)) {}
}

async fn talk(
    client: &mut TcpStream,
    server: &mut Option<TcpStream>,
    target: SocketAddr,
    view: &View,
) -> io::Result<()> {
    view.until_not_stalled().await;
    let server = server.insert(TcpStream::connect(target).await?);
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    tokio::try_join!(forward(from_client, to_server, view), forward(from_server, to_client, view))?;
    Ok(())
}

/// Carries one direction to its end.
async fn forward(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, view: &View) -> io::Result<()> {
    let (held, mut due) = mpsc::channel::<(Instant, Vec<u8>)>(PIECES_HELD_MAX);
    let take = async move {
        loop {
            let mut piece = vec![0; PIECE_BYTES];
            match from.read(&mut piece).await {
                Ok(len) => piece.truncate(len),
                Err(error) => {
                    // A reset does not come through a network that carries nothing.
                    view.until_not_stalled().await;
                    return Err(error);
                }
            }
            let is_end = piece.is_empty();
            let delay = if let Some(NetworkFault::Delay(delay)) = view.fault() { delay } else { Duration::ZERO };
            if held.send((Instant::now() + delay, piece)).await.is_err() || is_end {
                return Ok(());
            }
        }
    };
    let give = async {
        while let Some((when, piece)) = due.recv().await {
            tokio::time::sleep_until(when).await;
            view.until_not_stalled().await;
            if piece.is_empty() {
                to.shutdown().await?;
            }
            give_piece(&mut to, &piece, view).await?;
        }
        Ok(())
    };
    tokio::try_join!(take, give)?;
    Ok(())
}

async fn give_piece(to: &mut (impl AsyncWrite + Unpin), mut piece: &[u8], view: &View) -> io::Result<()> {
    while !piece.is_empty() {
        let Some(NetworkFault::Drip(rate)) = view.fault() else { return to.write_all(piece).await };
        let drop = (rate / DRIPS_PER_SECOND).max(1);
        let (now, later) = piece.split_at(piece.len().min(drop as usize));
        to.write_all(now).await?;
        tokio::time::sleep(Duration::from_secs(1) * drop / rate.max(1)).await;
        view.until_not_stalled().await;
        piece = later;
    }
    Ok(())
}
