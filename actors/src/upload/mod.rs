//! Moving contents to and from the content store.

mod pool;
mod uploader;

pub use pool::{OpenBlob, UploadStats, UploaderPool, UploaderPoolSpec};
pub use uploader::UploadBlob;
