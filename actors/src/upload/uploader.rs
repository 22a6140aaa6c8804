//! One uploader: one upload at a time.

use std::sync::Arc;

use actix::fut::wrap_future;
use actix::{Actor, AtomicResponse, Context, Handler, Message};

use crate::failpoint::{self, Point};
use crate::model::{BlobInfo, BlobKey, Result};
use crate::runtime::breaker::Breaker;
use crate::runtime::guard::Vital;
use crate::store::blob::{BlobStore, SpooledBytes};

/// Request: stores an object, durably when answered. Idempotent by key: the same key always comes
/// with the same bytes. Permit: the caller's; the bytes are shared, not copied.
#[derive(Message, Clone, Debug)]
#[rtype(result = "Result<()>")]
pub struct UploadBlob {
    /// The object's name.
    pub key: BlobKey,
    /// Its bytes.
    pub body: SpooledBytes,
    /// What it says of itself.
    pub info: BlobInfo,
}

/// The actor; owned and, should it die, made anew by its pool.
pub(super) struct S3UploaderActor {
    pub(super) vital: Vital,
    pub(super) store: Arc<dyn BlobStore>,
    pub(super) breaker: Arc<Breaker>,
}

impl Actor for S3UploaderActor {
    type Context = Context<Self>;
}

impl Handler<UploadBlob> for S3UploaderActor {
    type Result = AtomicResponse<Self, Result<()>>;

    fn handle(&mut self, upload: UploadBlob, _: &mut Self::Context) -> Self::Result {
        let (store, breaker) = (Arc::clone(&self.store), Arc::clone(&self.breaker));
        let work = async move {
            breaker.call(store.put(&upload.key, &upload.body, &upload.info)).await?;
            failpoint::hit(Point::PutAfterUpload).await
        };
        AtomicResponse::new(Box::pin(wrap_future(self.vital.clone().guard_work(work))))
    }
}
