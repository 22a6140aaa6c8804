//! `GET /health` and `GET /ready`, at the root whatever the prefix is: for what runs and balances instances.

use std::time::{Duration, Instant};

use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, HttpResponse};
use s3dedup_actors::Readiness;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::Front;
use super::error::Failure;

/// The query of balancers for which 503 is as bad as no answer at all.
const SAY_NOT_FOUND: &str = "otherwise=404";
/// The query of balancers that choose among instances with one content store: none of them is better off without it, and
/// much goes on.
const WITHOUT_CONTENTS: &str = "contents=optional";

/// How long what was found is told to others, too: anybody may ask, and each look costs the database a query.
const SHARED_FOR: Duration = Duration::from_millis(250);

/// What was found last, and when. Whoever comes while it is looked for waits for it.
#[derive(Default)]
pub struct Probe(Mutex<Option<(Instant, Readiness)>>);

impl Probe {
    async fn shared(&self, look: impl Future<Output = Readiness>) -> Readiness {
        let mut last = self.0.lock().await;
        if let Some((at, readiness)) = last.as_ref()
            && at.elapsed() < SHARED_FOR
        {
            return readiness.clone();
        }
        let readiness = look.await;
        *last = Some((Instant::now(), readiness.clone()));
        readiness
    }
}

/// What is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Question {
    /// Whether the process answers.
    Alive,
    /// Whether requests should be sent here.
    Ready,
}

/// What a raw path asks, and the name of its route; `None` when it asks something else.
pub fn route(path: &str) -> Option<(&'static str, Question)> {
    match path {
        "/health" => Some(("/health", Question::Alive)),
        "/ready" => Some(("/ready", Question::Ready)),
        _ => None,
    }
}

/// Answers a question.
pub async fn serve(front: &Front, request: &HttpRequest, question: Question) -> Result<HttpResponse, Failure> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Err(Failure::method_not_allowed("GET, HEAD"));
    }
    if question == Question::Alive {
        return Ok(answer(StatusCode::OK, &json!({ "alive": true })));
    }
    let asks = |piece: &str| request.query_string().split('&').any(|it| it == piece);
    let otherwise = if asks(SAY_NOT_FOUND) { StatusCode::NOT_FOUND } else { StatusCode::SERVICE_UNAVAILABLE };
    Ok(ready(front, !asks(WITHOUT_CONTENTS), otherwise).await)
}

/// Ready means that all that is asked for can be done: both stores answer (the content store when it counts), no actor is
/// stuck, and the server is not stopping.
async fn ready(front: &Front, contents_count: bool, otherwise: StatusCode) -> HttpResponse {
    let readiness = front.probe.shared(front.engine.readiness()).await;
    let is_draining = front.stopping.is_announced();
    let are_stores_there = readiness.metadata.is_none() && (readiness.contents.is_none() || !contents_count);
    let is_ready = are_stores_there && readiness.actors.is_none() && !is_draining;
    let state = |trouble: &Option<String>| trouble.as_deref().unwrap_or("ok").to_owned();
    let body = json!({
        "ready": is_ready,
        "metadata": state(&readiness.metadata),
        "contents": state(&readiness.contents),
        "actors": state(&readiness.actors),
        "draining": is_draining,
    });
    answer(if is_ready { StatusCode::OK } else { otherwise }, &body)
}

fn answer(status: StatusCode, body: &Value) -> HttpResponse {
    let mut response = HttpResponse::build(status);
    if status != StatusCode::OK {
        response.insert_header((RETRY_AFTER, "1"));
    }
    response
        .insert_header((CONTENT_TYPE, "application/json"))
        .insert_header((CACHE_CONTROL, "no-store"))
        .body(body.to_string())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use futures_util::future::join_all;

    use super::*;

    #[actix_web::test]
    async fn a_crowd_that_asks_costs_few_looks() {
        let (probe, looks) = (Probe::default(), Cell::new(0));
        let look = || async {
            looks.set(looks.get() + 1);
            actix_web::rt::time::sleep(Duration::from_millis(10)).await;
            Readiness { metadata: Some(looks.get().to_string()), contents: None, actors: None }
        };
        let found = join_all((0..1000).map(|_| probe.shared(look()))).await;
        assert!(looks.get() < 100, "{}", looks.get());
        assert_eq!(found[0].metadata.as_deref(), Some("1"));
        actix_web::rt::time::sleep(SHARED_FOR).await;
        assert_eq!(probe.shared(look()).await.metadata, Some(looks.get().to_string()));
    }
}
