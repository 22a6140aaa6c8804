//! The full scan: the listing of the content store beside that of the metadata store, in constant memory.
//!
//! Both are read in pages. Objects of one layout are listed in the order of their digests, as contents are, so one pass
//! over both tells who lacks the other. Where layouts are mixed their orders differ: a content that was not seen where it
//! was expected is asked for by name before it is called missing.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};

use super::report::{Findings, ScanReport};
use super::run::Cleaner;
use super::turn::Turn;
use crate::failpoint::{self, Point};
use crate::model::{BlobKey, Digest, Kind, Recipe, Result, StoredBlob};
use crate::store::blob::{BlobStore, Deletion};
use crate::store::meta::MetaStore;
use crate::verify::before;

/// Names and contents that are read together.
const PAGE: usize = 1000;
/// Contents that were not seen and are asked for together.
const UNSEEN_MAX: usize = 256;

/// Missing and damaged objects that one scan notes, each in a transaction. Reads and repairs note the rest.
const NOTES_MAX: u32 = 1000;

/// Contents in the order of their digests.
struct Contents<'a> {
    metadata: &'a dyn MetaStore,
    page: VecDeque<StoredBlob>,
    /// Where the next page begins; `None` at the end.
    next: Option<Vec<u8>>,
    /// Rows that cannot be read.
    unreadable: Findings,
}

impl Contents<'_> {
    async fn first(&mut self) -> Result<Option<StoredBlob>> {
        while self.page.is_empty()
            && let Some(after) = self.next.clone()
        {
            let page = self.metadata.survey(after, PAGE).await?;
            self.next = page.next;
            for row in page.unreadable {
                self.unreadable.add(format!("{}: {}", row.place, row.why), 0);
            }
            let blobs = page.contents.into_iter().map(|content| match content.recipe {
                Recipe::Whole(blob) => blob,
            });
            self.page = blobs.collect();
        }
        Ok(self.page.front().copied())
    }
}

struct Scan<'a> {
    cleaner: &'a Cleaner,
    contents: Contents<'a>,
    unseen: Vec<StoredBlob>,
    dry_run: bool,
    orphans_left: u64,
    /// Missing and damaged objects that may still be noted.
    notes_left: u32,
}

/// Compares the stores; deletes up to `orphans_max` objects that nothing is known of.
pub(super) async fn run(
    cleaner: &Cleaner,
    turn: &Turn,
    dry_run: bool,
    orphans_max: u64,
    report: &mut ScanReport,
) -> Result<()> {
    let (page, next, unreadable) = (VecDeque::new(), Some(Vec::new()), Findings::default());
    let contents = Contents { metadata: cleaner.metadata.as_ref(), page, next, unreadable };
    let notes_left = if dry_run { 0 } else { NOTES_MAX };
    let mut scan = Scan { cleaner, contents, unseen: Vec::new(), dry_run, orphans_left: orphans_max, notes_left };
    let outcome = compare(&mut scan, turn, report).await;
    report.unreadable = scan.contents.unreadable;
    outcome
}

