//! Looking around among names and contents.

use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, web};
use s3dedup_actors::model::{self, Digest, EntryKey, Error, Kind, Namespace, Recipe};
use s3dedup_actors::store::meta::FilesPage;
use serde::Deserialize;
use serde_json::json;
use tokio::time::timeout;

use super::json;
use crate::http::error::Failure;
use crate::http::{Front, filetracker};
use crate::observe::Observer;

const NAMESPACE: Namespace = Namespace::FILETRACKER;
/// The longest page.
const ROWS_MAX: usize = 500;
/// So many names of a content are shown.
const HOLDERS_MAX: usize = 200;
/// How long the store may take.
const WAIT_MAX: Duration = Duration::from_millis(4500);

#[derive(Deserialize)]
struct FilesQuery {
    #[serde(default)]
    prefix: String,
    after: Option<String>,
    rows: Option<usize>,
}

/// `?prefix=TEXT&after=NAME&rows=N`: names that begin so, after that one.
pub async fn files(observer: &Observer, query: &str) -> Result<HttpResponse, Failure> {
    let FilesQuery { prefix, after, rows } = parsed(query)?;
    let rows = rows.unwrap_or(100).clamp(1, ROWS_MAX);
    // One more tells whether there is another page.
    let page = FilesPage { namespace: NAMESPACE, prefix, after, rows: rows + 1 };
    let mut found = in_time(observer.browser().files(page)).await?;
    let is_more = found.len() > rows;
    found.truncate(rows);
    let next = found.last().filter(|_| is_more).map(|file| file.name.clone());
    let file = |file: &s3dedup_actors::store::meta::FileRow| {
        json!({
            "name": file.name,
            "modified": file.stamp.seconds(),
            "digest": file.digest.to_string(),
            "logical_size": file.logical_size,
        })
    };
    Ok(json(&json!({ "files": found.iter().map(file).collect::<Vec<_>>(), "next": next })))
}

#[derive(Deserialize)]
struct FileQuery {
    name: String,
}

/// `?name=NAME`: what a name holds, how that is kept, and who shares it.
pub async fn file(observer: &Observer, query: &str) -> Result<HttpResponse, Failure> {
    let FileQuery { name } = parsed(query)?;
    let key = EntryKey::parse(NAMESPACE, name.as_bytes())?;
    let entry = observer.engine().stat(&key).await?.ok_or_else(|| Failure::not_found("no such file"))?;
    let (held_by, more) = holders(observer, entry.digest).await?;
    let Recipe::Whole(blob) = &entry.recipe else {
        return Err(Failure::internal("this content is kept in a way of its own"));
    };
    Ok(json(&json!({
        "name": key.name(),
        "prefix": observer.facts().prefix,
        "modified": entry.stamp.seconds(),
        "digest": entry.digest.to_string(),
        "logical_size": entry.logical_size,
        "stored_size": blob.stored_size,
        "encoding": blob.encoding.as_str(),
        "object": blob.key.to_string(),
        "generation": blob.key.generation,
        "stored_hash": blob.stored_hash.to_string(),
        "held_by": held_by,
        "more": more,
    })))
}

/// `?name=NAME`: the file itself, as the protocol gives it. The protocol may be served at another address, which a page does
/// not know; and like there this takes a slot, and is refused while the server stops.
pub async fn download(front: &Front, request: &HttpRequest) -> Result<HttpResponse, Failure> {
    let FileQuery { name } = parsed(request.query_string())?;
    if front.stopping.refuses() {
        return Err(Failure::stopping());
    }
    filetracker::download(front, request, &name).await
}

#[derive(Deserialize)]
struct ContentQuery {
    digest: String,
}

/// `?digest=SHA256`: names that hold a content.
pub async fn content(observer: &Observer, query: &str) -> Result<HttpResponse, Failure> {
    let ContentQuery { digest } = parsed(query)?;
    let digest: Digest = digest.parse().map_err(|_| Failure::bad_request("expected the SHA-256 of a content"))?;
    let (held_by, more) = holders(observer, digest).await?;
    Ok(json(&json!({ "digest": digest.to_string(), "held_by": held_by, "more": more })))
}

/// The contents that most names hold, as of a while ago.
pub async fn shared(observer: &Observer) -> Result<HttpResponse, Failure> {
    let (found, age) = observer.shared().most().await?;
    let content = |it: &s3dedup_actors::store::meta::SharedContent| {
        json!({
            "digest": it.digest.to_string(),
            "names": it.names,
            "logical_size": it.logical_size,
            "stored_size": it.stored_size,
        })
    };
    let contents: Vec<_> = found.iter().map(content).collect();
    Ok(json(&json!({ "age_seconds": age.as_secs(), "contents": contents })))
}

/// Some names, and whether there are others.
async fn holders(observer: &Observer, digest: Digest) -> Result<(Vec<String>, bool), Failure> {
    let mut names = in_time(observer.browser().names_of(NAMESPACE, digest, HOLDERS_MAX + 1)).await?;
    let is_more = names.len() > HOLDERS_MAX;
    names.truncate(HOLDERS_MAX);
    Ok((names, is_more))
}

pub(super) async fn in_time<T>(asked: impl Future<Output = model::Result<T>>) -> Result<T, Failure> {
    let late = |_| Error::new(Kind::Unavailable, "the metadata store does not answer in time");
    Ok(timeout(WAIT_MAX, asked).await.map_err(late).flatten()?)
}

pub(super) fn parsed<T: serde::de::DeserializeOwned>(query: &str) -> Result<T, Failure> {
    let parsed = web::Query::<T>::from_query(query);
    parsed
        .map(web::Query::into_inner)
        .map_err(|_| Failure::bad_request("these are not the parameters of this question"))
}
