//! Metadata in PostgreSQL, for several instances at once: every write is one call of a function of the
//! schema, so one round trip and one transaction.

use std::time::Duration;

use async_trait::async_trait;

use super::{
    CommitPut, Connections, DeleteOutcome, IntentId, ListPage, MetaStore, NamePage, OldIntent, PlanPut, PutCommit,
    PutPlan, Survey, Totals, UnusedContent, UnusedPage,
};
use crate::failpoint::{self, Point};
use crate::model::{BlobKey, Digest, Entry, EntryKey, Result, Stamp, StoredBlob};
use crate::store::postgres::{Connector, PostgresSettings};

mod audit;
mod browse;
mod care;
mod clean;
mod clock;
mod database;
mod instances;
mod journal;
mod migrate;
mod mirror;
mod names;
mod read;
mod write;

use database::Database;

/// The store. Its connections are opened when they are needed, and driven by a thread of their own.
pub struct PostgresStore {
    database: Database,
    settings: PostgresSettings,
}

impl PostgresStore {
    /// Checks the server and brings the schema up to date; instances that start at once take turns.
    /// Afterwards at most `connections` connections are used, before which at most `backlog` operations
    /// wait.
    pub async fn open(settings: &PostgresSettings, connections: usize, backlog: usize) -> Result<Self> {
        let store = Self::attach(settings, connections, backlog)?;
        let mut session = Connector::new(settings)?.connect().await?;
        migrate::migrate(&mut session).await?;
        failpoint::hit(Point::StartAfterMigrate).await?;
        Ok(store)
    }

    /// The store as it is: nothing is checked or changed, no connection opened.
    pub fn attach(settings: &PostgresSettings, connections: usize, backlog: usize) -> Result<Self> {
        let database = Database::new(settings, connections.max(1), backlog)?;
        Ok(Self { database, settings: settings.clone() })
    }
}

#[async_trait]
impl MetaStore for PostgresStore {
    fn kind(&self) -> &'static str {
        "postgres"
    }

    fn connections(&self) -> Option<Connections> {
        Some(self.database.connections())
    }

    async fn lookup(&self, key: EntryKey) -> Result<Option<Entry>> {
        read::lookup(&self.database, &key).await
    }

    async fn plan_put(&self, plan: PlanPut) -> Result<PutPlan> {
        write::plan_put(&self.database, &plan).await
    }

    async fn commit_put(&self, commit: CommitPut) -> Result<PutCommit> {
        write::commit_put(&self.database, &commit).await
    }

    async fn note_damaged(&self, key: BlobKey) -> Result<()> {
        write::note_damaged(&self.database, key).await
    }

    async fn delete(&self, key: EntryKey, stamp: Stamp) -> Result<DeleteOutcome> {
        write::delete(&self.database, &key, stamp).await
    }

    async fn delete_beside(&self, key: EntryKey, stamp: Stamp) -> Result<DeleteOutcome> {
        write::delete_beside(&self.database, &key, stamp).await
    }

    async fn list(&self, page: ListPage) -> Result<NamePage> {
        read::list(&self.database, &page).await
    }

    async fn identity(&self) -> Result<String> {
        read::identity(&self.database).await
    }

    async fn totals(&self) -> Result<Totals> {
        read::totals(&self.database).await
    }

    async fn now(&self) -> Result<Stamp> {
        clean::now(&self.database).await
    }

    async fn list_unused(&self, page: UnusedPage) -> Result<Vec<UnusedContent>> {
        clean::list_unused(&self.database, &page).await
    }

    async fn condemn(&self, digests: Vec<Digest>, unused_since: Stamp) -> Result<Vec<StoredBlob>> {
        clean::condemn(&self.database, digests, unused_since).await
    }

    async fn list_intents(&self, made_before: Stamp, after: Option<IntentId>, rows: usize) -> Result<Vec<OldIntent>> {
        clean::list_intents(&self.database, made_before, after, rows).await
    }

    async fn condemn_intents(&self, intents: Vec<IntentId>, made_before: Stamp) -> Result<Vec<BlobKey>> {
        clean::condemn_intents(&self.database, intents, made_before).await
    }

    async fn list_condemned(&self, after: Option<BlobKey>, rows: usize) -> Result<Vec<BlobKey>> {
        clean::list_condemned(&self.database, after, rows).await
    }

    async fn forget(&self, keys: Vec<BlobKey>) -> Result<()> {
        clean::forget(&self.database, keys).await
    }

    async fn survey(&self, after: Vec<u8>, rows: usize) -> Result<Survey> {
        clean::survey(&self.database, &after, rows).await
    }

    async fn are_known(&self, keys: Vec<BlobKey>) -> Result<Vec<bool>> {
        clean::are_known(&self.database, keys).await
    }

    async fn condemn_unknown(&self, keys: Vec<BlobKey>) -> Result<Vec<BlobKey>> {
        clean::condemn_unknown(&self.database, keys).await
    }

    async fn lead(&self, task: &str, holder: &str, term: Duration) -> Result<bool> {
        clean::lead(&self.database, task, holder, term).await
    }

    async fn probe(&self) -> Result<()> {
        read::probe(&self.database).await
    }
}
