//! What those who look after the server ask: metrics, `/api/...` and the dashboard.
//!
//! [`serve`] is the only door to all of it, so that a guard in front of it guards everything, and so that another listener
//! can serve this and nothing else.

mod engine;
mod numbers;

use actix_web::http::Method;
use actix_web::http::header::CACHE_CONTROL;
use actix_web::{HttpRequest, HttpResponse};
use serde_json::Value;

use super::Front;
use super::error::Failure;

/// One of the pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Page {
    /// Numbers for Prometheus.
    Metrics,
    /// The same as JSON.
    MetricsJson,
    /// What is stored, and what that saves.
    Stats,
    /// The same over time.
    History,
    /// The tree of actors.
    Actors,
    /// What the cleaner has done.
    Cleaner,
    /// How far a migration is.
    Migration,
    /// Who serves the same database.
    Instances,
}

const PAGES: &[(&str, Page)] = &[
    ("/metrics", Page::Metrics),
    ("/metrics/json", Page::MetricsJson),
    ("/api/stats", Page::Stats),
    ("/api/history", Page::History),
    ("/api/actors", Page::Actors),
    ("/api/cleaner", Page::Cleaner),
    ("/api/migration", Page::Migration),
    ("/api/instances", Page::Instances),
];

/// The page of a raw path and the name of its route; `None` when it is not one of these.
pub fn route(path: &str) -> Option<(&'static str, Page)> {
    PAGES.iter().find(|(known, _)| *known == path).copied()
}

/// Answers a request for a page.
pub async fn serve(front: &Front, request: &HttpRequest, page: Page) -> Result<HttpResponse, Failure> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Err(Failure::method_not_allowed("GET, HEAD"));
    }
    let observer = &front.observer;
    match page {
        Page::Metrics => numbers::metrics(observer).await,
        Page::MetricsJson => numbers::metrics_json(observer).await,
        Page::Stats => numbers::stats(observer).await,
        Page::History => numbers::history(observer, request.query_string()),
        Page::Cleaner => numbers::cleaner(observer),
        Page::Actors => Ok(json(&engine::actors(&front.engine.actors()))),
        Page::Migration => Ok(json(&engine::migration(&front.engine))),
        Page::Instances => numbers::instances(observer).await,
    }
}

fn json(value: &Value) -> HttpResponse {
    HttpResponse::Ok().insert_header((CACHE_CONTROL, "no-store")).json(value)
}
