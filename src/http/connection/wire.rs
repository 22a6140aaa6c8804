//! The socket of a connection: what the HTTP library or TLS reads and writes, and what is looked after beside that.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::net::{Shutdown, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use actix_web::HttpRequest;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::heard::heard;
use super::seats::Seat;

/// What the kernel holds, at most, of an answer beside what is on its way: with as much as it likes to take, up to some
/// megabytes, it would ask a slow client's answer for more so rarely that the client could not be told from one that hangs.
const UNSENT_BYTES_MAX: u32 = 64 << 10;

/// How every head ends.
pub const HEAD_END: &[u8] = b"\r\n\r\n";
/// What the library writes before the answer to a request whose client waits until it may send the body.
const GO_ON: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// Answers that may be written at once; of more it is not known where they end.
const ANSWERS_MAX: usize = 32;

/// A connection, as everyone on its thread sees it: the library, the requests on it, and who looks after it.
pub struct Line {
    socket: RefCell<TcpStream>,
    peer: SocketAddr,
    /// The address of the listener that it came in at.
    listener: SocketAddr,
    /// Lives as long as the connection.
    _seat: Option<Seat>,
    is_too_many: bool,
    /// Sizes of the bodies of answers of which nothing was written yet; `None` for one that is not known.
    bodies: RefCell<Vec<Option<u64>>>,
    /// Requests that are being answered.
    answering: Cell<u32>,
    /// When the last answer left, or the connection came.
    since: Cell<Instant>,
    /// Since when its client may be gone: it is waited for, and nothing was heard of it since.
    unheard: Cell<Option<Instant>>,
    is_ended: Cell<bool>,
}

/// What was known of a connection when it came.
pub struct Arrival {
    /// Who is at the other end.
    pub peer: SocketAddr,
    /// The address of the listener that it came in at.
    pub listener: SocketAddr,
    /// Its place among those of its address, if these are counted.
    pub seat: Option<Seat>,
    /// Whether its address has too many: of what was sent on it already nothing is done.
    pub is_too_many: bool,
}

impl Line {
    /// Takes a connection over.
    ///
    /// `TCP_NODELAY`: head and body of an answer may leave in two segments, and waiting for the first one's
    /// acknowledgement would cost 40 ms. `TCP_USER_TIMEOUT` is the last resort for clients that stopped reading.
    pub fn new(stream: TcpStream, arrival: Arrival, user_timeout: Duration) -> Rc<Self> {
        let Arrival { peer, listener, seat, is_too_many } = arrival;
        let socket = SockRef::from(&stream);
        // The connection works without them, only less well; one that is already gone refuses both.
        if let Err(error) = set_options(&socket, user_timeout) {
            log::debug!("socket option refused error={error}");
        }
        if is_too_many {
            // One that sent nothing yet is closed. What is here already is read in spite of this, and refused.
            let _ = socket.shutdown(Shutdown::Read);
        }
        Rc::new(Self {
            socket: RefCell::new(stream),
            peer,
            listener,
            _seat: seat,
            is_too_many,
            bodies: RefCell::default(),
            answering: Cell::new(0),
            since: Cell::new(Instant::now()),
            unheard: Cell::new(None),
            is_ended: Cell::new(false),
        })
    }

    /// The connection that a request came on.
    pub fn of(request: &HttpRequest) -> Option<&Rc<Self>> {
        request.conn_data()
    }

    /// Who is at the other end.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The address of the listener that it came in at.
    pub fn listener(&self) -> SocketAddr {
        self.listener
    }

    /// Whether its address has too many connections: nothing may be done for it.
    pub fn is_too_many(&self) -> bool {
        self.is_too_many
    }

    /// Whether an answer is being made or sent.
    pub fn is_answering(&self) -> bool {
        self.answering.get() > 0
    }

    /// An answer is handed to the library, with a body of this size.
    pub fn note_answer(&self, body: Option<u64>) {
        let mut bodies = self.bodies.borrow_mut();
        if bodies.len() < ANSWERS_MAX {
            bodies.push(body);
        } else {
            *bodies = vec![None];
        }
    }

