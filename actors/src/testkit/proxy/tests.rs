use std::io;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Instant;

use super::*;

const PIECE_BYTES: usize = 32 << 10;

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

#[test]
fn a_reset_comes_in_the_middle_of_a_request() {
    let proxy = FaultProxy::start(echo());
    let mut old = connect(&proxy);
    ask(&old, b"before").unwrap();
    proxy.fail(NetworkFault::Reset);
    assert_eq!(old.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    let mut new = connect(&proxy);
    new.write_all(b"anybody?").unwrap();
    assert_eq!(new.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    proxy.pass();
    ask(&connect(&proxy), b"after").unwrap();
}

#[test]
fn what_went_deaf_stays_deaf_and_new_connections_are_well() {
    let proxy = FaultProxy::start(echo());
    let mut old = connect(&proxy);
    ask(&old, b"before").unwrap();
    proxy.fail(NetworkFault::Deaf);
    let mut new = connect(&proxy);
    new.write_all(b"lost").unwrap();
    // Until it is let in.
    std::thread::sleep(Duration::from_millis(300));
    proxy.pass();
    ask(&connect(&proxy), b"after").unwrap();
    for stream in [&mut old, &mut new] {
        stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        stream.write_all(b"lost").unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}

#[test]
fn what_drips_comes_slowly_and_whole() {
    let proxy = FaultProxy::start(echo());
    proxy.fail(NetworkFault::Drip(100));
    let started = Instant::now();
    ask(&connect(&proxy), b"twenty bytes of text").unwrap();
    assert!(started.elapsed() >= Duration::from_millis(150));
    let stream = connect(&proxy);
    (&stream).write_all(&[7; 100_000]).unwrap();
    proxy.pass();
    (&stream).read_exact(&mut [0; 100_000]).unwrap();
}

#[test]
fn a_share_of_the_connections_is_met() {
    let proxy = FaultProxy::start_seeded(echo(), 1);
    let streams: Vec<_> = (0..40).map(|_| connect(&proxy)).collect();
    streams.iter().for_each(|stream| ask(stream, b"before").unwrap());
    proxy.fail_some(NetworkFault::Reset, 0.5);
    let met = streams.iter().filter(|stream| ask(stream, b"after").is_err()).count();
    assert!((8..32).contains(&met), "{met} of 40");
}

/// A server that answers every request with the same body.
fn http(body: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut lines = BufReader::new(&stream).lines();
                while let Some(Ok(_)) = lines.by_ref().find(|line| line.as_ref().is_ok_and(String::is_empty)) {
                    let head = format!("HTTP/1.1 200 OK\r\nETag: e\r\nContent-Length: {}\r\n\r\n", body.len());
                    (&stream).write_all(&[head.as_bytes(), body].concat()).unwrap();
                }
            });
        }
    });
    address
}

/// Status, promised length, and what came.
fn get(proxy: &HttpFaultProxy) -> (u16, usize, Vec<u8>) {
    let mut stream = TcpStream::connect(proxy.address()).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut stream = BufReader::new(stream);
    let (mut status, mut length) = (0, 0);
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).unwrap();
        match line.trim_end().split_once(' ') {
            None => break,
            Some(("content-length:" | "Content-Length:", value)) => length = value.parse().unwrap(),
            Some(("HTTP/1.1", rest)) => status = rest[..3].parse().unwrap(),
            Some(_) => {}
        }
    }
    // What comes at once, and what does not come any more.
    stream.get_ref().set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let mut body = Vec::new();
    let _ = stream.read_to_end(&mut body);
    (status, length, body)
}

#[test]
fn answers_are_wrong_as_told_and_right_again() {
    let right = (200, 10, b"0123456789".to_vec());
    let proxy = HttpFaultProxy::start(http(b"0123456789"), 1);
    assert_eq!(get(&proxy), right);
    for (fault, status, length, body) in [
        (HttpFault::TooLong, 200, 110, &b"0123456789"[..]),
        (HttpFault::TooShort, 200, 5, b"0123456789"),
        (HttpFault::CutBody, 200, 10, b"01234"),
        (HttpFault::WrongBytes, 200, 10, b"1032547698"),
    ] {
        proxy.fail(fault, 1.0);
        assert_eq!(get(&proxy), (status, length, body.to_vec()), "{fault:?}");
    }
    for (fault, status, said) in
        [(HttpFault::Refuse(503, "SlowDown"), 503, "<Code>SlowDown</Code>"), (HttpFault::Page, 200, "log in")]
    {
        proxy.fail(fault, 1.0);
        for _ in 0..4 {
            let (answered, length, body) = get(&proxy);
            assert_eq!((answered, length), (status, body.len()));
            assert!(String::from_utf8(body).unwrap().contains(said));
        }
    }
    proxy.fail(HttpFault::Refuse(500, "InternalError"), 0.5);
    let refused = (0..20).filter(|_| get(&proxy).0 == 500).count();
    assert!((3..18).contains(&refused), "{refused} of 20");
    proxy.pass();
    assert_eq!(get(&proxy), right);
}
