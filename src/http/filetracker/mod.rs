//! The Filetracker protocol, version 2.

mod delete;
mod get;
mod list;
mod put;
mod version;

use actix_web::http::Method;
use actix_web::http::header::LAST_MODIFIED;
use actix_web::{HttpRequest, HttpResponse};
use s3dedup_actors::filetracker::dates;
use s3dedup_actors::model::{EntryKey, Namespace, Stamp};

use super::Front;
use super::body::Incoming;
use super::error::Failure;
use super::path::Target;

const NAMESPACE: Namespace = Namespace::FILETRACKER;
const LOGICAL_SIZE: &str = "logical-size";

/// Answers one request.
pub async fn serve(
    front: &Front,
    request: &HttpRequest,
    target: Target,
    body: &mut Incoming,
) -> Result<HttpResponse, Failure> {
    match (target, request.method()) {
        (Target::Version, &Method::GET | &Method::HEAD) => Ok(version::get(request)),
        (Target::List(path), &Method::GET | &Method::HEAD) => list::get(front, request, &path).await,
        (Target::File(path), &Method::GET) => get::get(front, request, &key(&path)?).await,
        (Target::File(path), &Method::HEAD) => get::head(front, request, &key(&path)?).await,
        (Target::File(path), &Method::PUT) => put::put(front, request, key(&path)?, body).await,
        (Target::File(path), &Method::DELETE) => delete::delete(front, request, key(&path)?).await,
        (Target::Version | Target::List(_), _) => Err(Failure::method_not_allowed("GET, HEAD")),
        (Target::File(_), _) => Err(Failure::method_not_allowed("GET, HEAD, PUT, DELETE")),
    }
}

/// The file of a name, for pages that offer it beside the protocol.
pub async fn download(front: &Front, request: &HttpRequest, name: &str) -> Result<HttpResponse, Failure> {
    let key = key(name.as_bytes())?;
    match *request.method() {
        Method::HEAD => get::head(front, request, &key).await,
        _ => get::get(front, request, &key).await,
    }
}

fn key(path: &[u8]) -> Result<EntryKey, Failure> {
    Ok(EntryKey::parse(NAMESPACE, path)?)
}

fn last_modified(stamp: Stamp) -> (actix_web::http::header::HeaderName, String) {
    (LAST_MODIFIED, dates::print(stamp))
}

fn no_such_file() -> Failure {
    Failure::not_found("no such file")
}
