//! `GET /health` and `GET /ready`, at the root whatever the prefix is: for what runs and balances instances.

use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, HttpResponse};
use serde_json::{Value, json};

use super::Front;
use super::error::Failure;

/// The query of balancers for which 503 is as bad as no answer at all.
const SAY_NOT_FOUND: &str = "otherwise=404";
/// The query of balancers that choose among instances with one content store: none of them is better off without it, and
/// much goes on.
const WITHOUT_CONTENTS: &str = "contents=optional";

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
    let readiness = front.engine.readiness().await;
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
