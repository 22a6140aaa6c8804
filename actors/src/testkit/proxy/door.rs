//! The port of a proxy. While it is closed it stays taken, so that nobody else gets it.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};

pub(super) enum Door {
    Open(TcpListener),
    Closed(TcpSocket),
}

impl Door {
    pub(super) fn open(self) -> Self {
        match self {
            Self::Open(listener) => Self::Open(listener),
            Self::Closed(socket) => {
                let listener = socket.listen(1024);
                Self::Open(listener.unwrap_or_else(|error| panic!("the proxy cannot listen: {error}")))
            }
        }
    }

    pub(super) fn close(self, address: SocketAddr) -> Self {
        drop(self);
        Self::Closed(reserve(address))
    }

    pub(super) async fn accept(&self) -> TcpStream {
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
pub(super) fn reserve(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().and_then(|socket| {
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        Ok(socket)
    });
    socket.unwrap_or_else(|error| panic!("the proxy does not get port {}: {error}", address.port()))
}
