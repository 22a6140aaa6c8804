//! The address.

use std::net::{SocketAddr, TcpListener, ToSocketAddrs};

use socket2::{Domain, Protocol, Socket, Type};

use super::StartError;

/// Connections the kernel keeps while all workers are busy.
const BACKLOG: i32 = 1024;

/// Takes the address without answering on it yet. Of several addresses of a name the first that is
/// free is taken.
pub fn bind(host: &str, port: u16) -> Result<Socket, StartError> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let addresses = (bare, port)
        .to_socket_addrs()
        .map_err(|error| StartError::new(format!("cannot find the address {host} to listen on: {error}")))?;
    let mut last = StartError::new(format!("the name {host} to listen on has no address"));
    for address in addresses {
        match bind_one(address) {
            Ok(socket) => return Ok(socket),
            Err(error) => last = StartError::new(format!("cannot listen on {address}: {error}")),
        }
    }
    Err(last)
}

fn bind_one(address: SocketAddr) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // a restart must not wait for connections of the server before to be forgotten
    socket.set_reuse_address(true)?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

/// The port that was taken.
pub fn port(socket: &Socket) -> Result<u16, StartError> {
    let address = socket.local_addr().map_err(|error| StartError::new(format!("no local address: {error}")))?;
    Ok(address.as_socket().map_or(0, |address| address.port()))
}

/// Begins to take connections.
pub fn start(socket: Socket) -> Result<TcpListener, StartError> {
    // of two servers that were bound at the same time the second learns it only here
    socket.listen(BACKLOG).map_err(|error| StartError::new(format!("cannot listen: {error}")))?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_named() {
        let first = start(bind("127.0.0.1", 0).unwrap()).unwrap();
        let address = first.local_addr().unwrap();
        let error = bind("127.0.0.1", address.port()).unwrap_err().to_string();
        assert!(error.contains(&address.to_string()) && error.contains("in use"), "{error}");
    }

    #[test]
    fn a_wrong_address_is_named() {
        let error = bind("no.such.host.invalid", 0).unwrap_err().to_string();
        assert!(error.contains("no.such.host.invalid"), "{error}");
        // TEST-NET-1: no machine has it
        assert!(bind("192.0.2.1", 0).unwrap_err().to_string().contains("192.0.2.1"));
    }

    #[test]
    fn loopback_of_the_new_kind_works_in_brackets() {
        // machines without IPv6 refuse it, with an error that names it
        match bind("[::1]", 0) {
            Ok(socket) => assert!(start(socket).unwrap().local_addr().unwrap().is_ipv6()),
            Err(error) => assert!(error.to_string().contains("::1"), "{error}"),
        }
    }
}
