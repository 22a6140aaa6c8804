//! Telling the old server what became of a name: its present state here, whatever the write was.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use futures_util::stream::BoxStream;
use rand::Rng;
use tokio::time::{Instant, timeout_at};

use super::Beside;
use crate::engine::Engine;
use crate::filetracker::{OldFile, OldServer, Protocol, UNPACKED_PER_SECOND_MIN};
use crate::metadata::CommitDeleteBeside;
use crate::model::{Digest, Entry, EntryKey, Error, Kind, Recipe, Result, Stamp};
use crate::store::meta::{ClaimId, Claimed, KnownHere, Mark, Settled};

/// How long a client's write waits until the old server has it, too.
const CLIENT_WAIT_MAX: Duration = Duration::from_secs(3);
/// A name that is somebody else's is looked at again after this.
const HELD_PAUSE: Duration = Duration::from_millis(50);
/// How long one name is ours: longer than it takes to tell a small file. Whoever died with a claim keeps others from it
/// for as long.
const LEASE: Duration = Duration::from_secs(45);
/// What large files need more.
const BYTES_PER_SECOND_MIN: u64 = 256 << 10;
/// A write whose answer did not come may still be under way in the old server, which waits for its locks for 20 seconds:
/// until then nothing else is told of the name.
const HOLD: Duration = Duration::from_secs(25);
/// A version that looks newer and is about now may not be the real one yet: it is looked at again after this.
const SETTLED_AFTER: Duration = Duration::from_secs(2);
/// The first pause after a failure; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// How often a name is told of in a row because it was written meanwhile.
const ROUNDS_MAX: usize = 8;

/// Why the old server could not be told.
struct Failure {
    error: Error,
    /// For how long it may go on with it all the same.
    hold: Duration,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, hold: Duration::ZERO }
    }
}

/// The answer did not come: the server may be at it still.
fn open(error: Error) -> Failure {
    Failure { error, hold: HOLD }
}

/// The same, of so many bytes, uncompressed: it unpacks and hashes them before it answers.
fn open_upload(error: Error, bytes: u64) -> Failure {
    Failure { error, hold: hold_of_upload(bytes) }
}

fn hold_of_upload(bytes: u64) -> Duration {
    HOLD + Duration::from_secs(bytes / UNPACKED_PER_SECOND_MIN)
}

impl Beside {
    /// Tells the old server of a name that was just written, for as long as a client waits for that; then it goes on without
    /// the client, or the worker does it later. Nobody waits for a server that was just asked and did not answer.
    pub(crate) async fn tell_soon(&self, engine: &Engine, key: &EntryKey, answers: bool) {
        self.moved();
        if self.0.settings.server.as_ref().is_some_and(|server| server.expect_up().is_err()) {
            return;
        }
        let deadline = Instant::now() + if answers { CLIENT_WAIT_MAX } else { Duration::ZERO };
        // The mark is there: nothing is lost when this comes to nothing.
        let Ok(Ok(turn)) = timeout_at(deadline, Arc::clone(&self.0.tellers).acquire_owned()).await else { return };
        let (done, wait) = tokio::sync::oneshot::channel();
        let (beside, engine, key) = (self.clone(), engine.clone(), key.clone());
        self.begin(async move {
            let _turn = turn;
            beside.tell_until(&engine, key, deadline).await;
            // The client may have had enough.
            let _ = done.send(());
        });
        let _ = timeout_at(deadline, wait).await;
    }

    async fn tell_until(&self, engine: &Engine, key: EntryKey, deadline: Instant) {
        let claim = new_claim();
        loop {
            match self.journal(self.0.settings.journal.claim_mark(key.clone(), claim, LEASE)).await {
                Ok(Claimed::Yes(mark)) => return self.tell(engine, mark, claim).await,
                Ok(Claimed::Held) => {
                    if !self.is_let_go(&key, deadline).await {
                        return;
                    }
                }
                Ok(Claimed::Absent) => return,
                Err(error) => return log::warn!("a mark cannot be claimed name={:?} error=\"{error}\"", key.name()),
            }
        }
    }

