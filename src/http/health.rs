//! `GET /health` and `GET /ready`, at the root whatever the prefix is: for what runs and balances instances.

use std::sync::atomic::Ordering;

use actix_web::http::Method;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use actix_web::{HttpRequest, HttpResponse};
use serde_json::{Value, json};

use super::Front;
use super::error::Failure;

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
    Ok(match question {
        Question::Alive => answer(true, &json!({ "alive": true })),
        Question::Ready => ready(front).await,
    })
}

/// Ready means that requests should be sent here: the metadata store answers, no actor is stuck, and the server is not stopping. A content
/// store that does not answer is told but does not count: it is the same for every instance, and much goes on without it.
async fn ready(front: &Front) -> HttpResponse {
    let readiness = front.engine.readiness().await;
    let is_draining = front.draining.load(Ordering::Relaxed);
    let is_ready = readiness.metadata.is_none() && readiness.actors.is_none() && !is_draining;
    let state = |trouble: &Option<String>| trouble.as_deref().unwrap_or("ok").to_owned();
    let body = json!({
        "ready": is_ready,
        "metadata": state(&readiness.metadata),
        "contents": state(&readiness.contents),
        "actors": state(&readiness.actors),
        "draining": is_draining,
    });
    answer(is_ready, &body)
}

fn answer(is_well: bool, body: &Value) -> HttpResponse {
    let mut response = if is_well { HttpResponse::Ok() } else { HttpResponse::ServiceUnavailable() };
    if !is_well {
        response.insert_header((RETRY_AFTER, "1"));
    }
    response
        .insert_header((CONTENT_TYPE, "application/json"))
        .insert_header((CACHE_CONTROL, "no-store"))
        .body(body.to_string())
}
