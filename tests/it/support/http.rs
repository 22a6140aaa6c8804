//! A small HTTP/1.1 client that can also be odd: raw targets, cut and slow bodies, broken framing.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// Longer than anything a healthy server takes, so that a hang fails instead of hanging the run.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// One request on a connection of its own.
#[derive(Clone)]
pub struct Request {
    address: SocketAddr,
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Body,
}

#[derive(Clone)]
enum Body {
    None,
    Sized(Vec<u8>),
    Chunked(Vec<Vec<u8>>),
}

impl Request {
    pub fn new(address: SocketAddr, method: &str, target: &str) -> Self {
        Self { address, method: method.into(), target: target.into(), headers: Vec::new(), body: Body::None }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// A body with `Content-Length`.
    pub fn body(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.body = Body::Sized(bytes.into());
        self
    }

    /// A chunked body.
    pub fn chunks(mut self, bytes: &[u8], size: usize) -> Self {
        self.body = Body::Chunked(bytes.chunks(size).map(<[u8]>::to_vec).collect());
        self
    }

    /// The request line and the headers, up to the empty line.
    pub fn head(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\nHost: test\r\n", self.method, self.target);
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        match &self.body {
            Body::None => {}
            Body::Sized(bytes) => head += &format!("Content-Length: {}\r\n", bytes.len()),
            Body::Chunked(_) => head += "Transfer-Encoding: chunked\r\n",
        }
        (head + "\r\n").into_bytes()
    }

    /// How long the body is that it sends.
    pub fn body_len(&self) -> usize {
        match &self.body {
            Body::None => 0,
            Body::Sized(bytes) => bytes.len(),
            Body::Chunked(chunks) => chunks.iter().map(Vec::len).sum(),
        }
    }

    pub fn is_head(&self) -> bool {
        self.method == "HEAD"
    }

    /// Sends it all, then reads the answer.
    pub fn send(&self) -> Response {
        self.try_send().unwrap_or_else(|error| panic!("{} {}: {error}", self.method, self.target))
    }

    /// Like [`Request::send`] for servers that may be gone.
    pub fn try_send(&self) -> io::Result<Response> {
        let mut connection = Connection::open(self.address)?;
        self.try_send_on(&mut connection)
    }

    /// Sends it on a connection that stays open.
    pub fn send_on(&self, connection: &mut Connection) -> Response {
        self.try_send_on(connection).unwrap()
    }

    /// Like [`Request::send_on`] for servers that may be gone.
    pub fn try_send_on(&self, connection: &mut Connection) -> io::Result<Response> {
        // The server may answer and close before it has read everything.
        let sent = self.write_to(connection);
        connection.response(self.is_head()).map_err(|error| sent.err().unwrap_or(error))
    }

    /// Sends it without reading the answer.
    pub fn write_to(&self, connection: &mut Connection) -> io::Result<()> {
        connection.try_write(&self.head())?;
        match &self.body {
            Body::None => Ok(()),
            Body::Sized(bytes) => connection.try_write(bytes),
            Body::Chunked(chunks) => {
                for chunk in chunks.iter().filter(|chunk| !chunk.is_empty()) {
                    connection.try_write(format!("{:x}\r\n", chunk.len()).as_bytes())?;
                    connection.try_write(chunk)?;
                    connection.try_write(b"\r\n")?;
                }
                connection.try_write(b"0\r\n\r\n")
            }
        }
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.target)
    }
}

/// Whether it took too long, rather than failed.
pub fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// An open connection.
pub struct Connection {
    reader: BufReader<TcpStream>,
}

impl Connection {
    pub fn open(address: SocketAddr) -> io::Result<Self> {
        Self::open_with(address, ANSWER_TIMEOUT)
    }

