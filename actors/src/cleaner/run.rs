//! One run: plan a batch, condemn it, delete it, forget it, as often as there is something to do.

use std::collections::{HashMap, HashSet};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Semaphore;

use super::plan::{Batch, Planner, What};
use super::report::CleanReport;
use super::stats::Progress;
use super::turn::Turn;
use super::{CleanerLimits, scan};
use crate::failpoint::{self, Point};
use crate::model::{BlobKey, Error, Kind, Result, Stamp};
use crate::store::blob::{BlobStore, Deletion, StaleUploads};
use crate::store::meta::MetaStore;

/// So many objects are condemned or forgotten by one transaction: requests of clients wait for its turn.
pub(super) const PER_TRANSACTION: usize = 250;
/// Calls of the metadata store at once, whatever the concurrency is: the rest is the clients'.
const METADATA_CALLS_MAX: usize = 2;
/// Failed batches that end a run.
const FAILURES_MAX: u64 = 3;
/// Batches in a row of which the store deletes nothing: what is left of their kind waits for the next run.
const REFUSALS_MAX: u32 = 3;

/// What a run is to do.
#[derive(Clone, Copy, Default, Debug)]
pub struct CleanOptions {
    /// Nothing is changed; the report tells what a run would do now.
    pub dry_run: bool,
    /// Objects and metadata are compared.
    pub full_scan: bool,
    /// With the full scan: objects that nothing is known of are deleted.
    pub delete_orphans: bool,
}

/// Cleans two stores that belong together. Clones are the same cleaner.
#[derive(Clone)]
pub struct Cleaner {
    pub(super) metadata: Arc<dyn MetaStore>,
    pub(super) contents: Arc<dyn BlobStore>,
    pub(super) limits: CleanerLimits,
    pub(super) progress: Progress,
    holder: String,
    stop: Arc<AtomicBool>,
    calls: Arc<Semaphore>,
}

/// Objects that a batch deleted.
struct Deleted {
    batch: What,
    planned: u64,
    count: u64,
    bytes: u64,
    kept: u64,
    reason: Option<Error>,
}

impl Cleaner {
    /// A cleaner that calls itself `holder` among others that share the metadata.
    pub fn new(
        metadata: Arc<dyn MetaStore>,
        contents: Arc<dyn BlobStore>,
        limits: CleanerLimits,
        holder: String,
    ) -> Self {
        let (progress, stop) = Default::default();
        Self { metadata, contents, limits, progress, holder, stop, calls: Arc::new(Semaphore::new(METADATA_CALLS_MAX)) }
    }

    /// How far the run is.
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// Ends the run after the batches it is at, and every later one before it begins.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// One run. Trouble with a store ends it and is in the report, with what was done before; `None` when another one is
    /// at it.
    pub async fn run(&self, options: CleanOptions) -> Option<CleanReport> {
        let mut report = CleanReport::default();
        let outcome = if options.dry_run {
            // Looking does no harm, whoever else is at it.
            self.steps(options, &Turn::default(), &mut report).await
        } else {
            let metadata = self.metadata.as_ref();
            match Turn::take(metadata, &self.holder).await {
                Ok(Some(turn)) => turn.during(metadata, &self.holder, self.steps(options, &turn, &mut report)).await,
                Ok(None) => return None,
                Err(error) => Err(error),
            }
        };
        if let Err(error) = outcome {
            report.fail(error);
        }
        Some(report)
    }

    /// Refuses what would destroy what can still be had back.
    async fn check(&self, options: CleanOptions) -> Result<()> {
        let totals = self.metadata.totals().await?;
        if options.delete_orphans && totals.contents == 0 {
            return Err(Error::new(
                Kind::Invalid,
                "the database knows no contents: the objects may be all that is left of them, none is deleted",
            ));
        }
        if totals.entries == 0 && totals.contents > 0 && totals.uploads_begun == 0 {
            return Err(Error::new(
                Kind::Invalid,
                "the database was rebuilt and has no names yet: import them first, or all contents would be cleaned away",
            ));
        }
        Ok(())
    }

    async fn steps(&self, options: CleanOptions, turn: &Turn, report: &mut CleanReport) -> Result<()> {
        self.check(options).await?;
        // By the clock that the rows were dated with.
        let mut planner = Planner::new(&self.limits, self.metadata.now().await?, options.dry_run);
        self.batches(options, turn, &mut planner, report).await?;
        report.is_partial |= planner.is_cut();
        if report.errors >= FAILURES_MAX {
            return Ok(());
        }
        if !self.is_stopped() {
            let stale = StaleUploads {
                begun_before: planner.made_before,
                dry_run: options.dry_run,
                concurrency: self.limits.concurrency,
                is_stopped: &|| self.is_stopped(),
            };
            match self.contents.abort_stale_uploads(stale).await {
                Ok(parts) => {
                    report.parts.plan(parts, 0);
                    report.parts.done(if options.dry_run { 0 } else { parts }, 0);
                }
                // A key without the right to do this keeps nobody from the rest.
                Err(error) => report.fail(error),
            }
        }
        if options.full_scan {
            let orphans_max = if options.delete_orphans { planner.left() } else { 0 };
            let mut scanned = Default::default();
            let outcome = scan::run(self, turn, options.dry_run, orphans_max, &mut scanned).await;
            report.is_partial |= options.delete_orphans
                && scanned.orphans.count > scanned.orphans_deleted.planned + scanned.orphans_kept.count;
            report.scan = Some(scanned);
            outcome?;
        }
        report.is_partial |= self.is_stopped();
        Ok(())
    }

