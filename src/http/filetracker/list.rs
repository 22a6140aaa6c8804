//! `GET list/PATH[?last_modified=DATE]`: the names below a directory, one per line.
//!
//! The cutoff is inclusive and defaults to now. A directory exists while there is a name below it,
//! in any version; the root always does.

use std::future::ready;

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::http::Method;
use actix_web::http::header::CONTENT_TYPE;
use actix_web::{HttpRequest, HttpResponse};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use s3dedup_actors::NameStream;
use s3dedup_actors::model::{EntryKey, Stamp};

use super::NAMESPACE;
use crate::http::error::Failure;
use crate::http::reply::{Described, Streamed};
use crate::http::{Front, end_with_connection, query};

pub async fn get(front: &Front, request: &HttpRequest, path: &[u8]) -> Result<HttpResponse, Failure> {
    let directory = EntryKey::normalize(path)?;
    let not_after = query::last_modified(request.query_string())?.unwrap_or_else(Stamp::now);
    let permit = front.engine.admit()?;
    let is_root = directory.is_empty();
    let names = match front.engine.list(NAMESPACE, directory, not_after).await? {
        Some(names) => names,
        None if is_root => stream::empty().boxed(),
        None => return Err(Failure::bad_request("no such directory")),
    };
    let body = if request.method() == Method::HEAD {
        Described(BodySize::Stream).boxed()
    } else {
        BoxBody::new(Streamed::new(BodySize::Stream, lines(names), request, permit, front.stalled_reader))
    };
    let mut response = HttpResponse::Ok().insert_header((CONTENT_TYPE, "text/plain; charset=utf-8")).body(body);
    end_with_connection(request, &mut response);
    Ok(response)
}

fn lines(pages: NameStream) -> stream::BoxStream<'static, s3dedup_actors::model::Result<Bytes>> {
    let pages = pages.map(|page| {
        page.map(|names| {
            let mut text = String::with_capacity(names.iter().map(|name| name.len() + 1).sum());
            for name in names {
                text.push_str(&name);
                text.push('\n');
            }
            Bytes::from(text)
        })
    });
    // Nothing after an error: the connection is cut there.
    pages
        .scan(false, |failed, page| {
            let go_on = !std::mem::replace(failed, page.is_err());
            ready(go_on.then_some(page))
        })
        .boxed()
}
