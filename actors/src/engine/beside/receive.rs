//! A file that comes from the old side, and goes on where it was when the old side fails in the middle and comes back.
//!
//! Clients may have the beginning already, and cannot be told of a failure any more. So the file is opened again, must be the same in
//! the same version, and must begin with the very bytes that came before; what follows them goes on to the clients.

use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use rand::Rng;
use tokio::time::Instant;

use super::Beside;
use super::tape::Tape;
use crate::engine::Engine;
use crate::filetracker::{OldDownload, OldFile};
use crate::model::{EntryKey, Error, Kind, Result, Retry};
use crate::spool::Spooler;
use crate::store::blob::Spooled;

/// How long an old side that fails in the middle of a file is waited for, from then on.
const AWAY_MAX: Duration = Duration::from_secs(60);
/// How often a file may be cut off before [`STEP_BYTES`] more of it came, and in all.
const CUTS_MAX: u32 = 4;
const ALL_CUTS_MAX: u32 = 20;
/// What counts as going on: each time all that came before is sent again.
const STEP_BYTES: u64 = 1 << 20;
/// The first pause before it is opened again, and the longest; it doubles in between.
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Why the bytes of a file ended too early.
enum Cut {
    /// The old side failed, which may pass.
    There(Error),
    /// Going on would not help.
    Final(Error),
}

struct Arriving<'a> {
    file: OldFile,
    tape: &'a Tape,
    spooler: Spooler,
    /// So many bytes came.
    at: u64,
}

impl Beside {
    /// Lets a body pass to the tape and to where uploads go, through cuts; what came is right then.
    pub(super) async fn receive(
        &self,
        engine: &Engine,
        key: &EntryKey,
        download: OldDownload,
        tape: &Tape,
    ) -> Result<Spooled> {
        let OldDownload { file, mut stream } = download;
        let spooler = engine.spooler(file.encoding);
        tape.open(Some(file.clone()));
        let mut arriving = Arriving { file, tape, spooler, at: 0 };
        let (mut step_at, mut cuts, mut all_cuts) = (0, 0, 0);
        loop {
            let error = match arriving.take(stream).await {
                Ok(()) => break,
                Err(Cut::Final(error)) => return Err(error),
                Err(Cut::There(error)) => error,
            };
            let at = arriving.at;
            if at >= step_at + STEP_BYTES {
                (step_at, cuts) = (at, 0);
            }
            (cuts, all_cuts) = (cuts + 1, all_cuts + 1);
            if cuts >= CUTS_MAX || all_cuts >= ALL_CUTS_MAX || error.retry() == Retry::Never {
                return Err(error);
            }
            tape.interrupt();
            log::warn!("a fetch waits for the old server name={:?} at={at} error=\"{error}\"", key.name());
            stream = self.open_again(key, &arriving.file, error).await?;
            log::info!("a fetch goes on name={:?} at={at}", key.name());
        }
        arriving.finish().await
    }

    /// Opens the same file once more, as soon as the old side has it; `cut` says why that is needed.
    async fn open_again(
        &self,
        key: &EntryKey,
        file: &OldFile,
        cut: Error,
    ) -> Result<BoxStream<'static, Result<Bytes>>> {
        let until = Instant::now() + AWAY_MAX;
        let mut pause = PAUSE_MIN;
        loop {
            if self.is_stopping() || Instant::now() + pause >= until {
                return Err(cut);
            }
            let jittered = pause.mul_f64(rand::rng().random_range(0.5..=1.0));
            tokio::time::sleep(jittered).await;
            pause = (pause * 2).min(PAUSE_MAX);
            match tokio::time::timeout_at(until, self.open_there(key)).await {
                Ok(Ok(Some(again))) if again.file.is_same(file) => return Ok(again.stream),
                // A directory beside the server has it in an older version, so the server itself does not answer yet.
                Ok(Ok(Some(again))) if again.file.stamp < file.stamp => {}
                Ok(Ok(_)) => {
                    let what = "the file was changed on the old server while it was read";
                    return Err(Error::new(Kind::Unavailable, what).with_source(cut));
                }
                Ok(Err(error)) if error.retry() == Retry::Never => return Err(error),
                Ok(Err(_)) | Err(_) => {}
            }
        }
    }
}

impl Arriving<'_> {
    /// Takes all bytes of a file, of which those that came before must be the same again.
    async fn take(&mut self, mut stream: BoxStream<'static, Result<Bytes>>) -> Result<(), Cut> {
        let other = || Cut::Final(Error::new(Kind::Unavailable, "the old server sends other bytes than before"));
        let mut seen = 0;
        while let Some(piece) = stream.next().await {
            let mut piece = piece.map_err(Cut::There)?;
            let known = usize::try_from(self.at - seen).unwrap_or(usize::MAX).min(piece.len());
            if known > 0 {
                if !self.tape.holds(seen, &piece[..known]).await.map_err(Cut::Final)? {
                    return Err(other());
                }
                seen += known as u64;
                piece.advance(known);
            }
            if piece.is_empty() {
                continue;
            }
            self.spooler.write(piece.clone()).await.map_err(|error| Cut::Final(broken(error)))?;
            let len = piece.len() as u64;
            self.tape.push(self.at, piece).await.map_err(Cut::Final)?;
            self.at += len;
            seen += len;
        }
        if seen < self.at { Err(other()) } else { Ok(()) }
    }

    /// Looks whether what came is what the old side said.
    async fn finish(self) -> Result<Spooled> {
        let body = self.spooler.finish().await.map_err(broken)?;
        if let Some(claimed) = self.file.logical_size.filter(|claimed| *claimed != body.logical_size) {
            let what = format!("the old server says {claimed} bytes, the file has {}", body.logical_size);
            return Err(Error::new(Kind::Corrupt, what));
        }
        self.tape.end(Ok(self.at));
        Ok(body)
    }
}

/// What would be the client's fault in an upload is the old server's here.
fn broken(error: Error) -> Error {
    match error.kind() {
        Kind::Invalid | Kind::TooLarge => {
            Error::new(Kind::Corrupt, format!("the old server's file is broken: {}", error.context()))
        }
        _ => error,
    }
}
