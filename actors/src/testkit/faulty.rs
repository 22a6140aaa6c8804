//! Stores that fail on command, around stores that work.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::{self, StreamExt};

use crate::model::{BlobInfo, BlobKey, Digest, Entry, EntryKey, Error, Kind, Result, Stamp, StoredBlob};
use crate::store::blob::{BlobPage, BlobReader, BlobStore, Deletion, SpooledBytes};
use crate::store::meta::{
    CommitPut, DeleteOutcome, IntentId, ListPage, LocalReader, MetaStore, NamePage, OldIntent, PlanPut, PutCommit,
    PutPlan, Survey, Totals, UnusedContent, UnusedPage,
};

/// How late a fault is that is late.
const LATE: Duration = Duration::from_millis(1500);

/// What happens instead of the next calls.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The call goes through.
    None,
    /// [`Kind::Unavailable`] at once.
    Down,
    /// The same, but late.
    Late,
    /// A panic.
    Panic,
    /// No answer, ever.
    Hang,
    /// Reads find nothing.
    Lost,
    /// Reads begin, and no byte ever comes.
    Stall,
    /// All reads of objects end with wrong bytes.
    Wrong,
    /// The next read of an object does.
    WrongOnce,
}

/// Decides the fate of calls and counts them; clones share both.
#[derive(Clone, Debug)]
pub struct Faults(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    fault: Mutex<Fault>,
    puts: AtomicUsize,
    opens: AtomicUsize,
}

impl Default for Faults {
    fn default() -> Self {
        let (puts, opens) = Default::default();
        Self(Arc::new(Shared { fault: Mutex::new(Fault::None), puts, opens }))
    }
}

impl Faults {
    /// From now on.
    pub fn set(&self, fault: Fault) {
        *self.0.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }

    /// Objects that were to be stored so far.
    pub fn puts(&self) -> usize {
        self.0.puts.load(Ordering::SeqCst)
    }

    /// Objects that were to be opened so far.
    pub fn opens(&self) -> usize {
        self.0.opens.load(Ordering::SeqCst)
    }

    fn now(&self) -> Fault {
        *self.0.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn strike_now(&self) -> Result<()> {
        match self.now() {
            Fault::None | Fault::Lost | Fault::Hang | Fault::Stall | Fault::Wrong | Fault::WrongOnce => Ok(()),
            Fault::Down | Fault::Late => Err(Error::new(Kind::Unavailable, "down on command")),
            Fault::Panic => panic!("panic on command"),
        }
    }

    async fn strike(&self) -> Result<()> {
        match self.now() {
            Fault::Hang => std::future::pending::<()>().await,
            Fault::Late => tokio::time::sleep(LATE).await,
            _ => {}
        }
        self.strike_now()
    }
}

/// A content store with faults.
pub struct FaultyBlobs {
    /// The store that works.
    pub inner: Arc<dyn BlobStore>,
    /// Its faults.
    pub faults: Faults,
}

/// The beginning as it is, the rest changed on its way.
fn wrong(reader: BlobReader) -> BlobReader {
    let pieces = reader.stream.enumerate().map(|(number, piece)| match piece {
        Ok(piece) if number > 2 => Ok(piece.iter().map(|byte| byte ^ 1).collect()),
        piece => piece,
    });
    BlobReader { stream: pieces.boxed(), ..reader }
}

#[async_trait]
impl BlobStore for FaultyBlobs {
    fn kind(&self) -> &'static str {
        "faulty"
    }

    async fn put(&self, key: &BlobKey, body: &SpooledBytes, info: &BlobInfo) -> Result<()> {
        self.faults.0.puts.fetch_add(1, Ordering::SeqCst);
        self.faults.strike().await?;
        self.inner.put(key, body, info).await
    }

    async fn open(&self, key: &BlobKey, range: Option<Range<u64>>) -> Result<Option<BlobReader>> {
        self.faults.0.opens.fetch_add(1, Ordering::SeqCst);
        self.faults.strike().await?;
        let opened = self.inner.open(key, range).await?;
        Ok(match self.faults.now() {
            Fault::Lost => None,
            Fault::Stall => opened.map(|reader| BlobReader { stream: stream::pending().boxed(), ..reader }),
            Fault::Wrong => opened.map(wrong),
            Fault::WrongOnce => {
                self.faults.set(Fault::None);
                opened.map(wrong)
            }
            _ => opened,
        })
    }

    async fn stat(&self, key: &BlobKey) -> Result<Option<BlobInfo>> {
        self.inner.stat(key).await
    }

    async fn delete(&self, keys: &[BlobKey]) -> Result<()> {
        self.inner.delete(keys).await
    }

    async fn delete_each(&self, keys: &[BlobKey]) -> Result<Deletion> {
        self.inner.delete_each(keys).await
    }