    /// Waits until nobody has claimed a name; `false` when it took too long. Only looks: many may wait for one name.
    async fn is_let_go(&self, key: &EntryKey, deadline: Instant) -> bool {
        while Instant::now() < deadline {
            tokio::time::sleep(HELD_PAUSE).await;
            if let Ok(false) = self.journal(self.0.settings.journal.is_claimed(key.clone())).await {
                return true;
            }
        }
        false
    }

    /// Brings the state of a claimed name to the old server, and settles its mark.
    pub(super) async fn tell(&self, engine: &Engine, mut mark: Mark, claim: ClaimId) {
        let journal = &self.0.settings.journal;
        let key = mark.key.clone();
        for round in 1..=ROUNDS_MAX {
            if let Err(failure) = self.bring(engine, &key, claim).await {
                return self.postpone(&mark, claim, failure).await;
            }
            self.0.counts.told.fetch_add(1, Relaxed);
            let settled = self.journal(journal.settle_mark(mark, claim)).await;
            self.moved();
            let again = match settled {
                Ok(Settled::Done) => return,
                // A claim that nobody uses would keep others away.
                Ok(Settled::Changed) if round == ROUNDS_MAX => return,
                Ok(Settled::Changed) => self.journal(journal.claim_mark(key.clone(), claim, LEASE)).await,
                // Somebody else told it something at the same time: once more, by whoever comes first.
                Ok(Settled::Lost) => self.journal(journal.mark(key.clone())).await.map(|()| Claimed::Held),
                Err(error) => Err(error),
            };
            mark = match again {
                Ok(Claimed::Yes(mark)) => mark,
                Ok(Claimed::Held | Claimed::Absent) => return,
                Err(error) => return log::warn!("a mark cannot be settled name={:?} error=\"{error}\"", key.name()),
            };
        }
    }

    async fn postpone(&self, mark: &Mark, claim: ClaimId, failure: Failure) {
        let Failure { error, hold } = failure;
        self.0.counts.failed.fetch_add(1, Relaxed);
        let name = mark.key.name();
        log::warn!("the old server could not be told attempt={} name={name:?} error=\"{error}\"", mark.attempts + 1);
        let pause = PAUSE_MIN.saturating_mul(1 << mark.attempts.min(8)).min(PAUSE_MAX);
        let pause = pause.mul_f64(rand::rng().random_range(0.5..=1.0));
        let text = error.to_string().replace(char::is_control, " ");
        let noted = self.0.settings.journal.fail_mark(mark.key.clone(), claim, text, pause, hold);
        let noted = self.journal(noted).await;
        self.moved();
        if let Err(error) = noted {
            // The claim runs out.
            log::warn!("a failure cannot be noted name={name:?} error=\"{error}\"");
        }
    }

    async fn bring(&self, engine: &Engine, key: &EntryKey, claim: ClaimId) -> Result<(), Failure> {
        let Some(server) = &self.0.settings.server else { return Ok(()) };
        server.expect_up()?;
        let mut there = server.head(key).await?;
        let KnownHere { deleted, telling, .. } = self.known_here(key).await?;
        let here = engine.stat(key).await?;
        if let Some(young) = there.as_ref().filter(|there| there.is_young)
            && here.as_ref().is_none_or(|here| here.stamp < young.stamp)
            && deleted.is_none_or(|deleted| deleted < young.stamp)
        {
            there = self.settled(server, key, young).await?;
        }
        if let (Some(found), Some(told)) = (&there, telling)
            && here.as_ref().is_none_or(|here| here.stamp < found.stamp)
            && deleted.is_none_or(|deleted| deleted < found.stamp)
        {
            self.set_right(engine, server, key, told, (found.stamp, here.as_ref())).await?;
            there = server.head(key).await?;
        }
        if let (Some(there), Some(deleted)) = (&there, deleted)
            && there.stamp <= deleted
            && here.as_ref().is_none_or(|here| here.stamp < there.stamp)
        {
            server.delete(key, deleted).await.map_err(open)?;
        }
        let Some(here) = here else { return Ok(()) };
        let newer = match there {
            Some(there) if there.stamp > here.stamp && deleted.is_none_or(|deleted| deleted < there.stamp) => true,
            _ => self.store_there(engine, server, key, &here, claim).await?,
        };
        if newer {
            // Somebody wrote there without us: it comes here.
            self.bring_here(engine, key).await?;
            // It may have noted an older version meanwhile: then it is to be told all the same.
            let what = match server.head(key).await? {
                Some(there) if there.stamp >= here.stamp => return Ok(()),
                Some(_) => "the old server has not the version any more that it showed",
                None => "the old server shows a newer version and has no such file: is the name a directory there?",
            };
            return Err(Error::new(Kind::Unavailable, what).into());
        }
        Ok(())
    }

