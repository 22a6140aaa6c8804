//! What happens on connections before there is a request, and after there is a client.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::support::python::venv;
use crate::support::{Noise, Response, TestServer, eventually, upload};

/// The lines of the log that carry this id; only whole lines.
fn lines_of(server: &TestServer, id: &str) -> Vec<Value> {
    let log = server.log();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["request_id"] == id).collect()
}

fn assert_logged(server: &TestServer, answer: &Response) {
    let id = answer.header("x-request-id").unwrap();
    let reason = answer.header("x-exception").unwrap();
    eventually("both lines are there", || {
        let lines = lines_of(server, id);
        let refused = lines.iter().any(|line| {
            line["message"] == "no request, refused" && line["status"] == answer.status && line["reason"] == reason
        });
        let access = lines.iter().any(|line| {
            line["target"] == "s3dedup::access"
                && line["status"] == answer.status
                && line["client"] == "127.0.0.1"
                && line["bytes_out"] == answer.body.len()
                && line["complete"] == true
        });
        (refused && access && lines.len() == 2).then_some(())
    });
}

#[test]
fn what_is_no_request_is_refused_with_an_id_that_the_log_has() {
    let server = TestServer::builder().env("LOG_JSON", true).env("LOG_LEVEL", "debug").env("ACCESS_LOG", true).start();
    let long = format!("GET / HTTP/1.1\r\nX: {}", "y".repeat(200 << 10));
    for (status, sent) in [(400, "no http at all\r\n\r\n"), (400, "GET / HTTP/1.1\r\nno header\r\n\r\n"), (431, &long)]
    {
        let mut connection = server.connect();
        let _ = connection.try_write(sent.as_bytes());
        // What was not read may reset the connection before the answer is.
        if let Ok(answer) = connection.response(false) {
            assert_logged(&server, answer.assert_refused(status));
            assert_eq!(answer.header("connection"), Some("close"));
            assert!(answer.header("date").is_some());
            assert!(connection.is_closed());
        }
    }

    // Behind requests that were answered, too.
    let mut connection = server.connect();
    let health = server.raw_request("GET", "/health");
    for _ in 0..3 {
        health.send_on(&mut connection).assert_status(200);
    }
    connection.write(b"GET\r\n\r\n");
    let answer = connection.response(false).unwrap();
    assert_logged(&server, answer.assert_refused(400));
    assert!(connection.is_closed());

    // And behind those that are sent at once with it.
    let mut connection = server.connect();
    let health = String::from_utf8(health.head()).unwrap();
    connection.write(format!("{health}{}GET\r\n\r\n", health.replace("GET", "HEAD")).as_bytes());
    assert_eq!(connection.response(false).unwrap().text(), "{\"alive\":true}");
    connection.response(true).unwrap().assert_status(200);
    assert_logged(&server, connection.response(false).unwrap().assert_refused(400));

    let metrics = server.raw_request("GET", "/metrics").send();
    let counted = "s3dedup_http_requests_total{endpoint=\"other\",method=\"other\",status=\"400\"} 4";
    assert!(metrics.text().contains(counted), "{}", metrics.text());
}

#[test]
fn our_own_empty_and_refused_answers_are_left_as_they_are() {
    let server = TestServer::start();
    // A content that looks like an answer of the library, at the end of an answer.
    let content = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
    upload(&server, "odd", 0, content).send().assert_status(200);
    let mut connection = server.connect();
    for _ in 0..3 {
        let get = server.request("GET", "/files/odd").header("Accept-Encoding", "identity");
        assert_eq!(get.send_on(&mut connection).assert_status(200).body, content);
        server.request("GET", "/files/%").send_on(&mut connection).assert_refused(400);
        server.request("HEAD", "/files/odd").send_on(&mut connection).assert_status(200);
    }
}

