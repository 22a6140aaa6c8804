//! Reading a name that one side or the other has.

use futures_util::stream::BoxStream;

use super::Fetched;
use crate::download::Download;
use crate::engine::Engine;
use crate::filetracker::OldFile;
use crate::model::{Entry, EntryKey, Recipe, Result, Stamp};
use crate::spool::BodyEncoding;

/// A file on its way to a client.
pub enum Reading {
    /// From this store.
    Here(Download),
    /// From the old server.
    There(Fetched),
}

/// What a client is told of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Description {
    /// Its version.
    pub stamp: Stamp,
    /// Its size in bytes, uncompressed; not every old server tells it.
    pub logical_size: Option<u64>,
    /// The number of bytes of its gzip form; `None` when there is none, or when nobody knows.
    pub gzip_size: Option<u64>,
    /// Whether there is a gzip form.
    pub is_gzip: bool,
}

enum Side {
    Here,
    There(OldFile),
    Nowhere,
}

impl Engine {
    /// Opens a file, wherever it is; `None` when there is none.
    pub async fn read(&self, key: &EntryKey) -> Result<Option<Reading>> {
        let Some(beside) = self.beside() else { return Ok(self.open(key).await?.map(Reading::Here)) };
        match self.side(key).await? {
            (Side::Nowhere, _) => Ok(None),
            (Side::Here, _) => Ok(self.open(key).await?.map(Reading::Here)),
            (Side::There(file), here) => match beside.fetch(self, key, file.stamp).await {
                Ok(Some(fetched)) => {
                    beside.fell_back();
                    Ok(Some(Reading::There(fetched)))
                }
                // Gone meanwhile; it may have come here, or be there again: that server overwrites by removing first.
                Ok(None) => match self.open(key).await? {
                    Some(download) => Ok(Some(Reading::Here(download))),
                    None => Ok(beside.fetch(self, key, file.stamp).await?.map(Reading::There)),
                },
                // Then the version that is here has to do.
                Err(error) if here.is_some() => {
                    log::debug!("a newer version cannot be fetched name={:?} error=\"{error}\"", key.name());
                    Ok(self.open(key).await?.map(Reading::Here))
                }
                Err(error) => Err(error),
            },
        }
    }

    /// What a name points at, wherever it is.
    pub async fn describe(&self, key: &EntryKey) -> Result<Option<Description>> {
        let Some(beside) = self.beside() else {
            return Ok(self.stat(key).await?.map(|entry| Description::from(&entry)));
        };
        Ok(match self.side(key).await? {
            (Side::Nowhere, _) => None,
            (Side::There(file), _) => {
                beside.fell_back();
                Some(Description::from(&file))
            }
            (Side::Here, entry) => entry.map(|entry| Description::from(&entry)),
        })
    }

    async fn side(&self, key: &EntryKey) -> Result<(Side, Option<Entry>)> {
        let Some(beside) = self.beside() else { return Ok((Side::Here, self.stat(key).await?)) };
        let (here, there) = tokio::join!(self.stat(key), beside.look(key));
        let here = here?;
        match (&here, there) {
            (Some(entry), Ok(Some(there))) if there.stamp > entry.stamp => Ok((Side::There(there), here)),
            (Some(_), _) => Ok((Side::Here, here)),
            (None, Ok(Some(there))) => Ok((Side::There(there), here)),
            // While it was looked there, it may have been copied or stored here.
            (None, Ok(None)) => match self.stat(key).await? {
                Some(entry) => Ok((Side::Here, Some(entry))),
                None => Ok((Side::Nowhere, None)),
            },
            // It was deleted here, which is all that can be known now.
            (None, Err(_)) if beside.known_here(key).await?.deleted.is_some() => Ok((Side::Nowhere, None)),
            (None, Err(error)) => Err(error),
        }
    }
}

impl From<&Entry> for Description {
    fn from(entry: &Entry) -> Self {
        let Recipe::Whole(blob) = &entry.recipe;
        let gzip_size = Some(blob.stored_size);
        Self { stamp: entry.stamp, logical_size: Some(entry.logical_size), gzip_size, is_gzip: true }
    }
}

impl From<&OldFile> for Description {
    fn from(file: &OldFile) -> Self {
        let is_gzip = file.encoding == BodyEncoding::Gzip;
        Self { stamp: file.stamp, logical_size: file.logical_size, gzip_size: file.length.filter(|_| is_gzip), is_gzip }
    }
}

impl Reading {
    /// What is being read.
    pub fn description(&self) -> Description {
        match self {
            Self::Here(download) => Description::from(&download.entry),
            Self::There(fetched) => Description::from(fetched.file()),
        }
    }

    /// All the gzip bytes, when they are in memory and proven right already.
    pub fn stored_whole(&self) -> Option<bytes::Bytes> {
        match self {
            Self::Here(download) => download.stored_whole(),
            Self::There(_) => None,
        }
    }

    /// The bytes in their gzip form, if they have one, else as they are. The last piece comes only when all are proven right.
    pub fn stored(self) -> BoxStream<'static, Result<bytes::Bytes>> {
        match self {
            Self::Here(download) => download.stored(),
            Self::There(fetched) => fetched.raw(),
        }
    }

    /// The logical bytes, with the same promise. `None` when their number is not known beforehand.
    pub fn decoded(self) -> Option<BoxStream<'static, Result<bytes::Bytes>>> {
        match self {
            Self::Here(download) => Some(download.decoded()),
            Self::There(fetched) => fetched.decoded(),
        }
    }
}
