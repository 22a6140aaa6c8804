//! The HTTP front end: translates protocols, holds no state of its own.
//!
//! Requests are routed by their raw path ([`path`]), not by actix's router, which would decode it
//! in ways of its own. Every failure is answered by [`error`].

pub mod accept;
pub mod access;
pub mod admin;
pub mod body;
pub mod connection;
pub mod doors;
pub mod error;
pub mod filetracker;
pub mod guard;
pub mod health;
pub mod path;
pub mod query;
pub mod reply;
pub mod request_id;
pub mod stopping;
pub mod upload;

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::http::{ConnectionType, Version};
use actix_web::{HttpRequest, HttpResponse, web};
use s3dedup_actors::{Behalf, Engine};
use tokio::sync::Semaphore;

use access::Access;
use body::{DrainLimits, Incoming, Pace};
use connection::refused::Refused;
use connection::{Answering, Line};
use doors::Doors;
use error::{Failure, Told};
use guard::Guard;
use path::{Prefix, Target};
use reply::TextWhileDraining;
use stopping::Stopping;

use crate::observe::Observer;

/// Settings of the front end.
#[derive(Clone)]
pub struct HttpSettings {
    /// The path everything is served under, such as `/ft`; empty for the root.
    pub prefix: String,
    /// The longest wait for the next piece of a request body.
    pub body_idle: Duration,
    /// The slowest a request body may come, in bytes per second; 0 for no minimum.
    pub body_min_rate: u64,
    /// How long a client may take nothing of an answer that is being made.
    pub stalled_reader: Duration,
    /// Who may ask what.
    pub guard: Guard,
    /// Which listener serves what.
    pub doors: Doors,
    /// Whether every request gets a line in the log.
    pub access_log: bool,
}

/// What every request needs.
pub struct Front {
    engine: Engine,
    observer: Observer,
    prefix: Prefix,
    pace: Pace,
    stalled_reader: Duration,
    guard: Guard,
    doors: Doors,
    stopping: Stopping,
    access_log: bool,
    /// Places for refused requests whose bodies are thrown away.
    unwelcome: Arc<Semaphore>,
    probe: health::Probe,
}

/// How many bodies of unwelcome requests are read at once; more are cut off.
const UNWELCOME_BODIES_MAX: usize = 64;

/// Makes what all workers share of the front end.
pub fn front(settings: HttpSettings, observer: Observer, stopping: Stopping) -> web::Data<Front> {
    web::Data::new(Front {
        engine: observer.engine().clone(),
        observer,
        prefix: Prefix::new(&settings.prefix),
        pace: Pace { idle: settings.body_idle, bytes_per_second_min: settings.body_min_rate },
        stalled_reader: settings.stalled_reader,
        guard: settings.guard,
        doors: settings.doors,
        stopping,
        access_log: settings.access_log,
        unwelcome: Arc::new(Semaphore::new(UNWELCOME_BODIES_MAX)),
        probe: health::Probe::default(),
    })
}

/// Makes the configuration of an `App` that serves everything.
///
/// Once `stopping` is announced every answer asks its client to close the connection. Once it refuses, new requests of a
/// protocol are 503; what is asked of the server itself is answered to the end.
pub fn configure(front: web::Data<Front>) -> impl Fn(&mut web::ServiceConfig) + Clone + Send + 'static {
    move |config| {
        config.app_data(front.clone()).default_service(web::to(serve));
    }
}

/// Makes what hears of everything that was no request.
pub fn refusals(front: web::Data<Front>) -> impl Fn(&Refused) + Send + Sync + 'static {
    move |refused| {
        front.observer.traffic().note_refused(refused.status);
        if front.access_log {
            access::tell_refused(refused);
        }
    }
}

/// Answers on behalf of the request: whatever is logged on the way carries its id, and so does the answer.
async fn serve(request: HttpRequest, payload: web::Payload, front: web::Data<Front>) -> HttpResponse {
    let answering = Answering::begin(&request);
    let behalf = Behalf::of(request_id::of(request.headers()));
    let answer = behalf.clone().scope(serve_for(behalf, request, payload, front)).await;
    match answering {
        Some(answering) => answering.follow(answer),
        None => answer,
    }
}