#[test]
fn a_connection_takes_one_descriptor() {
    let server = TestServer::start();
    let path = format!("/proc/{}/fd", server.pid().as_raw_nonzero());
    let Ok(before) = std::fs::read_dir(&path).map(Iterator::count) else { return eprintln!("no /proc here") };
    let health = server.raw_request("GET", "/health");
    let mut connections: Vec<_> = (0..100).map(|_| server.connect()).collect();
    for connection in &mut connections {
        health.send_on(connection).assert_status(200);
    }
    let during = std::fs::read_dir(&path).unwrap().count();
    // What else the server opens meanwhile is little.
    assert!((before + 90..before + 150).contains(&during), "{before} {during}");
}

/// A network with one other host in it, until it is dropped.
struct Network {
    name: String,
    /// This machine's address in it.
    address: String,
}

impl Network {
    /// `None` where this may not be done.
    fn new() -> Option<Self> {
        let number = std::process::id();
        let name = format!("s3d{number}");
        let part = format!("10.213.{}", number % 250);
        // Dropped, it takes away what was made so far.
        let network = Self { name: name.clone(), address: format!("{part}.1") };
        let commands = [
            format!("netns add {name}"),
            format!("link add {name} type veth peer name far netns {name}"),
            format!("addr add {part}.1/30 dev {name}"),
            format!("link set {name} up"),
            format!("-n {name} addr add {part}.2/30 dev far"),
            format!("-n {name} link set far up"),
        ];
        commands.iter().all(|command| network.ip(command)).then_some(network)
    }

    fn ip(&self, arguments: &str) -> bool {
        let run = Command::new("ip").args(arguments.split(' ')).stderr(Stdio::null()).status();
        run.is_ok_and(|status| status.success())
    }

    /// Runs a script there.
    fn python(&self, script: &str) -> Child {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(venv().join("bin/python")).args(["-c", script]);
        command.stdout(Stdio::piped()).spawn().unwrap()
    }

    /// From now on nothing arrives that is sent either way, and nobody is told.
    fn cut(&self) {
        assert!(self.ip(&format!("-n {} link set far down", self.name)));
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.ip(&format!("link del {}", self.name));
        self.ip(&format!("netns del {}", self.name));
    }
}

#[test]
fn a_client_that_is_gone_is_let_go_of_while_one_that_has_no_room_is_waited_for() {
    let Some(network) = Network::new() else { return eprintln!("no network can be made here") };
    let server = TestServer::builder()
        .env("LISTEN_ADDRESS", "0.0.0.0")
        .env("GONE_CLIENT_SECONDS", 2)
        .env("STALLED_READER_SECONDS", 3600)
        .env("LOG_LEVEL", "debug")
        .start();
    let content = Noise::bytes(4, 16 << 20);
    upload(&server, "large", 0, &content).send().assert_status(200);
    let inside = || {
        let answer = server.raw_request("GET", "/api/actors").send();
        let tree: Value = serde_json::from_slice(&answer.body).unwrap();
        tree["requests"]["inside"].as_u64().unwrap()
    };
    // Both take nothing for now, and say so.
    let mut waiting = TcpStream::connect(server.address()).unwrap();
    waiting.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    waiting.write_all(b"GET /ft/files/large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let script = format!(
        "import socket, time\n\
         s = socket.create_connection(('{}', {}), 30)\n\
         s.sendall(b'GET /ft/files/large HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n')\n\
         s.recv(1)\n\
         print('begun', flush=True)\n\
         time.sleep(120)",
        network.address,
        server.address().port()
    );
    let mut other = network.python(&script);
    other.stdout.as_mut().unwrap().read_exact(&mut [0; 5]).unwrap();
    eventually("both are being answered", || (inside() == 2).then_some(()));
    // Longer than one may be gone.
    std::thread::sleep(Duration::from_secs(5));
    let gone = || server.log().matches("its client is gone").count();
    assert_eq!((inside(), gone()), (2, 0), "one was cut that is there");

    network.cut();
    eventually("the one that is gone is let go of", || (inside() == 1).then_some(()));
    assert_eq!(gone(), 1);
    let mut whole = Vec::new();
    waiting.read_to_end(&mut whole).unwrap();
    assert!(whole.len() > content.len(), "{}", whole.len());
    assert_eq!(gone(), 1);
    let _ = other.kill();
    let _ = other.wait();
}