    /// Some of the answers that were noted was written.
    pub fn forget_answers(&self) {
        self.bodies.borrow_mut().clear();
    }

    /// Where the noted answers end, of which the first one begins here in the text of all that is to be written. That may be
    /// behind the end of the text. `None` when it is not known.
    pub fn end_of_answers(&self, begin: usize, text: &[u8]) -> Option<usize> {
        let end = self.bodies.borrow().iter().try_fold(begin, |at, body| after_answer(text, at, (*body)?))?;
        Some(after_go_on(text, end))
    }

    /// An answer is begun.
    pub fn begin(&self) {
        self.answering.set(self.answering.get() + 1);
    }

    /// An answer has left.
    pub fn end(&self) {
        self.since.set(Instant::now());
        self.answering.set(self.answering.get().saturating_sub(1));
    }

    /// Ends it when nothing was answered on it for `longest`.
    pub fn end_if_quiet(&self, longest: Duration) {
        if !self.is_answering() && self.since.get().elapsed() > longest && !self.is_ended.replace(true) {
            log::debug!("connection closed: a request on it began and did not end address={}", self.peer.ip());
            // The library comes upon the end of what is sent and closes. What it still has to send is sent.
            let _ = SockRef::from(&*self.socket.borrow()).shutdown(Shutdown::Read);
        }
    }

    /// Whether it was ended because nothing was answered on it.
    pub fn is_ended(&self) -> bool {
        self.is_ended.get()
    }

    /// Ends it when its client is waited for and nothing was heard of it for `longest`, not even that it has no room.
    ///
    /// The kernel's own limits don't tell a client that is gone from one that reads slowly: `TCP_USER_TIMEOUT` counts the
    /// time without room, too, however often the client says that it is there, and keep-alives are not sent
    /// while something is unsent.
    pub fn end_if_gone(&self, longest: Duration) {
        let socket = self.socket.borrow();
        let Some(heard) = heard(&*socket).filter(|heard| heard.is_waited_for) else { return self.unheard.set(None) };
        let since = self.unheard.get().unwrap_or_else(Instant::now);
        if heard.ago < since.elapsed() {
            return self.unheard.set(None);
        }
        self.unheard.set(Some(since));
        if since.elapsed() > longest {
            log::debug!("connection closed: its client is gone address={}", self.peer.ip());
            let socket = SockRef::from(&*socket);
            // What is unsent goes with it, at once.
            let _ = socket.set_linger(Some(Duration::ZERO));
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

fn set_options(socket: &SockRef<'_>, user_timeout: Duration) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux", target_os = "cygwin"))]
    socket.set_tcp_user_timeout(Some(user_timeout))?;
    #[cfg(any(target_os = "android", target_os = "linux"))]
    socket.set_tcp_notsent_lowat(UNSENT_BYTES_MAX)?;
    Ok(())
}

/// Where an answer ends that begins here and has a body of this size.
fn after_answer(text: &[u8], at: usize, body: u64) -> Option<usize> {
    let head = after_go_on(text, at);
    let length = text.get(head..)?.windows(HEAD_END.len()).position(|bytes| bytes == HEAD_END)? + HEAD_END.len();
    (head + length).checked_add(usize::try_from(body).ok()?)
}

/// Behind what tells the client to go on, if that is here.
fn after_go_on(text: &[u8], at: usize) -> usize {
    if text.get(at..).is_some_and(|rest| rest.starts_with(GO_ON)) { at + GO_ON.len() } else { at }
}

/// Reads and writes the socket.
pub struct Wire(pub Rc<Line>);

impl Wire {
    fn poll<T>(&self, poll: impl FnOnce(Pin<&mut TcpStream>) -> T) -> T {
        // Never borrowed for longer than a call.
        poll(Pin::new(&mut *self.0.socket.borrow_mut()))
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.poll(|socket| socket.poll_read(cx, buf))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll(|socket| socket.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll(|socket| socket.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        self.0.socket.borrow().is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(|socket| socket.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(|socket| socket.poll_shutdown(cx))
    }
}
