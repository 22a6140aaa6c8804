//! `PUT files/PATH?last_modified=DATE`: stores a file unless a newer version is there.

use actix_web::http::header::CONTENT_TYPE;
use actix_web::{HttpRequest, HttpResponse};
use s3dedup_actors::failpoint::{self, Point};
use s3dedup_actors::model::{EntryKey, Kind, Stamp};
use s3dedup_actors::{BodyEncoding, PutOutcome, Spooled};

use super::last_modified;
use crate::http::body::{DrainLimits, Incoming};
use crate::http::error::Failure;
use crate::http::upload::UploadHead;
use crate::http::{Front, query};

/// Everything that can be refused without the body is refused before it is read.
pub async fn put(
    front: &Front,
    request: &HttpRequest,
    key: EntryKey,
    body: &mut Incoming,
) -> Result<HttpResponse, Failure> {
    let stamp = query::required_last_modified(request.query_string())?;
    let head = UploadHead::parse(request.headers())?;
    let permit = front.engine.admit()?;
    // Over a network the question costs as much as it may save: the body has to be received anyway.
    if head.large
        && front.engine.is_metadata_near()
        && let Some(current) = newer_version(front, &key, stamp).await?
    {
        body.discard(DrainLimits::STALE).await?;
        return Ok(stored(current));
    }
    let spooled = receive(front, head.encoding, body).await?;
    head.verify(&spooled)?;
    permit.expect_steady()?;
    match front.engine.put(key, stamp, spooled).await? {
        PutOutcome::Stored => Ok(stored(stamp)),
        PutOutcome::Stale { current } => Ok(stored(current)),
    }
}

async fn newer_version(front: &Front, key: &EntryKey, stamp: Stamp) -> Result<Option<Stamp>, Failure> {
    let entry = match front.engine.stat(key).await {
        // A name that outlived its content is healed by an upload; its version is looked at again when it is stored.
        Err(error) if error.kind() == Kind::Corrupt => None,
        entry => entry?,
    };
    Ok(entry.map(|entry| entry.stamp).filter(|current| *current > stamp))
}

async fn receive(front: &Front, encoding: BodyEncoding, body: &mut Incoming) -> Result<Spooled, Failure> {
    let mut spooler = front.engine.spooler(encoding);
    while let Some(piece) = body.next().await? {
        spooler.write(piece).await?;
        failpoint::hit(Point::PutInSpool).await?;
    }
    Ok(spooler.finish().await?)
}

/// The answer names the version that is stored now, which may be a newer one.
fn stored(version: Stamp) -> HttpResponse {
    HttpResponse::Ok().insert_header((CONTENT_TYPE, "text/plain")).insert_header(last_modified(version)).body(())
}
