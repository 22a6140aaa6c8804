//! `GET` and `HEAD files/PATH`: the stored gzip bytes, or the plain ones where gzip is ruled out.
//!
//! What comes from an old server beside this one is passed on as it is there: gzip from version 2, plain from version 1.

use actix_web::body::BodySize;
use actix_web::http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, VARY, X_CONTENT_TYPE_OPTIONS};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder};
use bytes::Bytes;
use futures_util::stream::BoxStream;
use s3dedup_actors::model::{self, EntryKey};
use s3dedup_actors::{Description, Reading};

use super::{LOGICAL_SIZE, last_modified, no_such_file};
use crate::http::accept::takes_gzip;
use crate::http::error::Failure;
use crate::http::reply::{Described, Streamed};
use crate::http::{Front, end_with_connection};

pub async fn get(front: &Front, request: &HttpRequest, key: &EntryKey) -> Result<HttpResponse, Failure> {
    let permit = front.engine.admit()?;
    let reading = front.engine.read(key).await?.ok_or_else(no_such_file)?;
    let description = reading.description();
    let gzip = description.is_gzip && wants_gzip(request);
    let mut response = head_of(&description, gzip);
    if gzip && let Some(bytes) = reading.stored_whole() {
        // Head and body leave in one piece.
        return Ok(response.body(bytes));
    }
    let bytes = if gzip { reading.stored() } else { decoded(reading)? };
    let mut response =
        response.body(Streamed::new(size_of(&description, gzip), bytes, request, permit, front.stalled_reader));
    if size_of(&description, gzip) == BodySize::Stream {
        end_with_connection(request, &mut response);
    }
    Ok(response)
}

pub async fn head(front: &Front, request: &HttpRequest, key: &EntryKey) -> Result<HttpResponse, Failure> {
    let _permit = front.engine.admit()?;
    let description = front.engine.describe(key).await?.ok_or_else(no_such_file)?;
    let gzip = description.is_gzip && wants_gzip(request);
    Ok(head_of(&description, gzip).body(Described(size_of(&description, gzip))))
}

fn decoded(reading: Reading) -> Result<BoxStream<'static, model::Result<Bytes>>, Failure> {
    reading.decoded().ok_or_else(|| Failure::internal("the old server does not tell the size of this file"))
}

/// The number of bytes that are sent, where it is known beforehand.
fn size_of(description: &Description, gzip: bool) -> BodySize {
    let size = if gzip { description.gzip_size } else { description.logical_size };
    size.map_or(BodySize::Stream, BodySize::Sized)
}

fn wants_gzip(request: &HttpRequest) -> bool {
    let values: Vec<&str> =
        request.headers().get_all(ACCEPT_ENCODING).filter_map(|value| value.to_str().ok()).collect();
    takes_gzip(Some(&values.join(",")))
}

fn head_of(description: &Description, gzip: bool) -> HttpResponseBuilder {
    let mut response = HttpResponse::Ok();
    response
        .insert_header((CONTENT_TYPE, "application/octet-stream"))
        .insert_header(last_modified(description.stamp))
        .insert_header((VARY, "Accept-Encoding"))
        // Files lie beside the dashboard: a browser must not take one for a script of it.
        .insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff"));
    if let Some(size) = description.logical_size {
        response.insert_header((LOGICAL_SIZE, size.to_string()));
    }
    if gzip {
        response.insert_header((CONTENT_ENCODING, "gzip"));
    }
    response
}