async fn compare(scan: &mut Scan<'_>, turn: &Turn, report: &mut ScanReport) -> Result<()> {
    let cleaner = scan.cleaner;
    let mut after = None;
    loop {
        turn.expect_ours()?;
        if cleaner.is_stopped() {
            return Ok(());
        }
        let page = cleaner.contents.list(after.as_deref(), PAGE).await?;
        for name in &page.strangers {
            report.strangers.add(name, 0);
        }
        report.objects += page.blobs.len() as u64;
        report.object_bytes += page.blobs.iter().map(|(_, size)| size).sum::<u64>();
        for (key, size) in &page.blobs {
            scan.match_object(key, *size, report).await?;
        }
        scan.orphans(&page.blobs, report).await?;
        cleaner.progress.add_scanned((page.blobs.len() + page.strangers.len()) as u64);
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    while let Some(content) = scan.contents.first().await? {
        turn.expect_ours()?;
        if cleaner.is_stopped() {
            return Ok(());
        }
        scan.pass(content, report).await?;
    }
    scan.ask_for_unseen(report).await
}

impl Scan<'_> {
    /// Moves on among the contents to that of an object.
    async fn match_object(&mut self, key: &BlobKey, size: u64, report: &mut ScanReport) -> Result<()> {
        while let Some(content) = self.contents.first().await? {
            if content.key.digest < key.digest {
                self.pass(content, report).await?;
                continue;
            }
            if content.key == *key {
                self.contents.page.pop_front();
                report.contents += 1;
                if content.stored_size != size {
                    report.wrong_size.add(key, size);
                    self.note(*key).await?;
                }
            }
            break;
        }
        Ok(())
    }

    /// Leaves a content behind whose object was not seen.
    async fn pass(&mut self, content: StoredBlob, report: &mut ScanReport) -> Result<()> {
        self.contents.page.pop_front();
        report.contents += 1;
        self.unseen.push(content);
        if self.unseen.len() >= UNSEEN_MAX { self.ask_for_unseen(report).await } else { Ok(()) }
    }

    /// Takes those off the list that a repair may need: a content that is known and whose own object is not there, or
    /// not what it should be, may have nothing else left.
    async fn keep_needed(&self, orphans: &mut Vec<(BlobKey, u64)>, report: &mut ScanReport) -> Result<()> {
        let asked: Vec<_> = orphans.iter().map(|(key, _)| self.is_spare(key.digest)).collect();
        let are_spare: Vec<bool> =
            stream::iter(asked).buffered(self.cleaner.limits.concurrency.max(1)).try_collect().await?;
        let mut are_spare = are_spare.into_iter();
        orphans.retain(|(key, size)| {
            let is_spare = are_spare.next().unwrap_or(false);
            if !is_spare {
                report.orphans_kept.add(key, *size);
            }
            is_spare
        });
        Ok(())
    }

    /// Whether the content is unknown, or has an object of its own that looks whole and was not found damaged. Where the
    /// rows cannot be read nothing is spare.
    async fn is_spare(&self, digest: Digest) -> Result<bool> {
        let found = {
            let _call = self.cleaner.call().await;
            let after = before(digest).map_or_else(Vec::new, |before| before.as_bytes().to_vec());
            self.cleaner.metadata.survey(after, 1).await?
        };
        if !found.unreadable.is_empty() {
            return Ok(false);
        }
        let Some(content) = found.contents.into_iter().find(|content| content.digest == digest) else {
            return Ok(true);
        };
        if content.is_suspect {
            return Ok(false);
        }
        let Recipe::Whole(blob) = content.recipe;
        match self.cleaner.contents.stat(&blob.key).await {
            Ok(info) => Ok(info.is_some_and(|info| info.stored_size == blob.stored_size)),
            Err(error) if error.kind() == Kind::Corrupt => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Asks for objects that were not seen: they may be elsewhere in the listing, or newer than the page of it.
    async fn ask_for_unseen(&mut self, report: &mut ScanReport) -> Result<()> {
        let unseen = std::mem::take(&mut self.unseen);
        let asked: Vec<_> = unseen.iter().map(|content| size(Arc::clone(&self.cleaner.contents), *content)).collect();
        let sizes: Vec<_> = stream::iter(asked).buffered(self.cleaner.limits.concurrency.max(1)).try_collect().await?;
        let absent: Vec<_> =
            unseen.iter().zip(&sizes).filter(|(_, size)| size.is_none()).map(|(blob, _)| blob).collect();
        // It may have been cleaned away since the contents were listed.
        let is_known = self.known(absent.iter().map(|blob| blob.key).collect()).await?;
        for (blob, _) in absent.iter().zip(is_known).filter(|(_, is_known)| *is_known) {
            report.missing.add(blob.key, blob.stored_size);
            self.note(blob.key).await?;
        }
        for (blob, size) in unseen.iter().zip(&sizes) {
            if let Some(size) = size
                && *size != blob.stored_size
            {
                report.wrong_size.add(blob.key, *size);
                self.note(blob.key).await?;
            }
        }
        Ok(())
    }

    /// Lets the next upload of the content bring it back.
    async fn note(&mut self, key: BlobKey) -> Result<()> {
        let Some(left) = self.notes_left.checked_sub(1) else { return Ok(()) };
        self.notes_left = left;
        let _call = self.cleaner.call().await;
        self.cleaner.metadata.note_damaged(key).await
    }

    async fn known(&self, keys: Vec<BlobKey>) -> Result<Vec<bool>> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let _call = self.cleaner.call().await;
        self.cleaner.metadata.are_known(keys).await
    }

    /// Those of a page that nothing is known of.
    ///
    /// An upload's intent is there before its object and until the commit puts the content in its place, so what is
    /// stored and unknown afterwards belongs to nobody. Only the last step of cleaning makes a listed object unknown, and
    /// nobody else cleans meanwhile.
    async fn orphans(&mut self, objects: &[(BlobKey, u64)], report: &mut ScanReport) -> Result<()> {
        failpoint::hit(Point::CleanInScan).await?;
        let mut unknown: Vec<(BlobKey, u64)> = objects.to_vec();
        // A second look costs little, and a mistake here would be told to people.
        for _ in 0..2 {
            let is_known = self.known(unknown.iter().map(|(key, _)| *key).collect()).await?;
            let mut is_known = is_known.into_iter();
            unknown.retain(|_| !is_known.next().unwrap_or(true));
        }
        for (key, size) in &unknown {
            report.orphans.add(key, *size);
        }
        if self.orphans_left > 0 {
            self.keep_needed(&mut unknown, report).await?;
        }
        let may_go = usize::try_from(self.orphans_left).unwrap_or(usize::MAX).min(unknown.len());
        let chosen = &unknown[..may_go];
        if chosen.is_empty() {
            return Ok(());
        }
        self.orphans_left -= chosen.len() as u64;
        report.orphans_deleted.plan(chosen.len() as u64, chosen.iter().map(|(_, size)| size).sum());
        if self.dry_run {
            return Ok(());
        }
        // Condemned, their names are not given to uploads any more: no new object can be hit.
        let mut condemned = Vec::with_capacity(chosen.len());
        for keys in chosen.chunks(super::run::PER_TRANSACTION) {
            let keys = keys.iter().map(|(key, _)| *key).collect();
            let _call = self.cleaner.call().await;
            condemned.extend(self.cleaner.metadata.condemn_unknown(keys).await?);
        }
        failpoint::hit(Point::CleanAfterCondemnUnknown).await?;
        let Deletion { kept, reason } = self.cleaner.delete(&condemned).await?;
        let gone = chosen.iter().filter(|(key, _)| condemned.contains(key) && !kept.contains(key));
        let (count, bytes) = gone.fold((0, 0), |(count, bytes), (_, size)| (count + 1, bytes + size));
        report.orphans_deleted.done(count, bytes);
        if let Some(reason) = reason {
            log::warn!("orphans could not be deleted number={} error=\"{reason}\"", kept.len());
        }
        Ok(())
    }
}

/// The size of a content's object, as far as it is told; `None` when there is none.
async fn size(store: Arc<dyn BlobStore>, content: StoredBlob) -> Result<Option<u64>> {
    match store.stat(&content.key).await {
        Ok(info) => Ok(info.map(|info| info.stored_size)),
        // It is there, and does not describe itself: that is for others to judge.
        Err(error) if error.kind() == Kind::Corrupt => Ok(Some(content.stored_size)),
        Err(error) => Err(error),
    }
}
