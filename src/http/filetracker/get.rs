//! `GET` and `HEAD files/PATH`: the stored gzip bytes, or the plain ones where gzip is ruled out.

use actix_web::body::BodySize;
use actix_web::http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, VARY};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder};
use s3dedup_actors::model::{Entry, EntryKey, Recipe};

use super::{LOGICAL_SIZE, last_modified, no_such_file};
use crate::http::accept::takes_gzip;
use crate::http::error::Failure;
use crate::http::reply::{Described, Streamed};
use crate::http::{Front, what};

pub async fn get(front: &Front, request: &HttpRequest, key: &EntryKey) -> Result<HttpResponse, Failure> {
    let permit = front.engine.admit()?;
    let download = front.engine.open(key).await?.ok_or_else(no_such_file)?;
    let gzip = wants_gzip(request);
    let mut response = head_of(&download.entry, gzip);
    if gzip && let Some(bytes) = download.stored_whole() {
        // Head and body leave in one piece.
        return Ok(response.body(bytes));
    }
    let (size, bytes) = if gzip {
        (download.stored_size(), download.stored())
    } else {
        (download.entry.logical_size, download.decoded())
    };
    Ok(response.body(Streamed::new(BodySize::Sized(size), bytes, what(request), permit)))
}

pub async fn head(front: &Front, request: &HttpRequest, key: &EntryKey) -> Result<HttpResponse, Failure> {
    let _permit = front.engine.admit()?;
    let entry = front.engine.stat(key).await?.ok_or_else(no_such_file)?;
    let gzip = wants_gzip(request);
    let size = if gzip { stored_size(&entry)? } else { entry.logical_size };
    Ok(head_of(&entry, gzip).body(Described(BodySize::Sized(size))))
}

fn wants_gzip(request: &HttpRequest) -> bool {
    let values: Vec<&str> =
        request.headers().get_all(ACCEPT_ENCODING).filter_map(|value| value.to_str().ok()).collect();
    takes_gzip(Some(&values.join(",")))
}

fn head_of(entry: &Entry, gzip: bool) -> HttpResponseBuilder {
    let mut response = HttpResponse::Ok();
    response
        .insert_header((CONTENT_TYPE, "application/octet-stream"))
        .insert_header(last_modified(entry.stamp))
        .insert_header((LOGICAL_SIZE, entry.logical_size.to_string()))
        .insert_header((VARY, "Accept-Encoding"));
    if gzip {
        response.insert_header((CONTENT_ENCODING, "gzip"));
    }
    response
}

fn stored_size(entry: &Entry) -> Result<u64, Failure> {
    match &entry.recipe {
        Recipe::Whole(blob) => Ok(blob.stored_size),
        _ => Err(Failure::internal("the size of this file's gzip form is not known")),
    }
}
