//! Pages of numbers.

use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use s3dedup_actors::model::{Error, Kind};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::json;
use crate::http::error::Failure;
use crate::instances;
use crate::observe::families::{Families, TEXT};
use crate::observe::{Observer, Range, shown};

/// How long the list of instances may take.
const INSTANCES_WAIT_MAX: Duration = Duration::from_secs(4);

pub async fn metrics(observer: &Observer) -> Result<HttpResponse, Failure> {
    let text = Families::now(observer).await.to_text();
    let failed = |error| Error::new(Kind::Internal, "cannot write the metrics").with_source(error);
    let text = text.map_err(failed)?;
    Ok(HttpResponse::Ok().insert_header((CONTENT_TYPE, TEXT)).insert_header((CACHE_CONTROL, "no-store")).body(text))
}

pub async fn metrics_json(observer: &Observer) -> Result<HttpResponse, Failure> {
    Ok(json(&Families::now(observer).await.to_json()))
}

pub async fn stats(observer: &Observer) -> Result<HttpResponse, Failure> {
    let totals = observer.totals().await;
    let totals = totals.ok_or_else(|| Error::new(Kind::Unavailable, "the metadata store does not tell its totals"))?;
    Ok(json(&shown::stats(observer, &totals)))
}

/// `?range=hour`, which is what is meant without it, or `?range=week`.
pub fn history(observer: &Observer, query: &str) -> Result<HttpResponse, Failure> {
    let range = match query {
        "" | "range=hour" => Range::Hour,
        "range=week" => Range::Week,
        _ => return Err(Failure::bad_request("expected range=hour or range=week")),
    };
    Ok(json(&shown::history(observer, range)))
}

pub fn cleaner(observer: &Observer) -> Result<HttpResponse, Failure> {
    Ok(json(&shown::cleaner(observer)))
}

/// All instances of the database; without such a list this one, which is the only one then.
pub async fn instances(observer: &Observer) -> Result<HttpResponse, Failure> {
    let Some(registry) = observer.registry() else { return Ok(json(&json!([alone(observer)]))) };
    let late = |_| Error::new(Kind::Unavailable, "the metadata store does not answer in time");
    let known = timeout(INSTANCES_WAIT_MAX, registry.instances()).await.map_err(late).flatten()?;
    Ok(json(&instances::to_json(&known)))
}

fn alone(observer: &Observer) -> Value {
    let facts = observer.facts();
    json!({
        "id": facts.instance,
        "address": null,
        "version": env!("CARGO_PKG_VERSION"),
        "locks": facts.locks,
        "contents": facts.contents,
        "started": instances::time(observer.started_at()),
        "last_seen_seconds": 0,
        "state": "live",
    })
}
