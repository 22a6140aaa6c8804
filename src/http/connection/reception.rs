//! From an accepted socket to a request.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_http::{HttpService, Request, Response};
use actix_server::GracefulShutdownSignal;
use actix_service::{
    IntoServiceFactory as _, Service as _, ServiceFactory, ServiceFactoryExt as _, apply_fn_factory, fn_service,
    map_config,
};
use actix_web::App;
use actix_web::body::{BodySize, BoxBody, MessageBody as _};
use actix_web::dev::AppConfig;
use actix_web::http::Method;
use actix_web::web::ServiceConfig;
use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::lull::{Lulls, Patience};
use super::refused::{Refused, Tell};
use super::seats::Seats;
use super::spoken::{Spoken, Stream};
use super::wire::{Arrival, Line, Wire};

/// Longer than the 60 s after which common proxies let go of an idle connection, so that we do not
/// close one which the proxy is just about to use.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// How long a client may take to send the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may take to agree on encryption: some round trips.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a client may take to close its side.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How connections are received; clones share what is counted.
#[derive(Clone)]
pub struct Reception {
    /// Their places.
    pub seats: Seats,
    /// How long they may be quiet.
    pub patience: Patience,
    /// How long sent bytes may stay unacknowledged, or a client may have no room for more.
    pub user_timeout: Duration,
    /// Hears of what was no request.
    pub tell: Arc<dyn Fn(&Refused) + Send + Sync>,
}

/// The service of a worker for a listener: it gets sockets.
pub fn serve<F>(
    reception: Reception,
    listener: SocketAddr,
    tls: Option<Arc<ServerConfig>>,
    signal: GracefulShutdownSignal,
    routes: F,
) -> impl ServiceFactory<TcpStream, Config = ()>
where
    F: FnOnce(&mut ServiceConfig) + 'static,
{
    let app = App::new().configure(routes).into_factory();
    let app = map_config(app, |()| AppConfig::default());
    let app = app.map_err(|error: actix_web::Error| Response::<BoxBody>::from(error.error_response()));
    let app = apply_fn_factory(app, |request: Request, app: &_| {
        let line = request.conn_data::<Rc<Line>>().cloned().inspect(|line| line.count());
        let has_body = *request.method() != Method::HEAD;
        let answer = app.call(request);
        async move {
            let answer = answer.await;
            if let Some(line) = line {
                let size = answer.as_ref().ok().map(|answer| answer.response().body().size());
                line.note_answer(size.and_then(|size| sent(size, has_body)));
            }
            answer
        }
    });
    let http = HttpService::build()
        .graceful_shutdown_signal(move || {
            let signal = signal.clone();
            async move { signal.notified().await }
        })
        .keep_alive(KEEP_ALIVE)
        .client_request_timeout(HEAD_TIMEOUT)
        .client_disconnect_timeout(DISCONNECT_TIMEOUT)
        .on_connect_ext(|spoken: &Spoken, extensions| {
            extensions.insert(Rc::clone(spoken.line()));
        })
        .h1(app)
        .map_err(|error| log::debug!("connection ended error={error}"));
    let desk = Rc::new(Desk {
        lulls: Lulls::start(reception.patience),
        tell: {
            let tell = Arc::clone(&reception.tell);
            Rc::new(move |refused: &Refused| tell(refused))
        },
        tls: tls.map(TlsAcceptor::from),
        listener,
        reception,
    });
    fn_service(move |stream: TcpStream| {
        let desk = Rc::clone(&desk);
        async move { desk.receive(stream).await.ok_or(()) }
    })
    .and_then(http)
}

/// How much of a body is sent, if that is known.
fn sent(size: BodySize, has_body: bool) -> Option<u64> {
    match size {
        BodySize::Sized(bytes) if has_body => Some(bytes),
        BodySize::Stream if has_body => None,
        _ => Some(0),
    }
}

/// What a worker has for the connections of a listener.
struct Desk {
    reception: Reception,
    listener: SocketAddr,
    tls: Option<TlsAcceptor>,
    lulls: Rc<Lulls>,
    tell: Tell,
}

impl Desk {
    /// `None` when the connection ended before anything could be said.
    async fn receive(&self, stream: TcpStream) -> Option<(Spoken, Option<SocketAddr>)> {
        let peer = stream.peer_addr().ok()?;
        let (seat, is_too_many) = match self.reception.seats.take(peer.ip()) {
            Ok(seat) => (seat, false),
            Err(count) => {
                log::debug!("connection closed: its address has too many address={} count={count}", peer.ip());
                (None, true)
            }
        };
        // To be told so in encrypted words it would have to agree on encryption first, at our cost.
        if is_too_many && self.tls.is_some() {
            return None;
        }
        let arrival = Arrival { peer, listener: self.listener, seat, is_too_many };
        let line = Line::new(stream, arrival, self.reception.user_timeout);
        let watch = self.lulls.watch(&line);
        let wire = Wire(Rc::clone(&line));
        let stream = match &self.tls {
            None => Stream::Plain(wire),
            Some(acceptor) => match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(wire)).await {
                Ok(Ok(stream)) => Stream::Encrypted(Box::new(stream)),
                Ok(Err(error)) => {
                    log::debug!("connection closed: no encryption address={} error={error}", peer.ip());
                    return None;
                }
                Err(_) => {
                    log::debug!("connection closed: no encryption in time address={}", peer.ip());
                    return None;
                }
            },
        };
        Some((Spoken::new(stream, line, watch, Rc::clone(&self.tell)), Some(peer)))
    }
}
