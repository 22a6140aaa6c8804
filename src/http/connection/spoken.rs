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

/// How much the library collects before it writes.
pub const WRITE_BUFFER_BYTES: usize = 32 << 10;

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
    /// How much of what is to be written next is the rest of answers that were begun; `None` when that is not known. What
    /// comes behind all answers of ours was written by the library itself.
    begun: Option<usize>,
    outgoing: Option<Outgoing>,
}

impl Spoken {
    /// Nothing was said yet. `tell` hears of answers that were put in the place of the library's.
    pub fn new(stream: Stream, line: Rc<Line>, watch: Watch, tell: Tell) -> Self {
        Self { stream, line, _watch: watch, tell, begun: Some(0), outgoing: None }
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

    /// Where our answers end, this text being all that is to be written.
    fn end_of_ours(&self, text: &[u8]) -> Option<usize> {
        self.line.end_of_answers(self.begun?, text)
    }

    /// What is ours of this text, and the rest; `None` when that can't be told.
    fn split<'t>(&self, text: &'t [u8]) -> Option<(&'t [u8], &'t [u8])> {
        // Answers of the library are nothing but a head.
        if text.ends_with(HEAD_END) { text.split_at_checked(self.end_of_ours(text)?) } else { None }
    }

    /// So many bytes of this text were written.
    fn wrote(&mut self, text: &[u8], count: usize) {
        // The library always writes all it has, and it has every body that was handed to it as a whole while there is room.
        let is_all = count == text.len() && text.len() < WRITE_BUFFER_BYTES && !self.line.is_answering();
        self.begun = if is_all { Some(0) } else { self.end_of_ours(text).and_then(|end| end.checked_sub(count)) };
        self.line.forget_answers();
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
        match self.stream(|stream| stream.poll_read(cx, buf)) {
            // TLS misses the client's goodbye when we end it, and at an error what is unsent would be thrown away.
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof && self.line.is_ended() => {
                Poll::Ready(Ok(()))
            }
            polled => polled,
        }
    }
}

impl AsyncWrite for Spoken {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.outgoing.is_none()
            && let Some((ours, rest)) = this.split(buf)
        {
            this.outgoing = Outgoing::instead_of(rest, ours, &this.line, &this.tell);
        }
        if this.outgoing.is_some() {
            ready!(this.poll_refuse(cx))?;
            return Poll::Ready(Ok(buf.len()));
        }
        let polled = this.stream(|stream| stream.poll_write(cx, buf));
        if let Poll::Ready(Ok(count)) = polled {
            this.wrote(buf, count);
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
