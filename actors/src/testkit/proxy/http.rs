//! A proxy that understands HTTP/1.1 as far as it takes to answer wrongly.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::on_thread;

/// The longest head and the longest body that is changed.
const HEAD_BYTES_MAX: usize = 64 << 10;
const PIECE_BYTES: usize = 64 << 10;

/// How an answer is wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HttpFault {
    /// An error of S3, with its document. Every second time the request was carried out all the same.
    Refuse(u16, &'static str),
    /// `Content-Length` says more than comes; then the connection is closed.
    TooLong,
    /// `Content-Length` says less than comes.
    TooShort,
    /// Half of the body comes; then the connection is closed.
    CutBody,
    /// Stored bytes are changed on their way, not in number.
    WrongBytes,
    /// A PUT is acknowledged and not carried out; all else is passed on.
    Unstored,
    /// 200 and a page for people, whatever was asked for; nothing is carried out.
    Page,
}

/// A proxy to one address, on a thread of its own. Dropped, it closes its port and connections.
pub struct HttpFaultProxy {
    port: u16,
    plan: Arc<Mutex<Plan>>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

struct Plan {
    fault: Option<HttpFault>,
    /// Which share of the requests it meets.
    share: f64,
    luck: StdRng,
    /// Requests that it met.
    met: usize,
}

impl HttpFaultProxy {
    /// A proxy that passes everything on to `target`. The seed decides which requests a fault meets.
    pub fn start(target: SocketAddr, seed: u64) -> Self {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        let listener = listener.and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
        let listener = listener.unwrap_or_else(|error| panic!("no port for a proxy: {error}"));
        let address = listener.local_addr().unwrap_or_else(|error| panic!("no address of a proxy: {error}"));
        let plan = Plan { fault: None, share: 1.0, luck: StdRng::seed_from_u64(seed), met: 0 };
        let plan = Arc::new(Mutex::new(plan));
        let (end, ended) = oneshot::channel();
        let thread = on_thread(serve(listener, target, Arc::clone(&plan), ended));
        Self { port: address.port(), plan, end: Some(end), thread: Some(thread) }
    }

    /// Where it listens, on 127.0.0.1.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// Answers as the server does.
    pub fn pass(&self) {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner).fault = None;
    }

    /// How many requests were answered wrongly since the start.
    pub fn met(&self) -> usize {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner).met
    }

    /// Answers wrongly to this share of the requests that come from now on.
    pub fn fail(&self, fault: HttpFault, share: f64) {
        let mut plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        (plan.fault, plan.share) = (Some(fault), share);
    }
}

impl Drop for HttpFaultProxy {
    fn drop(&mut self) {
        self.end = None;
        if let Some(thread) = self.thread.take() {
            // It has said why it panicked.
            let _ = thread.join();
        }
    }
}

async fn serve(
    listener: std::net::TcpListener,
    target: SocketAddr,
    plan: Arc<Mutex<Plan>>,
    mut ended: oneshot::Receiver<()>,
) {
    let listener = TcpListener::from_std(listener);
    let listener = listener.unwrap_or_else(|error| panic!("the proxy cannot listen: {error}"));
    let mut links = JoinSet::new();
    loop {
        tokio::select! {
            _ = &mut ended => return,
            accepted = listener.accept() => if let Ok((client, _)) = accepted {
                let plan = Arc::clone(&plan);
                // A side that hangs up ends it.
                links.spawn(async move { drop(link(client, target, &plan).await) });
            },
            Some(_) = links.join_next() => {}
        }
    }
}

/// The first line and the headers.
struct Head {
    lines: Vec<String>,
}

/// How long a body is.
enum Length {
    Bytes(u64),
    Chunked,
    UntilClosed,
}