    async fn batches(
        &self,
        options: CleanOptions,
        turn: &Turn,
        planner: &mut Planner,
        report: &mut CleanReport,
    ) -> Result<()> {
        let (mut flying, mut failure, mut is_first) = (FuturesUnordered::new(), None, true);
        let mut refusals = (What::Condemned, 0);
        loop {
            let may_go_on = failure.is_none() && report.errors < FAILURES_MAX && !self.is_stopped();
            let mut is_over = !may_go_on;
            if may_go_on && flying.len() < self.limits.concurrency.max(1) {
                match self.next(options, turn, planner, &mut is_first).await {
                    Ok(Some(batch)) => {
                        batch.count(report);
                        if !options.dry_run {
                            flying.push(self.clean(batch, planner.unused_since, planner.made_before));
                        }
                        continue;
                    }
                    Ok(None) => is_over = true,
                    Err(error) => {
                        // What is in flight is brought to its end.
                        failure = Some(error);
                        continue;
                    }
                }
            }
            match flying.next().await {
                Some(Ok(deleted)) => {
                    // What cannot be deleted takes nobody's place.
                    planner.give_back(deleted.kept);
                    let is_refused = deleted.kept > 0 && deleted.count == 0;
                    refusals = match refusals {
                        _ if !is_refused => (deleted.batch, 0),
                        (what, times) if what == deleted.batch => (what, times + 1),
                        _ => (deleted.batch, 1),
                    };
                    if refusals.1 >= REFUSALS_MAX {
                        planner.leave(deleted.batch);
                    }
                    self.count(deleted, report);
                }
                Some(Err(error)) => report.fail(error),
                None if is_over => break,
                None => {}
            }
        }
        failure.map_or(Ok(()), Err)
    }

    async fn next(
        &self,
        options: CleanOptions,
        turn: &Turn,
        planner: &mut Planner,
        is_first: &mut bool,
    ) -> Result<Option<Batch>> {
        turn.expect_ours()?;
        let batch = planner.next(self.metadata.as_ref()).await?;
        if batch.is_some() && std::mem::take(is_first) && !options.dry_run {
            // Nothing is condemned for a store that is away.
            self.contents.probe().await?;
        }
        Ok(batch)
    }

    async fn clean(&self, batch: Batch, unused_since: Stamp, made_before: Stamp) -> Result<Deleted> {
        failpoint::hit(Point::CleanBeforeCondemn).await?;
        let (what, planned, keys, sizes) = match batch {
            Batch::Condemned(keys) => (What::Condemned, keys.len(), keys, HashMap::new()),
            Batch::Intents(intents) => {
                let mut keys = Vec::with_capacity(intents.len());
                for intents in intents.chunks(PER_TRANSACTION) {
                    let intents = intents.iter().map(|intent| intent.id).collect();
                    let _call = self.call().await;
                    keys.extend(self.metadata.condemn_intents(intents, made_before).await?);
                }
                (What::Intents, intents.len(), keys, HashMap::new())
            }
            Batch::Unused(contents) => {
                let mut blobs = Vec::with_capacity(contents.len());
                for contents in contents.chunks(PER_TRANSACTION) {
                    let digests = contents.iter().map(|content| content.digest).collect();
                    let _call = self.call().await;
                    blobs.extend(self.metadata.condemn(digests, unused_since).await?);
                }
                let keys = blobs.iter().map(|blob| blob.key).collect();
                (What::Unused, contents.len(), keys, blobs.iter().map(|blob| (blob.key, blob.stored_size)).collect())
            }
        };
        failpoint::hit(Point::CleanAfterCondemn).await?;
        let Deletion { kept, reason } = self.delete(&keys).await?;
        let count = (keys.len() - kept.len()) as u64;
        let sizes: HashMap<BlobKey, u64> = sizes;
        let bytes = sizes.values().sum::<u64>() - kept.iter().filter_map(|key| sizes.get(key)).sum::<u64>();
        Ok(Deleted { batch: what, planned: planned as u64, count, bytes, kept: kept.len() as u64, reason })
    }

    /// Deletes objects that are condemned, and forgets them. Those that the store keeps stay condemned.
    pub(super) async fn delete(&self, keys: &[BlobKey]) -> Result<Deletion> {
        if keys.is_empty() {
            return Ok(Deletion::default());
        }
        let deletion = self.contents.delete_each(keys).await?;
        failpoint::hit(Point::CleanAfterDelete).await?;
        let kept: HashSet<&BlobKey> = deletion.kept.iter().collect();
        let gone: Vec<BlobKey> = keys.iter().filter(|key| !kept.contains(key)).copied().collect();
        for keys in gone.chunks(PER_TRANSACTION) {
            let _call = self.call().await;
            self.metadata.forget(keys.to_vec()).await?;
        }
        failpoint::hit(Point::CleanAfterForget).await?;
        Ok(deletion)
    }

    /// A place among the calls of the metadata store.
    pub(super) async fn call(&self) -> Option<tokio::sync::SemaphorePermit<'_>> {
        // It is never closed.
        self.calls.acquire().await.ok()
    }

    fn count(&self, deleted: Deleted, report: &mut CleanReport) {
        let tally = match deleted.batch {
            What::Condemned => &mut report.condemned,
            What::Intents => &mut report.intents,
            What::Unused => &mut report.unused,
        };
        tally.done(deleted.count, deleted.bytes);
        report.keep(deleted.kept, deleted.reason);
        self.progress.add_cleaned(deleted.planned);
    }
}
