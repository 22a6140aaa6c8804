//! Statements of marks and tombstones.

use std::time::Duration;

use async_trait::async_trait;
use tokio_postgres::types::Type;

use super::PostgresStore;
use super::clean::limit;
use super::database::{Again, Sql};
use super::names::{StoredName, namespace};
use super::read::{column, damaged, unsigned};
use crate::model::{Digest, EntryKey, Namespace, Result, Stamp};
use crate::store::meta::{ClaimId, Claimed, KnownHere, Mark, MarkSummary, MirrorJournal, Settled};

const MARK: Sql = Sql {
    text: "SELECT s3dedup.mark($1, $2, $3, $4, $5)",
    types: &[Type::TIMESTAMPTZ, Type::INT4, Type::TEXT, Type::TEXT, Type::BYTEA],
};

const CLAIM: Sql = Sql {
    text: "SELECT o_outcome, o_seq, o_attempts FROM s3dedup.claim_mark($1, $2, $3, $4, $5, $6)",
    types: &[Type::TIMESTAMPTZ, Type::INT4, Type::TEXT, Type::BYTEA, Type::INT8, Type::INT8],
};

const IS_CLAIMED: Sql = Sql {
    text: "SELECT 1 FROM s3dedup.marks WHERE namespace = $1 AND name = $2 AND rest_hash = $3
        AND claimed_until > s3dedup.milliseconds_now()",
    types: &[Type::INT4, Type::TEXT, Type::BYTEA],
};

const CLAIM_DUE: Sql = Sql {
    text: "SELECT o_namespace, o_name, o_seq, o_attempts FROM s3dedup.claim_due_marks($1, $2, $3, $4)",
    types: &[Type::TIMESTAMPTZ, Type::INT8, Type::INT8, Type::INT8],
};

const BEGIN_TELLING: Sql = Sql {
    text: "SELECT s3dedup.begin_telling($1, $2, $3, $4, $5, $6, $7)",
    types: &[Type::TIMESTAMPTZ, Type::INT4, Type::TEXT, Type::BYTEA, Type::INT8, Type::BYTEA, Type::INT8],
};

const SETTLE: Sql = Sql {
    text: "SELECT s3dedup.settle_mark($1, $2, $3, $4, $5, $6)",
    types: &[Type::TIMESTAMPTZ, Type::INT4, Type::TEXT, Type::BYTEA, Type::INT8, Type::INT8],
};

const FAIL: Sql = Sql {
    text: "SELECT s3dedup.fail_mark($1, $2, $3, $4, $5, $6, $7, $8)",
    types: &[Type::TIMESTAMPTZ, Type::INT4, Type::TEXT, Type::BYTEA, Type::INT8, Type::TEXT, Type::INT8, Type::INT8],
};

const SUMMARY: Sql = Sql {
    text: "SELECT count(*), min(since),
            (SELECT last_error FROM s3dedup.marks WHERE last_error IS NOT NULL ORDER BY next_at DESC LIMIT 1)
        FROM s3dedup.marks",
    types: &[],
};

const ARE_HERE: Sql = Sql {
    text: "SELECT EXISTS (SELECT 1 FROM s3dedup.entries e
                WHERE e.namespace = $1 AND e.name = k.name AND e.rest_hash = k.rest_hash),
            (SELECT t.modified FROM s3dedup.tombstones t
                WHERE t.namespace = $1 AND t.name = k.name AND t.rest_hash = k.rest_hash),
            (SELECT m.telling FROM s3dedup.marks m
                WHERE m.namespace = $1 AND m.name = k.name AND m.rest_hash = k.rest_hash)
        FROM unnest($2, $3) WITH ORDINALITY AS k (name, rest_hash, number) ORDER BY k.number",
    types: &[Type::INT4, Type::TEXT_ARRAY, Type::BYTEA_ARRAY],
};

const FORGET_MARKS: Sql = Sql {
    text: "WITH gone AS (
            DELETE FROM s3dedup.marks m WHERE (m.namespace, m.name, m.rest_hash) IN (
                SELECT d.namespace, d.name, d.rest_hash FROM s3dedup.marks d LIMIT $2) RETURNING 1)
        SELECT (SELECT count(*) FROM gone), s3dedup.begin_write($1)",
    types: &[Type::TIMESTAMPTZ, Type::INT8],
};

const COUNT_TOMBSTONES: Sql = Sql { text: "SELECT count(*) FROM s3dedup.tombstones", types: &[] };

const FORGET: Sql = Sql { text: "SELECT s3dedup.forget_tombstones($1, $2)", types: &[Type::TIMESTAMPTZ, Type::INT8] };

#[async_trait]
impl MirrorJournal for PostgresStore {
    async fn mark(&self, key: EntryKey) -> Result<()> {
        let name = StoredName::new(&key);
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
            [&name.namespace, &name.name, &name.rest, &name.rest_hash];
        self.database.write(Again::Harmless, &MARK, &parameters).await.map(drop)
    }

