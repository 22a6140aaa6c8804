//! A server that answers each request by a script and misbehaves as told: plain TCP, no S3 inside.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// What to do with one request.
#[derive(Clone, Debug)]
pub enum Reply {
    /// An answer with this status, these extra header lines and this body.
    Answer(u16, &'static str, String),
    /// Nothing, for longer than any client waits.
    Hang,
    /// The connection is closed without an answer.
    Close,
    /// A head that promises this many bytes, then fewer, then the connection is closed.
    Short(usize, usize),
    /// A head that promises this many bytes, then fewer, then nothing.
    Stall(usize, usize),
}

/// The S3 error document for `code`.
pub fn error(status: u16, code: &str) -> Reply {
    Reply::Answer(status, "", format!("<Error><Code>{code}</Code><Message>scripted</Message></Error>"))
}

/// An answer without extra headers.
pub fn answer(status: u16, body: &str) -> Reply {
    Reply::Answer(status, "", body.to_owned())
}

type Script = dyn Fn(usize, &str) -> Reply + Send + Sync;

/// A running server; it stops taking connections when dropped.
pub struct FaultServer {
    pub endpoint: String,
    requests: Arc<Mutex<Vec<String>>>,
    ended: Arc<Mutex<bool>>,
}

impl FaultServer {
    /// `script` is asked with the number of earlier requests and the request line.
    pub fn start(script: impl Fn(usize, &str) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("port");
        let endpoint = format!("http://{}", listener.local_addr().expect("address"));
        let (requests, ended) = (Arc::default(), Arc::new(Mutex::new(false)));
        let server = Self { endpoint, requests: Arc::clone(&requests), ended: Arc::clone(&ended) };
        let script: Arc<Script> = Arc::new(script);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if *ended.lock().expect("lock") {
                    return;
                }
                let (script, requests) = (Arc::clone(&script), Arc::clone(&requests));
                // A client that hangs up ends its thread: tests do that on purpose.
                thread::spawn(move || drop(serve(stream, &script, &requests)));
            }
        });
        server
    }

    /// The request lines so far.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().expect("lock").clone()
    }
}

impl Drop for FaultServer {
    fn drop(&mut self) {
        *self.ended.lock().expect("lock") = true;
        // Wakes the thread that accepts.
        drop(TcpStream::connect(self.endpoint.trim_start_matches("http://")));
    }
}

fn serve(stream: TcpStream, script: &Arc<Script>, requests: &Mutex<Vec<String>>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    while let Some(line) = read_request(&mut reader)? {
        let number = {
            let mut requests = requests.lock().expect("lock");
            requests.push(line.clone());
            requests.len() - 1
        };
        let promise = |len: usize| format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\nETag: \"e\"\r\n\r\n");
        match script(number, &line) {
            Reply::Answer(status, headers, body) => {
                let head = format!("HTTP/1.1 {status} Scripted\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
                stream.write_all(head.as_bytes())?;
                if !line.starts_with("HEAD") {
                    stream.write_all(body.as_bytes())?;
                }
            }
            Reply::Hang => thread::sleep(Duration::from_secs(60)),
            Reply::Close => return stream.shutdown(Shutdown::Both),
            Reply::Short(promised, sent) => {
                stream.write_all(promise(promised).as_bytes())?;
                stream.write_all(&vec![b'x'; sent])?;
                return stream.shutdown(Shutdown::Both);
            }
            Reply::Stall(promised, sent) => {
                stream.write_all(promise(promised).as_bytes())?;
                stream.write_all(&vec![b'x'; sent])?;
                thread::sleep(Duration::from_secs(60));
            }
        }
    }
    Ok(())
}

/// Reads a request with its body; `None` at the end of the connection.
fn read_request(reader: &mut BufReader<TcpStream>) -> std::io::Result<Option<String>> {
    let mut first = String::new();
    if reader.read_line(&mut first)? == 0 {
        return Ok(None);
    }
    let mut len = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line == "\r\n" {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            len = value.trim().parse().unwrap_or(0);
        }
    }
    std::io::copy(&mut reader.take(len), &mut std::io::sink())?;
    Ok(Some(first.trim_end().to_owned()))
}
