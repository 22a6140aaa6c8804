//! The nouns of the engine: pure values, no actors, no input or output, no SQL.

mod digest;
mod entry;
mod error;
mod recipe;
mod request_id;
mod stamp;

pub use digest::{BlobHash, Digest, ParseDigestError};
pub use entry::{Entry, EntryKey, InvalidName, NAME_BYTES_MAX, Namespace};
pub use error::{Error, Kind, Result, Retry};
pub use recipe::{BlobInfo, BlobKey, Encoding, KeyLayout, Recipe, StoredBlob};
pub use request_id::RequestId;
pub use stamp::Stamp;