async fn serve_for(
    behalf: Behalf,
    request: HttpRequest,
    payload: web::Payload,
    front: web::Data<Front>,
) -> HttpResponse {
    let begun = Instant::now();
    let mut body = Incoming::new(payload, front.pace);
    let access =
        front.access_log.then(|| Access::begin(&request, &front.guard, behalf.clone(), begun, body.received()));
    let (endpoint, answer) = answer(&front, &request, &mut body).await;
    let mut close = front.stopping.is_announced();
    let mut response = match answer {
        Ok(response) => response,
        Err(failure) => {
            failure.log(&request);
            let is_counted = failure.is_unwelcome() && !failure.closes() && !body.is_over();
            let place = is_counted.then(|| Arc::clone(&front.unwelcome).try_acquire_owned().ok()).flatten();
            let gives_up = failure.closes() || (is_counted && place.is_none());
            close |= gives_up;
            let limits = match (gives_up, is_counted) {
                (true, _) => DrainLimits::GIVEN_UP,
                (_, true) => DrainLimits::UNWELCOME,
                _ => DrainLimits::REFUSED,
            };
            let told = Told { id: behalf.id(), is_json: error::wants_json(&request) };
            let drain = body.drain(limits);
            failure.into_response(told, |text| TextWhileDraining::new(text, drain, place))
        }
    };
    front.observer.traffic().note(request.method(), endpoint, response.status(), begun.elapsed());
    let ((method, path), status) = (asked(&request), response.status().as_u16());
    log::debug!(method, path, status; "request served");
    let head = response.head_mut();
    // As the old server spelled them, for people and scripts that compare.
    head.set_camel_case_headers(true);
    request_id::show(&behalf, head);
    if close {
        head.set_connection_type(ConnectionType::Close);
    }
    match access {
        Some(access) => access.follow(response),
        None => response,
    }
}

/// The answer, and the name of its route: there are few of these, whatever is asked for.
async fn answer(
    front: &Front,
    request: &HttpRequest,
    body: &mut Incoming,
) -> (&'static str, Result<HttpResponse, Failure>) {
    if Line::of(request).is_some_and(|line| line.is_too_many()) {
        return ("other", Err(Failure::too_many_connections()));
    }
    let path = request.uri().path();
    // For whoever runs and balances servers, at every door and without a token.
    if let Some((endpoint, question)) = health::route(path) {
        return (endpoint, health::serve(front, request, question).await);
    }
    let served = front.doors.of(request);
    match admin::route(path) {
        Some((endpoint, page)) if served.admin => {
            let answer = match front.guard.page(request, page) {
                Ok(()) => admin::serve(front, request, page).await,
                Err(failure) => Err(failure),
            };
            (endpoint, answer)
        }
        None if served.clients => {
            let target = path::target(&front.prefix, path);
            let endpoint = target.as_ref().map_or("other", Target::endpoint);
            (endpoint, protocol(front, request, target, body).await)
        }
        _ => ("other", Err(Failure::not_found("nothing is served here"))),
    }
}

/// The answer to a request of a protocol. What is not served is told to those only who may ask.
async fn protocol(
    front: &Front,
    request: &HttpRequest,
    target: Result<Target, Failure>,
    body: &mut Incoming,
) -> Result<HttpResponse, Failure> {
    front.guard.protocol(request)?;
    let target = target?;
    if front.stopping.refuses() {
        return Err(Failure::stopping());
    }
    filetracker::serve(front, request, target, body).await
}

/// What was asked for, for the log. Queries may hold secrets.
fn asked(request: &HttpRequest) -> (&str, &str) {
    (request.method().as_str(), request.uri().path())
}

/// Lets an answer of unknown length end with the connection where the client knows no chunks.
fn end_with_connection(request: &HttpRequest, response: &mut HttpResponse) {
    if request.version() < Version::HTTP_11 {
        let head = response.head_mut();
        head.no_chunking(true);
        head.set_connection_type(ConnectionType::Close);
    }
}
