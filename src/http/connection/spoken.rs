//! What the HTTP library reads and writes: the text of a connection, encrypted or not.
//!
//! Some answers the library makes by itself, to what it can't make a request of. Nobody here sees these but the connection
//! that they are written to: it recognises them, for nobody asked for them, and puts one of ours in their place.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;

use super::lull::Watch;
use super::refused::{Outgoing, Tell};
use super::wire::{HEAD_END, Line, Wire};

/// How text gets to the socket.
pub enum Stream {
    /// As it is.
    Plain(Wire),
    /// Encrypted.
    Encrypted(Box<TlsStream<Wire>>),
}

/// A connection, for the library.
pub struct Spoken {
    stream: Stream,
    line: Rc<Line>,
    _watch: Watch,
    tell: Tell,
    /// How many requests had come when all that was written had left and nothing was being answered; `None` while there is
    /// more of an answer to come. What is written behind the answers to those that came since is no answer of ours.
    settled: Option<u64>,
    outgoing: Option<Outgoing>,
}

impl Spoken {
    /// Nothing was said yet. `tell` hears of answers that were put in the place of the library's.
    pub fn new(stream: Stream, line: Rc<Line>, watch: Watch, tell: Tell) -> Self {
        Self { stream, line, _watch: watch, tell, settled: Some(0), outgoing: None }
    }

    /// The connection.
    pub fn line(&self) -> &Rc<Line> {
        &self.line
    }

    fn stream<T>(&mut self, poll: impl FnOnce(Pin<&mut dyn ReadWrite>) -> T) -> T {
        match &mut self.stream {
            Stream::Plain(stream) => poll(Pin::new(stream)),
            Stream::Encrypted(stream) => poll(Pin::new(stream.as_mut())),
        }
    }

    /// What is ours of this text, and the rest, which was written by the library itself; `None` when it is all ours, or that
    /// can't be told.
    fn end_of_ours<'t>(&self, text: &'t [u8]) -> Option<(&'t [u8], &'t [u8])> {
        // Answers of the library are nothing but a head.
        if self.line.is_answering() || !text.ends_with(HEAD_END) {
            return None;
        }
        let count = self.line.requests().checked_sub(self.settled?)?;
        let end = self.line.end_of_answers(count, text)?;
        (end < text.len()).then(|| text.split_at(end))
    }

    fn poll_refuse(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(mut outgoing) = self.outgoing.take_if(|outgoing| !outgoing.is_over()) {
            let polled = self.stream(|stream| stream.poll_write(cx, outgoing.rest()));
            if let Poll::Ready(Ok(count)) = polled {
                outgoing.advance(count);
            }
            self.outgoing = Some(outgoing);
            if ready!(polled)? == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
        }
        // Dropped, it is told.
        self.outgoing = None;
        Poll::Ready(Ok(()))
    }
}

trait ReadWrite: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> ReadWrite for T {}

impl AsyncRead for Spoken {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.stream(|stream| stream.poll_read(cx, buf))
    }
}

impl AsyncWrite for Spoken {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.outgoing.is_none()
            && let Some((ours, rest)) = this.end_of_ours(buf)
        {
            this.outgoing = Outgoing::instead_of(rest, ours, &this.line, &this.tell);
        }
        if this.outgoing.is_some() {
            ready!(this.poll_refuse(cx))?;
            return Poll::Ready(Ok(buf.len()));
        }
        let polled = this.stream(|stream| stream.poll_write(cx, buf));
        if let Poll::Ready(Ok(count)) = polled {
            // The library always writes all it has.
            let is_settled = count == buf.len() && !this.line.is_answering();
            this.settled = is_settled.then(|| this.line.requests());
            if is_settled {
                this.line.settle();
            }
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream(|stream| stream.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream(|stream| stream.poll_shutdown(cx))
    }
}
