//! Settings of accepted connections, and how many an address may have.

use std::any::Any;
use std::collections::HashMap;
use std::net::{IpAddr, Shutdown};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix_tls::accept::rustls_0_23::TlsStream;
use actix_web::HttpRequest;
use actix_web::dev::Extensions;
use actix_web::rt::net::TcpStream;
use socket2::SockRef;

use crate::access::failures::network_of;
use crate::access::networks::Networks;

use super::lull::Lulls;

/// What the kernel holds, at most, of an answer beside what is on its way: with as much as it likes to take, up to some
/// megabytes, it would ask a slow client's answer for more so rarely that the client could not be told from one that hangs.
const UNSENT_BYTES_MAX: u32 = 64 << 10;

/// How many connections an address may have.
#[derive(Clone, Default, Debug)]
pub struct Crowd {
    /// So many; 0 for any number.
    pub connections_max: usize,
    /// Whose connections are not counted.
    pub proxies: Networks,
}

/// Makes the callback for `HttpServer::on_connect`.
///
/// `TCP_NODELAY`: head and body of an answer may leave in two segments, and waiting for the first
/// one's acknowledgement would cost 40 ms. `TCP_USER_TIMEOUT`: a client whose host vanished, or
/// that stopped reading, gives its connection back after `user_timeout` instead of after hours, or never.
/// A connection too many of one address is marked: of what was sent on it already nothing is done. The others are watched
/// by `lulls`.
pub fn on_connect(
    user_timeout: Duration,
    crowd: Crowd,
    lulls: Arc<Lulls>,
) -> impl Fn(&dyn Any, &mut Extensions) + Send + Sync + 'static {
    let seats = Seats { crowd, taken: Arc::default() };
    move |io, extensions| {
        let encrypted = io.downcast_ref::<TlsStream<TcpStream>>().map(|stream| stream.get_ref().0);
        let Some(stream) = encrypted.or_else(|| io.downcast_ref::<TcpStream>()) else { return };
        let socket = SockRef::from(stream);
        // The connection works without them, only less well; one that is already gone refuses both.
        if let Err(error) = set_options(&socket, user_timeout) {
            log::debug!("socket option refused error={error}");
        }
        match lulls.watch(&socket) {
            // Lives as long as the connection.
            Ok(watch) => drop(extensions.insert(watch)),
            Err(error) => log::debug!("connection not watched error={error}"),
        }
        let Ok(peer) = stream.peer_addr() else { return };
        match seats.take(peer.ip()) {
            Ok(Some(seat)) => {
                // Lives as long as the connection.
                extensions.insert(seat);
            }
            Ok(None) => {}
            Err(count) => {
                log::debug!("connection closed: its address has too many address={} count={count}", peer.ip());
                extensions.insert(TooMany);
                // One that sent nothing yet is closed. What is here already is read in spite of this, and refused.
                let _ = socket.shutdown(Shutdown::Read);
            }
        }
    }
}

/// Marks a connection beyond those that its address may have.
struct TooMany;

/// Whether a request came on a connection too many: nothing may be done for it.
pub fn is_too_many(request: &HttpRequest) -> bool {
    request.conn_data::<TooMany>().is_some()
}

struct Seats {
    crowd: Crowd,
    taken: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// A counted connection, until it is dropped.
struct Seat {
    address: IpAddr,
    taken: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Seats {
    /// `None` where nothing is counted; an error is how many there are already.
    fn take(&self, peer: IpAddr) -> Result<Option<Seat>, usize> {
        if self.crowd.connections_max == 0 || self.crowd.proxies.contain(peer) {
            return Ok(None);
        }
        let address = network_of(peer);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        // No more entries than open connections.
        let count = taken.entry(address).or_default();
        if *count >= self.crowd.connections_max {
            return Err(*count);
        }
        *count += 1;
        Ok(Some(Seat { address, taken: Arc::clone(&self.taken) }))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.address);
            }
        }
    }
}

fn set_options(socket: &SockRef<'_>, user_timeout: Duration) -> std::io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux", target_os = "cygwin"))]
    socket.set_tcp_user_timeout(Some(user_timeout))?;
    #[cfg(any(target_os = "android", target_os = "linux"))]
    socket.set_tcp_notsent_lowat(UNSENT_BYTES_MAX)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_ends_makes_room_for_another_of_its_address() {
        let crowd = Crowd { connections_max: 2, proxies: "10.0.0.9".parse().unwrap() };
        let seats = Seats { crowd, taken: Arc::default() };
        let take = |text: &str| seats.take(text.parse().unwrap());
        let (first, second) = (take("10.0.0.1").unwrap().unwrap(), take("10.0.0.1").unwrap().unwrap());
        assert_eq!(take("10.0.0.1").err(), Some(2));
        assert!(take("10.0.0.2").is_ok() && take("10.0.0.9").unwrap().is_none());
        drop(first);
        assert!(take("10.0.0.1").is_ok());
        drop(second);
        assert!(seats.taken.lock().unwrap().is_empty());
    }
}