    /// What the old server has of a name once it has had the time to note the version.
    async fn settled(&self, server: &OldServer, key: &EntryKey, young: &OldFile) -> Result<Option<OldFile>> {
        tokio::time::sleep(SETTLED_AFTER).await;
        match server.head(key).await? {
            Some(now) if now.is_young && !now.is_same(young) => {
                Err(Error::new(Kind::Unavailable, "the file is being written on the old server"))
            }
            now => Ok(now),
        }
    }

    /// An old server that was killed while it was told of a content may have it, or with version 1 the beginning of it, with the
    /// time for its version, which would stand against what clients wrote. Takes that away where it is so.
    async fn set_right(
        &self,
        engine: &Engine,
        server: &OldServer,
        key: &EntryKey,
        told: Digest,
        (stamp, here): (Stamp, Option<&Entry>),
    ) -> Result<(), Failure> {
        let is_told = self.digest_there(engine, server, key).await? == Some(told);
        if server.protocol().await? == Protocol::V2 {
            if is_told {
                log::warn!(
                    "the old server noted another version than it was told, it is told anew name={:?}",
                    key.name()
                );
                server.delete(key, stamp).await.map_err(open)?;
            }
            return Ok(());
        }
        let Some(here) = here else {
            // It cannot delete; nor can it be known whether it has but a part. So the name stays deleted in that version, too.
            engine.metadata(CommitDeleteBeside { key: key.clone(), stamp }).await?;
            return Ok(());
        };
        let is_part = !is_told && self.is_part(engine, server, key, here.digest == told).await?;
        if (is_part || (is_told && here.digest != told))
            && let Some(download) = engine.open(key).await?
        {
            log::warn!("the old server has not what it was told, it is written anew name={:?}", key.name());
            let bytes = download.entry.logical_size;
            server.put_over(key, download).await.map_err(|error| open_upload(error, bytes))?;
        }
        // The version of its own cannot be taken from it, and follows here.
        Ok(())
    }

    /// Whether what the old server has is the beginning of what it was told, which may be what is here.
    async fn is_part(&self, engine: &Engine, server: &OldServer, key: &EntryKey, is_told_here: bool) -> Result<bool> {
        let (Some(there), Some(here)) = (server.get(key).await?, engine.open(key).await?) else { return Ok(false) };
        if there.file.length.is_none_or(|length| length >= here.entry.logical_size) {
            return Ok(false);
        }
        // Nothing is the beginning of whatever was told; more can be compared with what is here only.
        if there.file.length == Some(0) || !is_told_here {
            return Ok(there.file.length == Some(0));
        }
        is_beginning(there.stream, here.decoded()).await
    }

