//! Connections on which nothing is being answered, and those whose client is gone.
//!
//! The HTTP library has a limit of time for the first head of a connection and one for silence between two requests, but
//! none for a later head that has begun, nor for the body of a request that was answered without it. Whoever sends one of
//! these and stops would keep a connection for ever. So each thread looks at its connections again and again, and ends those
//! whose last answer left too long ago, and those whose client does not even acknowledge what it is sent.

use std::cell::RefCell;
use std::collections::HashMap;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::rt::time::sleep;
use actix_web::{HttpRequest, HttpResponse};
use bytes::Bytes;

use super::wire::Line;

/// How often a connection is looked at while a limit passes.
const LOOKS: u32 = 16;

/// How long a connection may be quiet.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Without anything being answered.
    pub lull: Duration,
    /// Without a sign of a client that something was sent to.
    pub gone: Duration,
}

/// The connections of a thread.
pub struct Lulls {
    patience: Patience,
    watched: RefCell<Watched>,
}

#[derive(Default)]
struct Watched {
    next: u64,
    lines: HashMap<u64, Weak<Line>>,
}

impl Lulls {
    /// Watches nothing yet; looks in the background of this thread, as long as anybody may watch a connection.
    pub fn start(patience: Patience) -> Rc<Self> {
        let lulls = Rc::new(Self { patience, watched: RefCell::default() });
        actix_web::rt::spawn(Self::look(Rc::downgrade(&lulls)));
        lulls
    }

    /// Watches a connection until the answer is dropped.
    pub fn watch(self: &Rc<Self>, line: &Rc<Line>) -> Watch {
        let mut watched = self.watched.borrow_mut();
        watched.next += 1;
        let id = watched.next;
        watched.lines.insert(id, Rc::downgrade(line));
        Watch { id, lulls: Rc::clone(self) }
    }

    async fn look(lulls: Weak<Self>) {
        while let Some(pause) = lulls.upgrade().map(|lulls| lulls.sweep()) {
            sleep(pause).await;
        }
    }

    /// Ends what has been quiet for too long, and returns when to look again.
    fn sweep(&self) -> Duration {
        let Patience { lull, gone } = self.patience;
        for line in self.watched.borrow().lines.values().filter_map(Weak::upgrade) {
            line.end_if_quiet(lull);
            line.end_if_gone(gone);
        }
        lull.min(gone) / LOOKS
    }
}

/// The watch of a connection, kept as long as the connection.
pub struct Watch {
    id: u64,
    lulls: Rc<Lulls>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.lulls.watched.borrow_mut().lines.remove(&self.id);
    }
}

/// A request that is being answered, until it is dropped.
pub struct Answering(Rc<Line>);

impl Answering {
    /// Of a request that has just come; `None` where it came on no connection.
    pub fn begin(request: &HttpRequest) -> Option<Self> {
        let line = Line::of(request)?;
        line.begin();
        Some(Self(Rc::clone(line)))
    }

    /// Goes on until the answer has left: one that is not at hand as a whole may take as long as it needs.
    pub fn follow(self, response: HttpResponse) -> HttpResponse {
        response.map_body(|_, body| match body.try_into_bytes() {
            Ok(bytes) => BoxBody::new(bytes),
            Err(body) => BoxBody::new(Followed { body, _answering: self }),
        })
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.end();
    }
}

struct Followed {
    body: BoxBody,
    _answering: Answering,
}

impl MessageBody for Followed {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.body).poll_next(cx)
    }
}
