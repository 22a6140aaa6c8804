//! What those who look after the server ask: metrics, `/api/...` and the dashboard.
//!
//! [`serve`] is the only door to all of it, so that a guard in front of it guards everything, and so that another listener
//! can serve this and nothing else.

mod engine;
mod files;
mod migration;
mod numbers;
mod ui;

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
    /// Which names it did not copy, and why.
    Troubles,
    /// Who serves the same database.
    Instances,
    /// Names by their beginning.
    Files,
    /// What a name holds.
    File,
    /// The file of a name.
    Download,
    /// Who holds a content.
    Content,
    /// The most shared contents.
    Shared,
    /// The dashboard, or a file of it.
    Ui(&'static ui::Asset),
}

const PAGES: &[(&str, Page)] = &[
    ("/metrics", Page::Metrics),
    ("/metrics/json", Page::MetricsJson),
    ("/api/stats", Page::Stats),
    ("/api/history", Page::History),
    ("/api/actors", Page::Actors),
    ("/api/cleaner", Page::Cleaner),
    ("/api/migration", Page::Migration),
    ("/api/migration/troubles", Page::Troubles),
    ("/api/instances", Page::Instances),
    ("/api/files", Page::Files),
    ("/api/file", Page::File),
    ("/api/download", Page::Download),
    ("/api/content", Page::Content),
    ("/api/shared", Page::Shared),
    ("/ui", Page::Ui(&ui::INDEX)),
    ("/ui/", Page::Ui(&ui::INDEX)),
];

/// The page of a raw path and the name of its route; `None` when it is not one of these.
pub fn route(path: &str) -> Option<(&'static str, Page)> {
    let asset =
        || ui::ASSETS.iter().find(|(known, _)| *known == path).map(|(_, asset)| ("/ui/{file}", Page::Ui(asset)));
    PAGES.iter().find(|(known, _)| *known == path).copied().or_else(asset)
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
        Page::Troubles => migration::troubles(observer, request.query_string()).await,
        Page::Instances => numbers::instances(observer).await,
        Page::Files => files::files(observer, request.query_string()).await,
        Page::File => files::file(observer, request.query_string()).await,
        Page::Download => files::download(front, request).await,
        Page::Content => files::content(observer, request.query_string()).await,
        Page::Shared => files::shared(observer).await,
        Page::Ui(asset) => Ok(ui::answer(asset)),
    }
}

fn json(value: &Value) -> HttpResponse {
    HttpResponse::Ok().insert_header((CACHE_CONTROL, "no-store")).json(value)
}
