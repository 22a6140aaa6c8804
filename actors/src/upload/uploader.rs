//! One uploader: one upload at a time.

use std::sync::Arc;
use std::time::Duration;

use actix::fut::wrap_future;
use actix::{Actor, AtomicResponse, Context, Handler, Message};

use crate::failpoint::{self, Point};
use crate::model::{BlobInfo, BlobKey, Result};
use crate::runtime::breaker::Breaker;
use crate::runtime::guard::Vital;
use crate::runtime::meter::Meter;
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

/// Request: the same, of somebody who has waited already.
#[derive(Message, Debug)]
#[rtype(result = "Result<()>")]
pub(super) struct UploadNow {
    pub(super) upload: UploadBlob,
    pub(super) waited: Duration,
}

/// The actor; owned and, should it die, made anew by its pool.
pub(super) struct S3UploaderActor {
    pub(super) vital: Vital,
    pub(super) store: Arc<dyn BlobStore>,
    pub(super) breaker: Arc<Breaker>,
    pub(super) meter: Arc<Meter>,
}

impl Actor for S3UploaderActor {
    type Context = Context<Self>;
}

impl Handler<UploadNow> for S3UploaderActor {
    type Result = AtomicResponse<Self, Result<()>>;

    fn handle(&mut self, now: UploadNow, _: &mut Self::Context) -> Self::Result {
        let UploadNow { upload, waited } = now;
        let (store, breaker, meter) = (Arc::clone(&self.store), Arc::clone(&self.breaker), Arc::clone(&self.meter));
        let work = async move {
            let put = store.put_late(waited, &upload.key, &upload.body, &upload.info);
            breaker.call(meter.measure(put)).await?;
            failpoint::hit(Point::PutAfterUpload).await
        };
        AtomicResponse::new(Box::pin(wrap_future(self.vital.clone().guard_work(work))))
    }
}
