//! `DELETE files/PATH?last_modified=DATE`: removes a file unless it is newer.

use actix_web::http::header::CONTENT_TYPE;
use actix_web::{HttpRequest, HttpResponse};
use s3dedup_actors::DeleteOutcome;
use s3dedup_actors::model::EntryKey;

use super::no_such_file;
use crate::http::error::Failure;
use crate::http::{Front, query};

pub async fn delete(front: &Front, request: &HttpRequest, key: EntryKey) -> Result<HttpResponse, Failure> {
    let stamp = query::required_last_modified(request.query_string())?;
    let permit = front.engine.admit()?;
    permit.expect_steady()?;
    match front.engine.delete(key, stamp).await? {
        // The protocol has no way to tell the two apart.
        DeleteOutcome::Deleted | DeleteOutcome::Stale { .. } => {
            Ok(HttpResponse::Ok().insert_header((CONTENT_TYPE, "text/plain")).body(()))
        }
        DeleteOutcome::Absent => Err(no_such_file()),
    }
}
