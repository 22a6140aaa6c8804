//! Connections on which nothing is being answered.
//!
//! The HTTP library has a limit of time for the first head of a connection and one for silence between two requests, but
//! none for a later head that has begun, nor for the body of a request that was answered without it. Whoever sends one of
//! these and stops would keep a connection for ever. So each connection has a watch that knows when its last answer
//! left, and is told to end when that was too long ago.

use std::collections::HashMap;
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::rt::time::sleep;
use actix_web::{HttpRequest, HttpResponse};
use bytes::Bytes;
use socket2::{SockRef, Socket};

/// All watches.
pub struct Lulls {
    longest: Duration,
    begun: Instant,
    watched: Mutex<Watched>,
}

#[derive(Default)]
struct Watched {
    next: u64,
    connections: HashMap<u64, Arc<Connection>>,
}

struct Connection {
    /// Another descriptor of the connection's socket: the first one belongs to the HTTP library.
    socket: Socket,
    /// Requests that are being answered.
    answering: AtomicU32,
    /// When the last answer left, or the connection came, in milliseconds after [`Lulls::begun`].
    since: AtomicU64,
}

impl Lulls {
    /// Watches nothing yet. A connection is ended when nothing was answered on it for `longest`.
    pub fn new(longest: Duration) -> Arc<Self> {
        Arc::new(Self { longest, begun: Instant::now(), watched: Mutex::default() })
    }

    /// Watches a connection until the answer is dropped. It costs a descriptor; an error is that there is none.
    pub fn watch(self: &Arc<Self>, socket: &SockRef<'_>) -> std::io::Result<Watch> {
        let (socket, since) = (socket.try_clone()?, AtomicU64::new(self.now()));
        let connection = Arc::new(Connection { socket, answering: AtomicU32::new(0), since });
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        watched.next += 1;
        let id = watched.next;
        watched.connections.insert(id, Arc::clone(&connection));
        Ok(Watch { id, connection, lulls: Arc::clone(self) })
    }

    /// Ends what has been quiet for too long, again and again, as long as anybody may watch a connection.
    pub async fn end_the_quiet(lulls: Weak<Self>) {
        while let Some(pause) = lulls.upgrade().map(|lulls| lulls.sweep()) {
            sleep(pause).await;
        }
    }

    /// Ends what has been quiet for too long, and returns when to look again.
    fn sweep(&self) -> Duration {
        let oldest = self.now().saturating_sub(millis(self.longest));
        let watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        for connection in watched.connections.values() {
            if connection.answering.load(Ordering::Acquire) == 0 && connection.since.load(Ordering::Acquire) < oldest {
                log::debug!("connection closed: a request on it began and did not end");
                // The library comes upon the end of what is sent and closes. What it still has to send is sent.
                let _ = connection.socket.shutdown(Shutdown::Read);
            }
        }
        self.longest / 16
    }

    fn now(&self) -> u64 {
        millis(self.begun.elapsed())
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The watch of a connection, kept with the connection.
pub struct Watch {
    id: u64,
    connection: Arc<Connection>,
    lulls: Arc<Lulls>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.lulls.watched.lock().unwrap_or_else(PoisonError::into_inner).connections.remove(&self.id);
    }
}

/// A request that is being answered, until it is dropped.
pub struct Answering {
    connection: Arc<Connection>,
    lulls: Arc<Lulls>,
}

impl Answering {
    /// Of a request that has just come; `None` where nobody watches.
    pub fn begin(request: &HttpRequest) -> Option<Self> {
        let watch: &Watch = request.conn_data()?;
        watch.connection.answering.fetch_add(1, Ordering::AcqRel);
        Some(Self { connection: Arc::clone(&watch.connection), lulls: Arc::clone(&watch.lulls) })
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
        self.connection.since.store(self.lulls.now(), Ordering::Release);
        self.connection.answering.fetch_sub(1, Ordering::AcqRel);
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

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use actix_web::web::{self, Payload};
    use actix_web::{App, HttpServer};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    const LONGEST: Duration = Duration::from_millis(400);

    async fn serve(request: HttpRequest, _body: Payload) -> HttpResponse {
        let answering = Answering::begin(&request).unwrap();
        let answer = match request.path() {
            "/long" => {
                let pieces = futures_util::stream::unfold(0, |piece| async move {
                    sleep(LONGEST / 2).await;
                    (piece < 6).then(|| (Ok::<_, std::io::Error>(Bytes::from_static(b"x")), piece + 1))
                });
                HttpResponse::Ok().streaming(pieces)
            }
            "/late" => {
                sleep(LONGEST * 3).await;
                HttpResponse::Ok().body("late")
            }
            _ => HttpResponse::Ok().body("soon"),
        };
        answering.follow(answer)
    }

    /// What a client reads to the end that sends this and nothing after it, and how many watches are left then.
    async fn read(sent: &str) -> (String, usize) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let lulls = Lulls::new(LONGEST);
        let server = HttpServer::new(|| App::new().default_service(web::to(serve))).workers(1).disable_signals();
        let watching = Arc::clone(&lulls);
        let server = server.on_connect(move |io, extensions| {
            let stream = io.downcast_ref::<actix_web::rt::net::TcpStream>().unwrap();
            extensions.insert(watching.watch(&SockRef::from(stream)).unwrap());
        });
        let server = server.listen(listener).unwrap().run();
        let handle = server.handle();
        let running = actix_web::rt::spawn(server);
        let sweeper = actix_web::rt::spawn(Lulls::end_the_quiet(Arc::downgrade(&lulls)));
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(sent.as_bytes()).await.unwrap();
        let mut text = Vec::new();
        let reading = client.read_to_end(&mut text);
        // A generous bound that tells a connection that nobody closes.
        tokio::time::timeout(Duration::from_secs(30), reading).await.expect("the connection is closed").unwrap();
        sleep(LONGEST / 4).await;
        let left = lulls.watched.lock().unwrap().connections.len();
        handle.stop(false).await;
        running.await.unwrap().unwrap();
        drop(lulls);
        sweeper.await.unwrap();
        (String::from_utf8(text).unwrap(), left)
    }

    #[actix_web::test]
    async fn a_later_head_that_does_not_end_ends_the_connection() {
        let (text, left) = read("GET /soon HTTP/1.1\r\nHost: x\r\n\r\nG").await;
        assert!(text.contains("200 OK") && text.contains("soon"), "{text}");
        assert_eq!(left, 0);
    }

    #[actix_web::test]
    async fn a_body_that_nobody_reads_and_that_does_not_end_ends_the_connection() {
        let (text, left) = read("GET /soon HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf").await;
        assert!(text.contains("200 OK") && text.contains("soon"), "{text}");
        assert_eq!(left, 0);
    }

    #[actix_web::test]
    async fn answers_that_take_long_leave_as_a_whole() {
        let (text, _) = read("GET /late HTTP/1.1\r\nHost: x\r\n\r\nG").await;
        assert!(text.contains("late"), "{text}");
        let (text, _) = read("GET /long HTTP/1.1\r\nHost: x\r\n\r\nG").await;
        assert_eq!(text.matches("1\r\nx\r\n").count(), 6, "{text}");
        assert!(text.ends_with("0\r\n\r\n"), "{text}");
    }
}