    /// A connection that waits no longer than this: to be made, to send or to receive something.
    pub fn open_with(address: SocketAddr, patience: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, patience)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        Ok(Self { reader: BufReader::new(stream) })
    }

    pub fn write(&mut self, bytes: &[u8]) {
        self.try_write(bytes).unwrap();
    }

    pub fn try_write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.reader.get_mut().write_all(bytes)
    }

    /// Says that nothing more will be sent.
    pub fn finish_writing(&mut self) {
        self.reader.get_ref().shutdown(Shutdown::Write).unwrap();
    }

    /// Whether the server has closed the connection; waits for it.
    pub fn is_closed(&mut self) -> bool {
        matches!(self.reader.fill_buf(), Ok([]) | Err(_))
    }

    /// Reads one line: an interim answer, for example.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Whether an answer has begun; waits a moment for it.
    pub fn has_answer(&mut self) -> bool {
        self.answers_within(Duration::from_millis(100))
    }

    /// Whether an answer, or the end of the connection, comes within this time.
    pub fn answers_within(&mut self, time: Duration) -> bool {
        let stream = self.reader.get_ref();
        let usual = stream.read_timeout().unwrap();
        stream.set_read_timeout(Some(time)).unwrap();
        let answered = !matches!(stream.peek(&mut [0]), Err(error) if is_timeout(&error));
        stream.set_read_timeout(usual).unwrap();
        answered
    }

    /// Reads until the server closes.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.reader.read_to_end(&mut bytes).unwrap();
        bytes
    }

    /// Reads a whole answer; `to_head` when it answers a HEAD.
    pub fn response(&mut self, to_head: bool) -> io::Result<Response> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if self.reader.read_line(&mut line)? == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed without an answer"));
            }
            match line.trim_end() {
                "" => break,
                line => lines.push(line.to_owned()),
            }
        }
        let status = lines[0].split(' ').nth(1).and_then(|text| text.parse().ok()).expect("a status line");
        let split = |line: &String| {
            let (name, value) = line.split_once(':').expect("a header line");
            (name.to_ascii_lowercase(), value.trim().to_owned())
        };
        let headers = lines[1..].iter().map(split).collect();
        let mut response = Response { status, headers, body: Vec::new(), complete: true };
        if to_head || response.status == 204 || response.status == 304 {
            return Ok(response);
        }
        (response.body, response.complete) = match (response.header("transfer-encoding"), response.content_length()) {
            (Some("chunked"), _) => self.chunked(),
            (_, Some(length)) => {
                let mut body = Vec::new();
                // A reset is one way to be cut off.
                let _ = self.reader.by_ref().take(length).read_to_end(&mut body);
                let complete = body.len() as u64 == length;
                (body, complete)
            }
            _ => {
                let mut body = Vec::new();
                let complete = self.reader.read_to_end(&mut body).is_ok();
                (body, complete)
            }
        };
        Ok(response)
    }

    fn chunked(&mut self) -> (Vec<u8>, bool) {
        let mut body = Vec::new();
        loop {
            let mut line = String::new();
            let Ok(1..) = self.reader.read_line(&mut line) else { return (body, false) };
            let Ok(size) = u64::from_str_radix(line.trim(), 16) else { return (body, false) };
            let mut chunk = Vec::new();
            if self.reader.by_ref().take(size + 2).read_to_end(&mut chunk).is_err() || !chunk.ends_with(b"\r\n") {
                body.extend(chunk);
                return (body, false);
            }
            chunk.truncate(chunk.len() - 2);
            body.extend(chunk);
            if size == 0 {
                return (body, true);
            }
        }
    }
}

/// An answer.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Whether the body came as long as it was announced.
    pub complete: bool,
}

impl Response {
    /// A header's value; its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn content_length(&self) -> Option<u64> {
        self.header("content-length").map(|text| text.parse().unwrap())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// The lines of a listing, sorted.
    pub fn lines(&self) -> Vec<&str> {
        let text = self.text();
        assert!(text.is_empty() || text.ends_with('\n'), "a listing must end its last line");
        let mut lines: Vec<&str> = text.lines().collect();
        lines.sort_unstable();
        lines
    }

    /// Asserts a failure that says why: one line, the same in `X-Exception` and in the body, which names the request as well.
    #[track_caller]
    pub fn assert_refused(&self, status: u16) -> &Self {
        assert_eq!(self.status, status, "{self:?}");
        let line = self.header("x-exception").expect("X-Exception").to_owned();
        assert!(!line.is_empty() && !line.contains("/tmp"), "{line:?}");
        let id = self.header("x-request-id").expect("X-Request-Id");
        assert_eq!(self.text(), format!("{line}\nrequest_id: {id}\n"));
        assert_eq!(self.header("content-type"), Some("text/plain; charset=utf-8"));
        self
    }

    #[track_caller]
    pub fn assert_status(&self, status: u16) -> &Self {
        assert_eq!(self.status, status, "{:?} {:?}", self.headers, String::from_utf8_lossy(&self.body));
        assert!(self.complete, "the answer was cut off");
        self
    }
}