impl Head {
    /// `None` at the end of the connection.
    async fn read(from: &mut BufReader<TcpStream>) -> io::Result<Option<Self>> {
        let (mut lines, mut size) = (Vec::new(), 0);
        loop {
            let mut line = String::new();
            let len = from.read_line(&mut line).await?;
            size += len;
            if len == 0 && lines.is_empty() {
                return Ok(None);
            }
            if len == 0 || size > HEAD_BYTES_MAX {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            match line.trim_end() {
                "" => return Ok(Some(Self { lines })),
                line => lines.push(line.to_owned()),
            }
        }
    }

    fn header(&self, name: &str) -> Option<&str> {
        let named = |line: &&String| line.split(':').next().is_some_and(|known| known.eq_ignore_ascii_case(name));
        let line = self.lines[1..].iter().find(named)?;
        line.split_once(':').map(|(_, value)| value.trim())
    }

    fn set_length(&mut self, len: u64) {
        let is_length = |line: &str| {
            let name = line.split(':').next().unwrap_or_default();
            name.eq_ignore_ascii_case("content-length") || name.eq_ignore_ascii_case("transfer-encoding")
        };
        let first = self.lines.remove(0);
        self.lines.retain(|line| !is_length(line));
        self.lines.splice(0..0, [first, format!("content-length: {len}")]);
    }

    fn content_length(&self) -> Option<u64> {
        self.header("content-length")?.parse().ok()
    }

    fn is_chunked(&self) -> bool {
        self.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"))
    }

    fn status(&self) -> u16 {
        self.lines[0].split(' ').nth(1).and_then(|text| text.parse().ok()).unwrap_or_default()
    }

    /// Of the body of an answer to this kind of request.
    fn answer_length(&self, to_head: bool) -> Length {
        match self.content_length() {
            _ if to_head || matches!(self.status(), 204 | 304) => Length::Bytes(0),
            _ if self.is_chunked() => Length::Chunked,
            Some(len) => Length::Bytes(len),
            None => Length::UntilClosed,
        }
    }

    fn bytes(&self) -> Vec<u8> {
        (self.lines.join("\r\n") + "\r\n\r\n").into_bytes()
    }
}

async fn link(client: TcpStream, target: SocketAddr, plan: &Mutex<Plan>) -> io::Result<()> {
    client.set_nodelay(true)?;
    let mut client = BufReader::new(client);
    let mut server = None;
    while let Some(request) = Head::read(&mut client).await? {
        let (fault, is_done_too) = {
            let mut plan = plan.lock().unwrap_or_else(PoisonError::into_inner);
            let (luck, is_done_too) = (plan.luck.random::<f64>(), plan.luck.random());
            (plan.fault.filter(|_| luck < plan.share), is_done_too)
        };
        let to_head = request.lines[0].starts_with("HEAD ");
        let fault = fault.filter(|fault| *fault != HttpFault::Unstored || request.lines[0].starts_with("PUT "));
        if let Some(fault @ (HttpFault::Refuse(..) | HttpFault::Page | HttpFault::Unstored)) = fault {
            if is_done_too && matches!(fault, HttpFault::Refuse(..)) {
                let server = connected(&mut server, target).await?;
                ask(&request, &mut client, server).await?;
                let answer = answer_of(server).await?;
                read_body(server, &answer, to_head).await?;
            } else {
                let len = request.content_length().unwrap_or_default();
                tokio::io::copy(&mut (&mut client).take(len), &mut tokio::io::sink()).await?;
            }
            plan.lock().unwrap_or_else(PoisonError::into_inner).met += 1;
            client.write_all(&made_up(fault, to_head)).await?;
            continue;
        }
        let server = connected(&mut server, target).await?;
        ask(&request, &mut client, server).await?;
        let mut answer = answer_of(server).await?;
        let Some(fault) = fault else {
            pass_answer(&answer, to_head, server, &mut client).await?;
            continue;
        };
        let mut body = read_body(server, &answer, to_head).await?;
        let told = answer.content_length().unwrap_or_default().max(body.len() as u64);
        answer.set_length(told);
        match fault {
            HttpFault::TooLong => answer.set_length(told + 100),
            HttpFault::TooShort => answer.set_length(told / 2),
            HttpFault::CutBody => body.truncate(body.len() / 2),
            // A document that is wrong and well-formed is another matter.
            HttpFault::WrongBytes if !body.starts_with(b"<") => body.iter_mut().for_each(|byte| *byte ^= 1),
            _ => {}
        }
        if told > 0 {
            plan.lock().unwrap_or_else(PoisonError::into_inner).met += 1;
        }
        client.write_all(&answer.bytes()).await?;
        client.write_all(&body).await?;
        if matches!(fault, HttpFault::TooLong) || matches!(fault, HttpFault::CutBody) && told > 0 {
            return client.shutdown().await;
        }
    }
    Ok(())
}

async fn connected(server: &mut Option<BufReader<TcpStream>>, to: SocketAddr) -> io::Result<&mut BufReader<TcpStream>> {
    let stream = match server.take() {
        Some(stream) => stream,
        None => BufReader::new(TcpStream::connect(to).await?),
    };
    stream.get_ref().set_nodelay(true)?;
    Ok(server.insert(stream))
}

/// Passes a request on.
async fn ask(request: &Head, client: &mut BufReader<TcpStream>, server: &mut BufReader<TcpStream>) -> io::Result<()> {
    server.write_all(&request.bytes()).await?;
    let len = request.content_length().unwrap_or_default();
    let passed = tokio::io::copy(&mut client.take(len), server).await?;
    if passed < len || request.is_chunked() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

async fn answer_of(server: &mut BufReader<TcpStream>) -> io::Result<Head> {
    loop {
        let answer = Head::read(server).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        if answer.status() >= 200 {
            return Ok(answer);
        }
    }
}

/// Passes an answer on, piece by piece.
async fn pass_answer(
    answer: &Head,
    to_head: bool,
    server: &mut BufReader<TcpStream>,
    client: &mut BufReader<TcpStream>,
) -> io::Result<()> {
    client.write_all(&answer.bytes()).await?;
    match answer.answer_length(to_head) {
        Length::Bytes(len) => {
            if tokio::io::copy(&mut server.take(len), client).await? < len {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Length::Chunked => {
            while let Some(chunk) = read_chunk(server).await? {
                client.write_all(format!("{:x}\r\n", chunk.len()).as_bytes()).await?;
                client.write_all(&chunk).await?;
                client.write_all(b"\r\n").await?;
            }
            client.write_all(b"0\r\n\r\n").await?;
        }
        Length::UntilClosed => {
            tokio::io::copy(server, client).await?;
            client.shutdown().await?;
        }
    }
    Ok(())
}

async fn read_body(server: &mut BufReader<TcpStream>, answer: &Head, to_head: bool) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    match answer.answer_length(to_head) {
        Length::Bytes(len) => {
            body.resize(usize::try_from(len).map_err(io::Error::other)?, 0);
            server.read_exact(&mut body).await?;
        }
        Length::Chunked => {
            while let Some(chunk) = read_chunk(server).await? {
                body.extend(chunk);
            }
        }
        Length::UntilClosed => drop(server.read_to_end(&mut body).await?),
    }
    Ok(body)
}

/// `None` after the last one.
async fn read_chunk(server: &mut BufReader<TcpStream>) -> io::Result<Option<Vec<u8>>> {
    let mut line = String::new();
    server.read_line(&mut line).await?;
    let size =
        usize::from_str_radix(line.split(';').next().unwrap_or_default().trim(), 16).map_err(io::Error::other)?;
    let mut chunk = Vec::with_capacity(size.min(PIECE_BYTES));
    (&mut *server).take(size as u64).read_to_end(&mut chunk).await?;
    let mut end = String::new();
    server.read_line(&mut end).await?;
    Ok((size > 0).then_some(chunk))
}

fn made_up(fault: HttpFault, to_head: bool) -> Vec<u8> {
    let (status, kind, body) = match fault {
        HttpFault::Refuse(status, code) => {
            let document = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>CODE</Code>\
                <Message>Please reduce your request rate.</Message><Resource>/</Resource></Error>";
            (status, "application/xml", document.replace("CODE", code))
        }
        HttpFault::Unstored => {
            let head = "HTTP/1.1 200 OK\r\netag: \"00000000000000000000000000000000\"\r\ncontent-length: 0\r\n\r\n";
            return head.as_bytes().to_vec();
        }
        _ => (200, "text/html", "<html><body>Welcome! Please log in.</body></html>".to_owned()),
    };
    let head = format!("HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n", body.len());
    (if to_head { head } else { head + &body }).into_bytes()
}
