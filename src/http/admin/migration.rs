//! Which names a migration did not copy.

use actix_web::HttpResponse;
use serde::Deserialize;
use serde_json::json;

use super::files::{in_time, parsed};
use super::json;
use crate::http::error::Failure;
use crate::migrate;
use crate::observe::Observer;

/// Names of one page.
const ROWS: usize = 200;

#[derive(Deserialize)]
struct Query {
    #[serde(default)]
    after: Option<String>,
}

/// A page of names that were not copied, after the name `after`; `next` is the last one when there may be more.
pub async fn troubles(observer: &Observer, query: &str) -> Result<HttpResponse, Failure> {
    let Query { after } = parsed(query)?;
    let id = observer.engine().migration().and_then(|now| now.id);
    let found = match id {
        Some(id) => in_time(observer.journal().troubles(id, after, ROWS)).await?,
        None => Vec::new(),
    };
    let next = found.last().filter(|_| found.len() == ROWS).map(|last| last.name.clone());
    let names: Vec<_> = found.iter().map(migrate::trouble_to_json).collect();
    Ok(json(&json!({ "not_copied": names, "next": next })))
}
