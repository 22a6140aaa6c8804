//! Settings of accepted connections.

use std::any::Any;
use std::time::Duration;

use actix_web::dev::Extensions;
use actix_web::rt::net::TcpStream;
use socket2::SockRef;

/// Makes the callback for `HttpServer::on_connect`.
///
/// `TCP_NODELAY`: head and body of an answer may leave in two segments, and waiting for the first
/// one's acknowledgement would cost 40 ms. `TCP_USER_TIMEOUT`: a client whose host vanished, or
/// that stopped reading, gives its slot back after `user_timeout` instead of after hours.
pub fn on_connect(user_timeout: Duration) -> impl Fn(&dyn Any, &mut Extensions) + Send + Sync + 'static {
    move |io, _| {
        let Some(stream) = io.downcast_ref::<TcpStream>() else { return };
        let socket = SockRef::from(stream);
        // The connection works without them, only less well; one that is already gone refuses both.
        if let Err(error) = socket.set_tcp_nodelay(true).and_then(|()| set_user_timeout(&socket, user_timeout)) {
            log::debug!("socket option refused error={error}");
        }
    }
}

#[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux", target_os = "cygwin"))]
fn set_user_timeout(socket: &SockRef<'_>, timeout: Duration) -> std::io::Result<()> {
    socket.set_tcp_user_timeout(Some(timeout))
}

#[cfg(not(any(target_os = "android", target_os = "fuchsia", target_os = "linux", target_os = "cygwin")))]
fn set_user_timeout(_: &SockRef<'_>, _: Duration) -> std::io::Result<()> {
    Ok(())
}
