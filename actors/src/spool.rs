//! Receiving a body: hashed, checked and compressed while it comes.

use bytes::Bytes;

use crate::model::Result;
use crate::store::blob::Spooled;

/// How a body arrives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BodyEncoding {
    /// Logical bytes; they are compressed here.
    Plain,
    /// gzip; checked and kept as it is.
    Gzip,
}

/// A body in the middle of being received.
pub struct Spooler {}

impl Spooler {
    /// Takes the next piece. Errors: [`Kind::Invalid`](crate::model::Kind::Invalid) for broken gzip, `TooLarge` past the limit on
    /// logical size, `NoSpace` when the temporary directory is full.
    pub async fn write(&mut self, piece: Bytes) -> Result<()> {
        let _ = piece;
        unimplemented!()
    }

    /// The end of the body. Truncated gzip is [`Kind::Invalid`](crate::model::Kind::Invalid).
    pub async fn finish(self) -> Result<Spooled> {
        unimplemented!()
    }
}
