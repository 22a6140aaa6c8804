use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Instant;

use super::*;

/// A server that sends everything back.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            std::thread::spawn(move || std::io::copy(&mut &stream, &mut &stream).map(drop));
        }
    });
    address
}

fn connect(proxy: &FaultProxy) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", proxy.port())).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

fn ask(mut stream: &TcpStream, text: &[u8]) -> io::Result<()> {
    stream.write_all(text)?;
    let mut answer = vec![0; text.len()];
    stream.read_exact(&mut answer)?;
    assert_eq!(answer, text);
    Ok(())
}

#[test]
fn everything_and_the_end_of_it_is_passed_on() {
    let proxy = FaultProxy::start(echo());
    let mut stream = connect(&proxy);
    let sent = crate::testkit::noise(1, 3 << 20);
    let mut writer = stream.try_clone().unwrap();
    let copy = sent.clone();
    let writing = std::thread::spawn(move || {
        writer.write_all(&copy).unwrap();
        writer.shutdown(std::net::Shutdown::Write).unwrap();
    });
    let mut received = Vec::new();
    stream.read_to_end(&mut received).unwrap();
    writing.join().unwrap();
    assert!(received == sent);
}

#[test]
fn a_cut_resets_and_refuses_until_it_passes_again() {
    let proxy = FaultProxy::start(echo());
    let mut stream = connect(&proxy);
    ask(&stream, b"before").unwrap();
    proxy.cut();
    assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    let refused = TcpStream::connect(("127.0.0.1", proxy.port())).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    proxy.pass();
    ask(&connect(&proxy), b"after").unwrap();
}

#[test]
fn a_delay_counts_in_each_direction_and_not_for_each_piece() {
    let proxy = FaultProxy::start(echo());
    let stream = connect(&proxy);
    ask(&stream, b"before").unwrap();
    proxy.delay(Duration::from_millis(100));
    let started = Instant::now();
    ask(&stream, b"later").unwrap();
    assert!(started.elapsed() >= Duration::from_millis(200));
    let started = Instant::now();
    ask(&stream, &crate::testkit::noise(1, 40 * PIECE_BYTES)).unwrap();
    assert!(started.elapsed() < Duration::from_secs(4));
}

#[test]
fn a_stall_holds_everything_and_loses_nothing() {
    let proxy = FaultProxy::start(echo());
    let old = connect(&proxy);
    ask(&old, b"before").unwrap();
    proxy.stall();
    let new = connect(&proxy);
    for mut stream in [&old, &new] {
        stream.write_all(b"held").unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    }
    proxy.pass();
    for mut stream in [&old, &new] {
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"held");
    }
}

#[test]
fn a_target_that_is_gone_is_a_reset_and_a_dropped_proxy_is_no_more() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let proxy = FaultProxy::start(gone);
    assert!(connect(&proxy).read(&mut [0]).is_err());
    proxy.stall();
    let port = proxy.port();
    drop(proxy);
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
}
