//! Who serves: heartbeats of instances.

use std::time::Duration;

use async_trait::async_trait;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::PostgresStore;
use super::database::{Again, Sql};
use super::read::{column, damaged};
use crate::model::{Result, Stamp};
use crate::store::instances::{Instance, InstanceRegistry, KnownInstance, Peers};

const BEAT: Sql = Sql {
    text: "SELECT s3dedup.beat($1, $2, $3, $4, $5, $6, $7)",
    types: &[Type::TIMESTAMPTZ, Type::TEXT, Type::INT8, Type::TEXT, Type::TEXT, Type::TEXT, Type::TEXT],
};

const LEAVE: Sql =
    Sql { text: "SELECT s3dedup.leave($1, $2, $3)", types: &[Type::TIMESTAMPTZ, Type::TEXT, Type::INT8] };

const INSTANCES: Sql = Sql {
    text: "SELECT id, address, version, contents, locks, floor(extract(epoch FROM started_at))::bigint,
            floor(extract(epoch FROM greatest(clock_timestamp() - seen_at, interval '0')) * 1000)::bigint
        FROM s3dedup.instances WHERE seen_at > clock_timestamp() - interval '7 days' ORDER BY id",
    types: &[],
};

const TIE: Sql = Sql { text: "SELECT s3dedup.tie_to_contents($1, $2)", types: &[Type::TIMESTAMPTZ, Type::TEXT] };

#[async_trait]
impl InstanceRegistry for PostgresStore {
    async fn beat(&self, me: &Instance, run: i64) -> Result<Peers> {
        let Instance { id, address, version, contents, locks } = me;
        let rows = self.database.write(Again::Harmless, &BEAT, &[id, &run, address, version, contents, locks]).await?;
        let is_name_taken = column(rows.first().ok_or_else(|| damaged("no answer"))?, 0)?;
        let others = self.instances().await?;
        let live = others.into_iter().filter(|other| other.is_live() && other.instance.id != *id).collect();
        Ok(Peers { live, is_name_taken })
    }

    async fn leave(&self, id: &str, run: i64) -> Result<()> {
        self.database.write(Again::Harmless, &LEAVE, &[&id, &run]).await.map(drop)
    }

    async fn instances(&self) -> Result<Vec<KnownInstance>> {
        self.database.read(&INSTANCES, &[]).await?.iter().map(known).collect()
    }

    async fn tie_to_contents(&self, contents: &str) -> Result<String> {
        let rows = self.database.write(Again::Harmless, &TIE, &[&contents]).await?;
        column(rows.first().ok_or_else(|| damaged("no answer"))?, 0)
    }
}

fn known(row: &Row) -> Result<KnownInstance> {
    let silent_ms: i64 = column(row, 6)?;
    Ok(KnownInstance {
        instance: Instance {
            id: column(row, 0)?,
            address: column(row, 1)?,
            version: column(row, 2)?,
            contents: column(row, 3)?,
            locks: column(row, 4)?,
        },
        started_at: Stamp::from_seconds(column(row, 5)?),
        silent_for: Duration::from_millis(u64::try_from(silent_ms).unwrap_or_default()),
    })
}
