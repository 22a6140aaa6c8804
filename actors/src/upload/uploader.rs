//! One uploader: one upload at a time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::fut::wrap_future;
use actix::{Actor, AtomicResponse, Context, Handler, Message};

use crate::failpoint::{self, Point};
use crate::model::{BlobInfo, BlobKey, Error, Kind, Result};
use crate::runtime::behalf::Behalf;
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
    /// Whose bytes they are.
    pub behalf: Behalf,
}

/// Request: the same, of somebody who has waited already.
#[derive(Message, Debug)]
#[rtype(result = "Result<()>")]
pub(super) struct UploadNow {
    pub(super) upload: UploadBlob,
    pub(super) waited: Duration,
}

/// What an upload may take besides the time of its bytes, in a server. A content store over a network gives up sooner by
/// itself; a disk or a mounted folder that hangs never does.
pub const UPLOAD_TIME_MIN: Duration = Duration::from_secs(60);

/// What the slowest content store takes in, in bytes a second.
const BYTES_PER_SECOND_MIN: u64 = 1_000_000;

/// Bounds an upload of so many bytes, which may take `least` besides their time. One that ends later does no harm: its name was never given away, and cleaning finds it
/// by its intent.
async fn in_time(least: Duration, bytes: u64, put: impl Future<Output = Result<()>>) -> Result<()> {
    let time = least + Duration::from_secs(bytes / BYTES_PER_SECOND_MIN);
    let late = |_| Error::new(Kind::Unavailable, "the content store does not take a content in time");
    tokio::time::timeout(time, put).await.map_err(late)?
}

/// The actor; owned and, should it die, made anew by its pool.
pub(super) struct S3UploaderActor {
    pub(super) vital: Vital,
    pub(super) store: Arc<dyn BlobStore>,
    pub(super) breaker: Arc<Breaker>,
    pub(super) meter: Arc<Meter>,
    pub(super) time_min: Duration,
}

impl Actor for S3UploaderActor {
    type Context = Context<Self>;
}

impl Handler<UploadNow> for S3UploaderActor {
    type Result = AtomicResponse<Self, Result<()>>;

    fn handle(&mut self, now: UploadNow, _: &mut Self::Context) -> Self::Result {
        let UploadNow { upload, waited } = now;
        let (store, breaker, meter) = (Arc::clone(&self.store), Arc::clone(&self.breaker), Arc::clone(&self.meter));
        let (time_min, behalf) = (self.time_min, upload.behalf.clone());
        let work = async move {
            let begun = Instant::now();
            let put = store.put_late(waited, &upload.key, &upload.body, &upload.info);
            breaker.call(meter.measure(in_time(time_min, upload.body.len(), put))).await?;
            log::debug!(
                "an object is stored object={} bytes={} waited_ms={} duration_ms={}",
                upload.key,
                upload.body.len(),
                waited.as_millis(),
                begun.elapsed().as_millis()
            );
            failpoint::hit(Point::PutAfterUpload).await
        };
        AtomicResponse::new(Box::pin(wrap_future(behalf.scope(self.vital.clone().guard_work(work)))))
    }
}
