//! Metadata in PostgreSQL, for several instances at once: every write is one call of a function of the
//! schema, so one round trip and one transaction.

use async_trait::async_trait;

use super::{CommitPut, DeleteOutcome, IntentId, ListPage, MetaStore, NamePage, PlanPut, PutCommit, PutPlan, Totals};
use crate::model::{BlobKey, Digest, Entry, EntryKey, Recipe, Result, Stamp};
use crate::store::postgres::{Connector, PostgresSettings};

mod clock;
mod database;
mod instances;
mod migrate;
mod names;
mod read;
mod write;

use database::Database;

/// The store. Its connections are opened when they are needed, and driven by the runtime that needs them.
pub struct PostgresStore {
    database: Database,
}

impl PostgresStore {
    /// Checks the server and brings the schema up to date; instances that start at once take turns.
    /// Afterwards at most `connections` connections are used, before which at most `backlog` operations
    /// wait.
    pub async fn open(settings: &PostgresSettings, connections: usize, backlog: usize) -> Result<Self> {
        let store = Self::attach(settings, connections, backlog)?;
        let mut session = Connector::new(settings)?.connect().await?;
        migrate::migrate(&mut session).await?;
        Ok(store)
    }

    /// The store as it is: nothing is checked or changed, no connection opened.
    pub fn attach(settings: &PostgresSettings, connections: usize, backlog: usize) -> Result<Self> {
        Ok(Self { database: Database::new(settings, connections.max(1), backlog)? })
    }

    /// Connections that are open, and how many of them are idle.
    pub fn connections(&self) -> (usize, usize) {
        self.database.connections()
    }
}

#[async_trait]
impl MetaStore for PostgresStore {
    fn kind(&self) -> &'static str {
        "postgres"
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

    async fn delete(&self, key: EntryKey, stamp: Stamp) -> Result<DeleteOutcome> {
        write::delete(&self.database, &key, stamp).await
    }

    async fn list(&self, page: ListPage) -> Result<NamePage> {
        read::list(&self.database, &page).await
    }

    async fn totals(&self) -> Result<Totals> {
        read::totals(&self.database).await
    }

    async fn condemn(&self, digest: Digest, unused_since: Stamp) -> Result<Option<Recipe>> {
        write::condemn(&self.database, digest, unused_since).await
    }

    async fn condemn_intent(&self, intent: IntentId, made_before: Stamp) -> Result<Option<BlobKey>> {
        write::condemn_intent(&self.database, intent, made_before).await
    }

    async fn forget(&self, key: BlobKey) -> Result<()> {
        write::forget(&self.database, key).await
    }

    async fn probe(&self) -> Result<()> {
        read::probe(&self.database).await
    }
}
