//! What the kernel knows of the other end of a connection.

use std::os::fd::AsFd;
use std::time::Duration;

/// Whether the other end answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Heard {
    /// Something was sent that is not acknowledged yet, or it was asked in vain whether it has room again.
    pub is_waited_for: bool,
    /// How long ago its last acknowledgement came: of bytes, or that it has no room for more.
    pub ago: Duration,
}

/// Asks for it; `None` where that can't be asked.
pub fn heard(socket: &impl AsFd) -> Option<Heard> {
    #[cfg(target_os = "linux")]
    {
        nix::sys::socket::getsockopt(socket, linux::TcpInfo).ok().map(|info| linux::parse(&info))
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = socket;
        None
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::time::Duration;

    use nix::{getsockopt_impl, sockopt_impl};

    use super::Heard;

    /// The beginning of the kernel's `struct tcp_info`, which all kernels have: eight numbers of a byte, then such of four.
    pub type Info = [u8; 64];

    /// `tcpi_probes`: how often it was asked in vain whether there is room again.
    const PROBES: usize = 3;
    /// `tcpi_unacked`: segments that are not acknowledged.
    const UNACKED: usize = 24;
    /// `tcpi_last_ack_recv`: milliseconds.
    const LAST_ACK: usize = 56;

    sockopt_impl!(
        /// `TCP_INFO`.
        TcpInfo,
        GetOnly,
        libc::IPPROTO_TCP,
        libc::TCP_INFO,
        Info
    );

    pub fn parse(info: &Info) -> Heard {
        let number =
            |at: usize| info.iter().skip(at).take(4).rev().fold(0_u32, |sum, byte| sum << 8 | u32::from(*byte));
        let number = |at| if cfg!(target_endian = "big") { number(at).swap_bytes() } else { number(at) };
        Heard {
            is_waited_for: info[PROBES] > 0 || number(UNACKED) > 0,
            ago: Duration::from_millis(u64::from(number(LAST_ACK))),
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn an_end_that_acknowledges_is_not_waited_for_even_when_it_reads_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        client.write_all(b"ping").unwrap();
        (&server).write_all(b"pong").unwrap();
        let begun = std::time::Instant::now();
        while heard(&server).unwrap().is_waited_for {
            assert!(begun.elapsed() < Duration::from_secs(30));
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(heard(&server).unwrap().ago < Duration::from_secs(60));
        // One that is no connection of TCP can't be asked.
        assert_eq!(heard(&std::os::unix::net::UnixDatagram::unbound().unwrap()), None);
    }
}
