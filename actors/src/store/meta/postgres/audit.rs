//! Looking everything over in one snapshot, on a session of its own: no other statement may take as long. Nothing is
//! prepared, so that it also works behind a proxy.

use std::time::Duration;

use futures_util::TryStreamExt;
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use super::PostgresStore;
use super::read::{blob_key, column, damaged, digest};
use crate::model::{Digest, Kind, Result};
use crate::store::meta::{Audit, AuditTotals, Finding};
use crate::store::postgres::{Connector, PostgresSettings, Session, sql_error};

/// The longest that one statement takes.
const STATEMENT_MAX: Duration = Duration::from_secs(12 * 3600);

const NOTED: &str = "SELECT sum(entries)::bigint, sum(contents)::bigint, sum(logical_bytes)::bigint,
    sum(stored_bytes)::bigint FROM s3dedup.totals";

const COUNTED: &str = "SELECT e.number, c.number, e.bytes, r.bytes
    FROM (SELECT count(*) AS number, coalesce(sum(c.logical_size), 0)::bigint AS bytes
            FROM s3dedup.entries e LEFT JOIN s3dedup.contents c ON c.digest = e.digest) e,
        (SELECT count(*) AS number FROM s3dedup.contents) c,
        (SELECT coalesce(sum(r.stored_size), 0)::bigint AS bytes
            FROM s3dedup.contents c JOIN s3dedup.representations r ON r.digest = c.digest) r";

const UNKNOWN: &str = "SELECT DISTINCT e.digest FROM s3dedup.entries e
    WHERE NOT EXISTS (SELECT 1 FROM s3dedup.contents c WHERE c.digest = e.digest)";

const NO_REPRESENTATION: &str = "SELECT c.digest FROM s3dedup.contents c
    WHERE NOT EXISTS (SELECT 1 FROM s3dedup.representations r WHERE r.digest = c.digest)";

const STRAY: &str = "SELECT r.digest, r.generation, r.key_depth FROM s3dedup.representations r
    WHERE NOT EXISTS (SELECT 1 FROM s3dedup.contents c WHERE c.digest = r.digest)";

const NOT_MARKED: &str = "SELECT c.digest FROM s3dedup.contents c
    WHERE c.unused_since IS NULL AND NOT EXISTS (SELECT 1 FROM s3dedup.entries e WHERE e.digest = c.digest)";

type Make = fn(Digest, &Row) -> Result<Finding>;

/// See [`MetaCare::audit`](crate::store::meta::MetaCare::audit).
pub(super) async fn audit(store: &PostgresStore, findings_max: usize) -> Result<Audit> {
    let failed = |error| sql_error("read the database", error);
    let session = patient(store).await?;
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
    session.client().batch_execute(begin).await.map_err(failed)?;
    let mut audit =
        Audit { noted: totals(&session, NOTED).await?, counted: totals(&session, COUNTED).await?, ..Audit::default() };
    let searches: [(&str, Make); 4] = [
        (UNKNOWN, |digest, _| Ok(Finding::UnknownContent { digest })),
        (NO_REPRESENTATION, |digest, _| Ok(Finding::NoRepresentation { digest })),
        (STRAY, stray),
        (NOT_MARKED, |digest, _| Ok(Finding::NotMarkedUnused { digest })),
    ];
    for (sql, make) in searches {
        let none: [(&(dyn ToSql + Sync), Type); 0] = [];
        let rows = session.client().query_typed_raw(sql, none).await.map_err(failed)?;
        let mut rows = std::pin::pin!(rows);
        while let Some(row) = rows.try_next().await.map_err(failed)? {
            match digest(&row, 0).and_then(|digest| make(digest, &row)) {
                Ok(finding) if audit.findings.len() < findings_max => audit.findings.push(finding),
                Ok(_) => audit.left_off += 1,
                Err(error) if error.kind() == Kind::Corrupt => {
                    let bytes: &[u8] = column(&row, 0).unwrap_or_default();
                    audit.unreadable(findings_max, format!("content {}", hex::encode(bytes)), error);
                }
                Err(error) => return Err(error),
            }
        }
    }
    session.client().batch_execute("COMMIT").await.map_err(failed)?;
    audit.findings.sort_by_key(Finding::digest);
    Ok(audit)
}

/// See [`MetaCare::recount_totals`](crate::store::meta::MetaCare::recount_totals).
pub(super) async fn recount_totals(store: &PostgresStore) -> Result<()> {
    let session = patient(store).await?;
    let counted = session.client().batch_execute("SELECT s3dedup.recount_totals()").await;
    counted.map_err(|error| sql_error("write to the database", error))
}

fn stray(digest: Digest, row: &Row) -> Result<Finding> {
    Ok(Finding::StrayRepresentation { digest, key: blob_key(digest, column(row, 1)?, column(row, 2)?)? })
}

async fn patient(store: &PostgresStore) -> Result<Session> {
    let settings = PostgresSettings { statement_timeout: STATEMENT_MAX, ..store.settings.clone() };
    Connector::new(&settings)?.connect().await
}

async fn totals(session: &Session, sql: &str) -> Result<AuditTotals> {
    let rows = session.client().query_typed(sql, &[]).await.map_err(|error| sql_error("read the database", error))?;
    let row = rows.first().ok_or_else(|| damaged("no totals"))?;
    let number = |index| column::<Option<i64>>(row, index)?.ok_or_else(|| damaged("no totals"));
    Ok(AuditTotals { entries: number(0)?, contents: number(1)?, logical_bytes: number(2)?, stored_bytes: number(3)? })
}
