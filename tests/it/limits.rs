//! Clients that want more than their share: of connections, of headers, of time.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::support::{Connection, Noise, TestServer, date, eventually, upload};

#[test]
fn heads_that_are_too_large_or_have_too_many_lines_are_refused() {
    let server = TestServer::start();
    let many = "X: y\r\n".repeat(200);
    let long = format!("X: {}\r\n", "y".repeat(1 << 20));
    let line = "/".repeat(1 << 20);
    for (target, headers) in [("/health", many.as_str()), ("/health", &long), (&line, "")] {
        let mut connection = server.connect();
        // The server may close while it is still sent.
        let _ = connection.try_write(format!("GET {target} HTTP/1.1\r\nHost: x\r\n{headers}\r\n").as_bytes());
        if let Ok(answer) = connection.response(false) {
            assert!((400..500).contains(&answer.status), "{answer:?}");
            answer.assert_refused(answer.status);
            assert!(connection.is_closed());
        }
    }
    server.raw_request("GET", "/health").send().assert_status(200);
}

#[test]
fn a_head_that_does_not_end_is_given_up() {
    let server = TestServer::start();
    let mut slow = server.connect();
    slow.write(b"GET /health HTTP/1.1\r\nHost: x\r\n");
    // One byte at a time, each soon after the one before.
    eventually("it is given up", || {
        let _ = slow.try_write(b"X");
        slow.answers_within(Duration::from_millis(500)).then_some(())
    });
    if let Ok(answer) = slow.response(false) {
        answer.assert_refused(408);
    }
    assert!(slow.is_closed());
}

#[test]
fn a_client_that_takes_nothing_of_a_download_gives_its_slot_back() {
    let server = TestServer::builder().env("REQUEST_SLOTS_MAX", 8).env("STALLED_READER_SECONDS", 1).start();
    // More than the buffers of both ends hold.
    let content = Noise::bytes(1, 16 << 20);
    upload(&server, "large", 0, &content).send().assert_status(200);
    let stalled: Vec<TcpStream> = (0..7)
        .map(|_| {
            let mut stream = TcpStream::connect(server.address()).unwrap();
            stream.write_all(b"GET /ft/files/large HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
            stream.read_exact(&mut [0]).unwrap();
            stream
        })
        .collect();
    eventually("their slots are free", || {
        let answer = server.raw_request("GET", "/api/actors").send();
        let tree: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        (tree["requests"]["inside"] == 0).then_some(())
    });
    assert!(server.log().contains("its client took too little"));
    // One that reads gets all of it.
    let whole = server.request("GET", "/files/large").header("Accept-Encoding", "identity").send();
    assert!(whole.complete && whole.body == content);
    // What they would get now is no whole file.
    for mut stream in stalled {
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        assert!(rest.len() < content.len());
    }
}

#[test]
fn a_client_that_is_slow_but_reads_gets_all_of_it() {
    let server = TestServer::builder().env("STALLED_READER_SECONDS", 2).start();
    let content = Noise::bytes(2, 16 << 20);
    upload(&server, "large", 0, &content).send().assert_status(200);
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.write_all(b"GET /ft/files/large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let (mut count, mut piece) = (0, vec![0; 1 << 20]);
    loop {
        match stream.read(&mut piece).unwrap() {
            0 => break,
            read => count += read,
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(count > content.len(), "{count}");
}

#[test]
fn a_client_that_takes_a_little_at_a_time_gets_all_of_it() {
    let server = TestServer::builder().env("STALLED_READER_SECONDS", 4).start();
    let content = Noise::bytes(3, 8 << 20);
    upload(&server, "large", 0, &content).send().assert_status(200);
    // As the system likes it, and one that has next to no room itself.
    let mut streams = [None, Some(8 << 10)].map(|room| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        room.into_iter().for_each(|room| socket.set_recv_buffer_size(room).unwrap());
        socket.connect(&server.address().into()).unwrap();
        let mut stream = TcpStream::from(socket);
        stream.write_all(b"GET /ft/files/large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        stream
    });
    let mut piece = vec![0; 7_000];
    // 70 kB/s for three times as long as one may take nothing: less than the kernel would like to hold.
    for _ in 0..120 {
        for stream in &mut streams {
            stream.read_exact(&mut piece).unwrap();
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(!server.log().contains("answer cut off"));
    for mut stream in streams {
        let rest = stream.read_to_end(&mut Vec::new()).unwrap();
        assert!(120 * piece.len() + rest > content.len(), "{rest}");
    }
}

#[test]
fn an_address_has_no_more_connections_than_it_may() {
    let limited = || TestServer::builder().env("CONNECTIONS_PER_ADDRESS_MAX", 3);
    let server = limited().start();
    let health = server.raw_request("GET", "/health");
    let use_one = |mut connection: Connection| match health.try_send_on(&mut connection) {
        Ok(answer) if answer.status == 200 => Ok(connection),
        _ => Err(()),
    };
    let mut kept: Vec<Connection> = Vec::new();
    // Those of the start may still be closing.
    eventually("three are open", || {
        kept.extend(use_one(server.connect()).ok());
        (kept.len() == 3).then_some(())
    });
    assert!((0..5).all(|_| use_one(server.connect()).is_err()));
    // What they ask is not done, though it is here before the server sees that they are too many.
    for number in 0..20 {
        let target = format!("/files/over{number}?last_modified={}", date(0));
        let put = server.request("PUT", &target).body("x");
        if let Ok(answer) = put.try_send() {
            assert_eq!(answer.status, 429, "{answer:?}");
        }
    }
    let listed = server.request("GET", "/list/").send_on(&mut kept[0]);
    assert!(listed.assert_status(200).lines().is_empty(), "{listed:?}");
    kept.pop();
    kept.push(eventually("there is room again", || use_one(server.connect()).ok()));
    assert!(kept.iter_mut().all(|connection| health.send_on(connection).status == 200));
    drop(kept);
    drop(server);

    let server = limited().env("TRUSTED_PROXIES", "127.0.0.1").start();
    let many: Vec<_> = (0..20).map(|_| use_one_of(&server)).collect();
    assert_eq!(many.len(), 20);
}

fn use_one_of(server: &TestServer) -> Connection {
    let mut connection = server.connect();
    server.raw_request("GET", "/health").send_on(&mut connection).assert_status(200);
    connection
}
