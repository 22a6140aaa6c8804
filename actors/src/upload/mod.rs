//! Moving contents to the content store.

mod pool;
mod uploader;

pub use pool::{UploadStats, UploaderPool, UploaderPoolSpec};
pub use uploader::{UPLOAD_TIME_MIN, UploadBlob};