    async fn claim_mark(&self, key: EntryKey, claim: ClaimId, lease: Duration) -> Result<Claimed> {
        let answer = {
            let name = StoredName::new(&key);
            let lease = milliseconds(lease);
            let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 5] =
                [&name.namespace, &name.name, &name.rest_hash, &claim.0, &lease];
            self.database.write(Again::Harmless, &CLAIM, &parameters).await?
        };
        let row = answer.first().ok_or_else(|| damaged("no answer"))?;
        Ok(match column(row, 0)? {
            "claimed" => Claimed::Yes(Mark { key, seq: column(row, 1)?, attempts: attempts(column(row, 2)?)? }),
            "held" => Claimed::Held,
            _ => Claimed::Absent,
        })
    }

    async fn is_claimed(&self, key: EntryKey) -> Result<bool> {
        let name = StoredName::new(&key);
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 3] =
            [&name.namespace, &name.name, &name.rest_hash];
        Ok(!self.database.read(&IS_CLAIMED, &parameters).await?.is_empty())
    }

    async fn claim_due_marks(&self, claim: ClaimId, lease: Duration, rows: usize) -> Result<Vec<Mark>> {
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 3] =
            [&claim.0, &milliseconds(lease), &limit(rows)];
        let answer = self.database.write(Again::Harmless, &CLAIM_DUE, &parameters).await?;
        let mark = |row| {
            let namespace = Namespace::from_id(column::<i32>(row, 0)?.cast_unsigned());
            let name: &str = column(row, 1)?;
            let key = EntryKey::parse(namespace, name.as_bytes()).map_err(|_| damaged("a marked name"))?;
            Ok(Mark { key, seq: column(row, 2)?, attempts: attempts(column(row, 3)?)? })
        };
        answer.iter().map(mark).collect()
    }

    async fn begin_telling(&self, key: EntryKey, claim: ClaimId, digest: Digest, lease: Duration) -> Result<bool> {
        let answer = {
            let name = StoredName::new(&key);
            let (digest, lease) = (digest.as_bytes().as_slice(), milliseconds(lease));
            let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 6] =
                [&name.namespace, &name.name, &name.rest_hash, &claim.0, &digest, &lease];
            self.database.write(Again::Harmless, &BEGIN_TELLING, &parameters).await?
        };
        column(answer.first().ok_or_else(|| damaged("no answer"))?, 0)
    }

    async fn settle_mark(&self, mark: Mark, claim: ClaimId) -> Result<Settled> {
        let name = StoredName::new(&mark.key);
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 5] =
            [&name.namespace, &name.name, &name.rest_hash, &claim.0, &mark.seq];
        // The second time it would say that the claim was lost; then the name is marked again, which does no harm.
        let answer = self.database.write(Again::Harmless, &SETTLE, &parameters).await?;
        Ok(match column(answer.first().ok_or_else(|| damaged("no answer"))?, 0)? {
            "settled" => Settled::Done,
            "changed" => Settled::Changed,
            _ => Settled::Lost,
        })
    }

    async fn fail_mark(
        &self,
        key: EntryKey,
        claim: ClaimId,
        error: String,
        pause: Duration,
        hold: Duration,
    ) -> Result<()> {
        let name = StoredName::new(&key);
        let (pause, hold) = (milliseconds(pause), milliseconds(hold));
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 7] =
            [&name.namespace, &name.name, &name.rest_hash, &claim.0, &error, &pause, &hold];
        self.database.write(Again::Harmless, &FAIL, &parameters).await.map(drop)
    }

    async fn mark_summary(&self) -> Result<MarkSummary> {
        let answer = self.database.read(&SUMMARY, &[]).await?;
        let row = answer.first().ok_or_else(|| damaged("no answer"))?;
        let oldest: Option<i64> = column(row, 1)?;
        let marks = unsigned(column(row, 0)?)?;
        Ok(MarkSummary { marks, oldest: oldest.map(Stamp::from_seconds), last_error: column(row, 2)? })
    }

    async fn are_here(&self, space: Namespace, names: Vec<String>) -> Result<Vec<KnownHere>> {
        let keys: Vec<EntryKey> = names
            .iter()
            .map(|name| EntryKey::parse(space, name.as_bytes()).map_err(|_| damaged("a listed name")))
            .collect::<Result<_>>()?;
        let stored: Vec<StoredName<'_>> = keys.iter().map(StoredName::new).collect();
        let names: Vec<&str> = stored.iter().map(|name| name.name).collect();
        let hashes: Vec<&[u8]> = stored.iter().map(|name| name.rest_hash.as_slice()).collect();
        let answer = self.database.read(&ARE_HERE, &[&namespace(space), &names, &hashes]).await?;
        let known = |row| {
            let deleted = column::<Option<i64>>(row, 1)?.map(Stamp::from_seconds);
            let telling: Option<&[u8]> = column(row, 2)?;
            let telling = telling.map(|digest| Digest::from_slice(digest).ok_or_else(|| damaged("length of a digest")));
            Ok(KnownHere { is_here: column(row, 0)?, deleted, telling: telling.transpose()? })
        };
        answer.iter().map(known).collect()
    }

    async fn forget_marks(&self, rows: usize) -> Result<bool> {
        let answer = self.database.write(Again::Harmless, &FORGET_MARKS, &[&limit(rows)]).await?;
        let forgotten: i64 = column(answer.first().ok_or_else(|| damaged("no answer"))?, 0)?;
        Ok(forgotten >= limit(rows))
    }

    async fn count_tombstones(&self) -> Result<u64> {
        let answer = self.database.read(&COUNT_TOMBSTONES, &[]).await?;
        unsigned(column(answer.first().ok_or_else(|| damaged("no answer"))?, 0)?)
    }

    async fn forget_tombstones(&self, rows: usize) -> Result<bool> {
        let answer = self.database.write(Again::Harmless, &FORGET, &[&limit(rows)]).await?;
        let forgotten: i64 = column(answer.first().ok_or_else(|| damaged("no answer"))?, 0)?;
        Ok(forgotten >= limit(rows))
    }
}

fn attempts(number: i32) -> Result<u32> {
    u32::try_from(number).map_err(|_| damaged("negative number"))
}

fn milliseconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}
