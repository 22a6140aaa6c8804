//! Both servers, and what lies between them.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use s3dedup_actors::testkit::filetracker::OldFiletracker;
use serde_json::Value;

use crate::support::content::{date, gunzip, gzip, sha256};
use crate::support::server::Builder;
use crate::support::{Request, Response, TestServer, eventually};

/// A server beside the old one at this address; `mode` is that of `MIGRATION`.
pub fn beside(url: &str, mode: &str) -> Builder {
    TestServer::builder().env("MIGRATION", mode).env("FILETRACKER_URL", url)
}

/// A request to the old server itself.
pub fn old_request(old: &OldFiletracker, method: &str, target: &str) -> Request {
    Request::new(SocketAddr::from((Ipv4Addr::LOCALHOST, old.port())), method, target)
}

/// Stores on the old server as its client does.
pub fn old_put(old: &OldFiletracker, path: &str, offset: u32, content: &[u8]) {
    let request = old_request(old, "PUT", &format!("/files/{path}?last_modified={}", date(offset)));
    let request = request.header("Content-Encoding", "gzip").header("SHA256-Checksum", &sha256(content));
    request.header("Logical-Size", &content.len().to_string()).body(gzip(content, 6)).send().assert_status(200);
}

/// What the old server has: version and content.
pub fn old_file(old: &OldFiletracker, path: &str) -> Option<(String, Vec<u8>)> {
    let answer = old_request(old, "GET", &format!("/files/{path}")).send();
    (answer.status == 200).then(|| (version(&answer), gunzip(&answer.body)))
}

/// What our server has.
pub fn our_file(server: &TestServer, path: &str) -> Option<(String, Vec<u8>)> {
    let answer = server.request("GET", &format!("/files/{path}")).send();
    if answer.status == 404 {
        return None;
    }
    answer.assert_status(200);
    Some((version(&answer), gunzip(&answer.body)))
}

pub fn version(answer: &Response) -> String {
    answer.header("last-modified").expect("a version").to_owned()
}

pub fn put(server: &TestServer, path: &str, offset: u32, content: &[u8]) -> Response {
    crate::support::upload(server, path, offset, content).send()
}

pub fn delete(server: &TestServer, path: &str, offset: u32) -> Response {
    server.request("DELETE", &format!("/files/{path}?last_modified={}", date(offset))).send()
}

/// What the server tells of the migration.
pub fn told(server: &TestServer) -> Value {
    let answer = server.raw_request("GET", "/api/migration").send();
    serde_json::from_slice(&answer.assert_status(200).body).unwrap()
}

/// Waits until the old server was told everything.
pub fn all_told(server: &TestServer, patience: usize) {
    for _ in 0..patience {
        let idle = || told(server)["old_server"]["second_writes"]["waiting"] == 0;
        // It is counted now and then: twice, so that the second count is of after.
        if idle() {
            std::thread::sleep(Duration::from_secs(6));
            if idle() {
                return;
            }
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    panic!("the old server is not told everything: {:#}", told(server));
}

/// Waits until the background copy is done.
pub fn all_copied(server: &TestServer) {
    eventually("all files are copied", || (told(server)["phase"] == "done").then_some(()));
}

/// Passes connections on to the old server, slowly if wanted, and notes what is asked for.
pub struct Watcher {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
    ends: Arc<AtomicBool>,
    cuts: Arc<AtomicBool>,
    away: Arc<AtomicBool>,
}

impl Watcher {
    pub fn start(target: u16, pause: Duration) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let [ends, cuts, away] = std::array::from_fn(|_| Arc::new(AtomicBool::new(false)));
        let (cutting, is_away) = (Arc::clone(&cuts), Arc::clone(&away));
        let (noted, over) = (Arc::clone(&asked), Arc::clone(&ends));
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(client) = client else { continue };
                if is_away.load(Ordering::Relaxed) {
                    continue;
                }
                let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)) else { continue };
                let (from_client, to_client) = (client.try_clone().unwrap(), client);
                let (from_server, to_server) = (server.try_clone().unwrap(), server);
                let (noted, cuts) = (Arc::clone(&noted), Arc::clone(&cutting));
                std::thread::spawn(move || {
                    forward(from_client, to_server, Duration::ZERO, |piece| {
                        note(&noted, piece);
                        !(piece.starts_with(b"PUT ") && cuts.load(Ordering::Relaxed))
                    })
                });
                let away = Arc::clone(&is_away);
                let goes_on = move |_: &[u8]| !away.load(Ordering::Relaxed);
                std::thread::spawn(move || forward(from_server, to_client, pause, goes_on));
            }
        });
        Self { port, asked, ends, cuts, away }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Cuts uploads off from now on, or does not any more.
    pub fn cut_uploads(&self, cuts: bool) {
        self.cuts.store(cuts, Ordering::Relaxed);
    }

    /// Cuts answers off and takes no connections from now on, or does again.
    pub fn goes_away(&self, goes_away: bool) {
        self.away.store(goes_away, Ordering::Relaxed);
    }

    /// How often something was asked for that begins like this: `GET /files/a`.
    pub fn count(&self, line: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|asked| asked.starts_with(line)).count()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

fn note(noted: &Mutex<Vec<String>>, piece: &[u8]) {
    // Heads come in one piece.
    let line = piece.split(|byte| *byte == b'\r').next().unwrap_or_default();
    if [&b"GET "[..], b"HEAD ", b"PUT ", b"DELETE "].iter().any(|method| line.starts_with(method)) {
        noted.lock().unwrap().push(String::from_utf8_lossy(line).into_owned());
    }
}

fn forward(mut from: TcpStream, mut to: TcpStream, pause: Duration, mut goes_on: impl FnMut(&[u8]) -> bool) {
    let mut piece = vec![0; 32 << 10];
    while let Ok(len @ 1..) = from.read(&mut piece) {
        if !goes_on(&piece[..len]) {
            break;
        }
        std::thread::sleep(pause);
        if to.write_all(&piece[..len]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

/// Counts up.
#[derive(Default)]
pub struct Counter(AtomicUsize);

impl Counter {
    pub fn next(&self) -> usize {
        self.0.fetch_add(1, Ordering::Relaxed)
    }

    pub fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}