    /// Stores what is here on the old server; whether that has a newer version.
    async fn store_there(
        &self,
        engine: &Engine,
        server: &OldServer,
        key: &EntryKey,
        here: &Entry,
        claim: ClaimId,
    ) -> Result<bool, Failure> {
        let Recipe::Whole(blob) = &here.recipe;
        let lease = LEASE + Duration::from_secs(2 * here.logical_size.max(blob.stored_size) / BYTES_PER_SECOND_MIN);
        // When it was deleted or replaced meanwhile, it was marked again.
        let Some(download) = engine.open(key).await? else { return Ok(false) };
        let entry = download.entry.clone();
        let begun = self.0.settings.journal.begin_telling(key.clone(), claim, entry.digest, lease);
        if !self.journal(begun).await? {
            return Err(Error::new(Kind::Unavailable, "somebody else tells the old server of this name").into());
        }
        let open_upload = |error| open_upload(error, entry.logical_size);
        let told = server.put(key, download).await.map_err(open_upload)?;
        if told != entry.stamp {
            return Ok(told > entry.stamp);
        }
        if server.protocol().await? == Protocol::V1 || self.is_whole(engine, server, key, &entry).await? {
            return Ok(false);
        }
        // An upload that broke off long ago left something else under this digest, and the old server will not take the
        // content again. Under another one it does.
        log::warn!(
            "the old server holds something else for a content, it gets a copy of its own digest={}",
            entry.digest
        );
        let Some(download) = engine.open(key).await? else { return Ok(false) };
        let own = format!("{}-{:08x}", entry.digest, rand::rng().random::<u32>());
        server.put_as(key, download, &own).await.map_err(open_upload)?;
        if self.is_whole(engine, server, key, &entry).await? {
            return Ok(false);
        }
        // Or what it has is newer by less than a second: it was killed before it noted the version.
        server.delete(key, entry.stamp).await.map_err(open)?;
        let Some(download) = engine.open(key).await? else { return Ok(false) };
        server.put(key, download).await.map_err(open_upload)?;
        if self.is_whole(engine, server, key, &entry).await? {
            return Ok(false);
        }
        Err(Error::new(Kind::Unavailable, "the old server does not keep what it is given").into())
    }

    /// Whether the old server has what it was given. It keeps one copy of a content, which may be compressed otherwise; then
    /// it is read.
    async fn is_whole(&self, engine: &Engine, server: &OldServer, key: &EntryKey, entry: &Entry) -> Result<bool> {
        let Recipe::Whole(blob) = &entry.recipe;
        let fits = |there: &OldFile| there.stamp == entry.stamp && there.logical_size == Some(entry.logical_size);
        let Some(there) = server.head(key).await?.filter(fits) else { return Ok(false) };
        if there.length == Some(blob.stored_size) {
            return Ok(true);
        }
        Ok(self.digest_there(engine, server, key).await? == Some(entry.digest))
    }

    /// The digest of what the old server has; `None` when it has nothing, or something broken.
    async fn digest_there(&self, engine: &Engine, server: &OldServer, key: &EntryKey) -> Result<Option<Digest>> {
        let Some(download) = server.get(key).await? else { return Ok(None) };
        let mut spooler = engine.spooler(download.file.encoding);
        let mut stream = download.stream;
        let received = async {
            while let Some(piece) = stream.try_next().await? {
                spooler.write(piece).await?;
            }
            spooler.finish().await
        };
        match received.await {
            Ok(body) => Ok(Some(body.digest)),
            Err(error) if matches!(error.kind(), Kind::Invalid | Kind::TooLarge) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Whether the whole begins with the part.
async fn is_beginning(
    mut part: BoxStream<'static, Result<Bytes>>,
    mut whole: BoxStream<'static, Result<Bytes>>,
) -> Result<bool> {
    let mut wanted = Bytes::new();
    while let Some(mut piece) = part.try_next().await? {
        while !piece.is_empty() {
            if wanted.is_empty() {
                match whole.try_next().await? {
                    Some(next) => wanted = next,
                    None => return Ok(false),
                }
            }
            let len = piece.len().min(wanted.len());
            if piece.split_to(len) != wanted.split_to(len) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

pub(super) fn new_claim() -> ClaimId {
    ClaimId(rand::rng().random())
}

pub(super) const WORKER_LEASE: Duration = LEASE;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unanswered_upload_is_held_for_longer_the_larger_it_is() {
        assert_eq!(hold_of_upload(1000), HOLD);
        assert_eq!(hold_of_upload(1 << 30), HOLD + Duration::from_secs(256));
    }
}