    async fn list(&self, after: Option<&str>, limit: usize) -> Result<BlobPage> {
        self.inner.list(after, limit).await
    }

    async fn owners(&self) -> Result<Vec<String>> {
        self.faults.strike().await?;
        self.inner.owners().await
    }

    async fn add_owner(&self, owner: &str) -> Result<()> {
        self.inner.add_owner(owner).await
    }

    async fn remove_owner(&self, owner: &str) -> Result<()> {
        self.inner.remove_owner(owner).await
    }

    async fn probe(&self) -> Result<()> {
        self.faults.strike().await
    }
}

/// A metadata store with faults in what requests use.
pub struct FaultyMeta {
    /// The store that works.
    pub inner: Arc<dyn MetaStore>,
    /// Its faults.
    pub faults: Faults,
}

struct FaultyReader(Box<dyn LocalReader>, Faults);

impl LocalReader for FaultyReader {
    fn lookup(&self, key: &EntryKey) -> Result<Option<Entry>> {
        self.1.strike_now()?;
        self.0.lookup(key)
    }
}

#[async_trait]
impl MetaStore for FaultyMeta {
    fn kind(&self) -> &'static str {
        "faulty"
    }

    fn is_near(&self) -> bool {
        self.inner.is_near()
    }

    async fn lookup(&self, key: EntryKey) -> Result<Option<Entry>> {
        self.faults.strike().await?;
        self.inner.lookup(key).await
    }

    fn local_reader(&self) -> Result<Option<Box<dyn LocalReader>>> {
        let reader = self.inner.local_reader()?;
        Ok(reader.map(|reader| Box::new(FaultyReader(reader, self.faults.clone())) as _))
    }

    async fn plan_put(&self, plan: PlanPut) -> Result<PutPlan> {
        self.faults.strike().await?;
        self.inner.plan_put(plan).await
    }

    async fn commit_put(&self, commit: CommitPut) -> Result<PutCommit> {
        self.faults.strike().await?;
        self.inner.commit_put(commit).await
    }

    async fn note_damaged(&self, key: BlobKey) -> Result<()> {
        self.faults.strike().await?;
        self.inner.note_damaged(key).await
    }

    async fn delete(&self, key: EntryKey, stamp: Stamp) -> Result<DeleteOutcome> {
        self.faults.strike().await?;
        self.inner.delete(key, stamp).await
    }

    async fn delete_beside(&self, key: EntryKey, stamp: Stamp) -> Result<DeleteOutcome> {
        self.faults.strike().await?;
        self.inner.delete_beside(key, stamp).await
    }

    async fn list(&self, page: ListPage) -> Result<NamePage> {
        self.faults.strike().await?;
        self.inner.list(page).await
    }

    async fn identity(&self) -> Result<String> {
        self.inner.identity().await
    }

    async fn totals(&self) -> Result<Totals> {
        self.inner.totals().await
    }

    async fn list_unused(&self, page: UnusedPage) -> Result<Vec<UnusedContent>> {
        self.inner.list_unused(page).await
    }

    async fn condemn(&self, digests: Vec<Digest>, unused_since: Stamp) -> Result<Vec<StoredBlob>> {
        self.inner.condemn(digests, unused_since).await
    }

    async fn list_intents(&self, made_before: Stamp, after: Option<IntentId>, rows: usize) -> Result<Vec<OldIntent>> {
        self.inner.list_intents(made_before, after, rows).await
    }

    async fn condemn_intents(&self, intents: Vec<IntentId>, made_before: Stamp) -> Result<Vec<BlobKey>> {
        self.inner.condemn_intents(intents, made_before).await
    }

    async fn list_condemned(&self, after: Option<BlobKey>, rows: usize) -> Result<Vec<BlobKey>> {
        self.inner.list_condemned(after, rows).await
    }

    async fn forget(&self, keys: Vec<BlobKey>) -> Result<()> {
        self.inner.forget(keys).await
    }

    async fn survey(&self, after: Vec<u8>, rows: usize) -> Result<Survey> {
        self.inner.survey(after, rows).await
    }

    async fn are_known(&self, keys: Vec<BlobKey>) -> Result<Vec<bool>> {
        self.inner.are_known(keys).await
    }

    async fn condemn_unknown(&self, keys: Vec<BlobKey>) -> Result<Vec<BlobKey>> {
        self.inner.condemn_unknown(keys).await
    }

    async fn now(&self) -> Result<Stamp> {
        self.inner.now().await
    }

    async fn lead(&self, task: &str, holder: &str, term: Duration) -> Result<bool> {
        self.inner.lead(task, holder, term).await
    }

    async fn probe(&self) -> Result<()> {
        self.faults.strike().await
    }
}
