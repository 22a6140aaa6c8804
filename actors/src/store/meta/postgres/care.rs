//! Statements that put right what is wrong.

use async_trait::async_trait;
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use super::clean::{Columns, PER_TRANSACTION, limit};
use super::database::{Again, Sql};
use super::names::{StoredName, split};
use super::read::{blob_key, column, damaged, digest, unsigned};
use super::write::signed;
use super::{PostgresStore, audit};
use crate::model::{BlobKey, Digest, EntryKey, Namespace, Result, Stamp};
use crate::store::meta::{
    Audit, GENERATION_OF_ORPHAN_MAX, IntentId, MetaCare, NamedContent, NewIntent, Quarantined, Restored, SetBlob,
    SetOutcome,
};

const HOLDERS: Sql = Sql {
    text: "SELECT e.digest, e.namespace, e.name || e.rest
        FROM unnest($1) AS wanted (digest) CROSS JOIN LATERAL (
            SELECT * FROM s3dedup.entries e WHERE e.digest = wanted.digest LIMIT $2) e",
    types: &[Type::BYTEA_ARRAY, Type::INT8],
};

/// The rest of the namespace, then the namespaces after it: comparisons over all of the key's columns at once are
/// estimated at one row, and each page would read the whole table.
const NAMES: Sql = Sql {
    text: "SELECT e.namespace, e.name || e.rest, e.modified, e.digest, c.logical_size
        FROM ((SELECT * FROM s3dedup.entries
                WHERE namespace = $1 AND name >= $2 AND (name, rest) > ($2, $3) ORDER BY name, rest LIMIT $4)
            UNION ALL (SELECT * FROM s3dedup.entries
                WHERE namespace > $1 ORDER BY namespace, name, rest LIMIT $4)
            ORDER BY namespace, name, rest LIMIT $4) e
        LEFT JOIN s3dedup.contents c ON c.digest = e.digest
        ORDER BY e.namespace, e.name, e.rest",
    types: &[Type::INT4, Type::TEXT, Type::TEXT, Type::INT8],
};

const RESTORE: Sql = Sql {
    text: "SELECT s3dedup.restore($1, $2, $3, $4, $5, $6, $7)",
    types: &[Type::TIMESTAMPTZ, Type::INT4, Type::TEXT, Type::TEXT, Type::BYTEA, Type::INT8, Type::BYTEA],
};

const REFERENCES: Sql = Sql {
    text: "SELECT (SELECT count(*) FROM s3dedup.entries e WHERE e.digest = wanted.digest)
        FROM unnest($1) WITH ORDINALITY AS wanted (digest, number) ORDER BY wanted.number",
    types: &[Type::BYTEA_ARRAY],
};

const RECOUNT: Sql = Sql { text: "SELECT s3dedup.recount($1, $2)", types: &[Type::TIMESTAMPTZ, Type::BYTEA_ARRAY] };

const BEGIN_REPLACEMENT: Sql = Sql {
    text: "SELECT o_intent, o_generation FROM s3dedup.begin_replacement($1, $2, $3, $4)",
    types: &[Type::TIMESTAMPTZ, Type::BYTEA, Type::TEXT, Type::INT4],
};

const SET_BLOB: Sql = Sql {
    text: "SELECT s3dedup.set_good_blob($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    types: &[
        Type::TIMESTAMPTZ,
        Type::BYTEA,
        Type::INT8,
        Type::INT8,
        Type::INT4,
        Type::TEXT,
        Type::INT8,
        Type::BYTEA,
        Type::INT8,
        Type::INT8,
        Type::TEXT,
    ],
};

const RELEASE_HELD: Sql = Sql { text: "SELECT s3dedup.release_held($1, $2)", types: &[Type::TIMESTAMPTZ, Type::INT8] };

const QUARANTINE: Sql = Sql {
    text: "SELECT s3dedup.quarantine($1, $2, $3, $4, $5)",
    types: &[Type::TIMESTAMPTZ, Type::BYTEA, Type::INT8, Type::INT4, Type::TEXT],
};

const LIST_QUARANTINED: Sql = Sql {
    text: "SELECT digest, generation, key_depth, reason, quarantined_at FROM s3dedup.quarantined
        WHERE (digest, generation) > ($1, $2) ORDER BY digest, generation LIMIT $3",
    types: &[Type::BYTEA, Type::INT8, Type::INT8],
};

const LIFT_QUARANTINE: Sql =
    Sql { text: "SELECT s3dedup.lift_quarantine($1, $2, $3)", types: &[Type::TIMESTAMPTZ, Type::BYTEA, Type::INT8] };

const CONDEMN_QUARANTINED: Sql = Sql {
    text: "SELECT s3dedup.condemn_quarantined($1, $2, $3, $4)",
    types: &[Type::TIMESTAMPTZ, Type::BYTEA, Type::INT8, Type::INT8],
};

const SPEND_GENERATION: Sql =
    Sql { text: "SELECT s3dedup.spend_generation($1, $2)", types: &[Type::TIMESTAMPTZ, Type::INT8] };

#[async_trait]
impl MetaCare for PostgresStore {
    async fn audit(&self, findings_max: usize) -> Result<Audit> {
        audit::audit(self, findings_max).await
    }

    async fn holders(&self, digests: Vec<Digest>, each_max: usize) -> Result<Vec<(Digest, EntryKey)>> {
        let mut found = Vec::new();
        for digests in digests.chunks(PER_TRANSACTION) {
            let bytes: Vec<&[u8]> = digests.iter().map(|digest| digest.as_bytes().as_slice()).collect();
            for row in &self.database.read(&HOLDERS, &[&bytes, &limit(each_max)]).await? {
                found.push((digest(row, 0)?, key(column(row, 1)?, column(row, 2)?)?));
            }
        }
        Ok(found)
    }

    async fn names(&self, after: Option<EntryKey>, rows: usize) -> Result<Vec<NamedContent>> {
        let namespace = after.as_ref().map_or(i32::MIN, |key| super::names::namespace(key.namespace()));
        let (name, rest) = after.as_ref().map_or(("", ""), |key| split(key.name()));
        let rows = self.database.read(&NAMES, &[&namespace, &name, &rest, &limit(rows)]).await?;
        let named = |row: &Row| {
            Ok(NamedContent {
                key: key(column(row, 0)?, column(row, 1)?)?,
                stamp: Stamp::from_seconds(column(row, 2)?),
                digest: digest(row, 3)?,
                logical_size: column::<Option<i64>>(row, 4)?.map(unsigned).transpose()?,
            })
        };
        rows.iter().map(named).collect()
    }

    async fn restore(&self, key: EntryKey, stamp: Stamp, digest: Digest) -> Result<Restored> {
        let name = StoredName::new(&key);
        let (modified, digest) = (stamp.seconds(), digest.as_bytes().as_slice());
        let parameters: [&(dyn ToSql + Sync); 6] =
            [&name.namespace, &name.name, &name.rest, &name.rest_hash, &modified, &digest];
        let rows = self.database.write(Again::Harmless, &RESTORE, &parameters).await?;
        match column(rows.first().ok_or_else(|| damaged("no answer"))?, 0)? {
            "held" => Ok(Restored::Held),
            "newer" => Ok(Restored::Newer),
            "unknown" => Ok(Restored::Unknown),
            _ => Err(damaged("an unknown outcome")),
        }
    }

    async fn references(&self, digests: Vec<Digest>) -> Result<Vec<u64>> {
        let mut counts = Vec::with_capacity(digests.len());
        for digests in digests.chunks(PER_TRANSACTION) {
            let bytes: Vec<&[u8]> = digests.iter().map(|digest| digest.as_bytes().as_slice()).collect();
            for row in &self.database.read(&REFERENCES, &[&bytes]).await? {
                counts.push(unsigned(column(row, 0)?)?);
            }
        }
        Ok(counts)
    }

    async fn recount(&self, mut digests: Vec<Digest>) -> Result<()> {
        digests.sort_unstable();
        for digests in digests.chunks(PER_TRANSACTION) {
            let bytes: Vec<&[u8]> = digests.iter().map(|digest| digest.as_bytes().as_slice()).collect();
            self.database.write(Again::Harmless, &RECOUNT, &[&bytes]).await?;
        }
        Ok(())
    }

    async fn recount_totals(&self) -> Result<()> {
        audit::recount_totals(self).await
    }

    async fn begin_replacement(&self, digest: Digest, intent: NewIntent) -> Result<(IntentId, BlobKey)> {
        let bytes = digest.as_bytes().as_slice();
        let depth = i32::from(intent.layout.depth());
        // A repetition leaves an intent that nobody uses, for the cleaner.
        let parameters: [&(dyn ToSql + Sync); 3] = [&bytes, &intent.instance, &depth];
        let rows = self.database.write(Again::Harmless, &BEGIN_REPLACEMENT, &parameters).await?;
        let row = rows.first().ok_or_else(|| damaged("no answer"))?;
        Ok((IntentId(column(row, 0)?), blob_key(digest, column(row, 1)?, depth)?))
    }

    async fn set_blob(&self, set: SetBlob) -> Result<SetOutcome> {
        let SetBlob { blob, logical_size, expected, intent, reason, references: _ } = &set;
        if blob.key.generation > GENERATION_OF_ORPHAN_MAX {
            return Ok(SetOutcome::Refused);
        }
        let (bytes, hash) = (blob.key.digest.as_bytes().as_slice(), blob.stored_hash.as_bytes().as_slice());
        let (logical_size, stored_size) = (signed(*logical_size)?, signed(blob.stored_size)?);
        let (generation, depth) = (signed(blob.key.generation)?, i32::from(blob.key.layout.depth()));
        let expected = expected.map(|key| signed(key.generation)).transpose()?;
        let (intent, encoding) = (intent.map(|intent| intent.0), blob.encoding.as_str());
        let parameters: [&(dyn ToSql + Sync); 10] =
            [&bytes, &logical_size, &generation, &depth, &encoding, &stored_size, &hash, &expected, &intent, reason];
        let rows = self.database.write(Again::Harmless, &SET_BLOB, &parameters).await?;
        match column(rows.first().ok_or_else(|| damaged("no answer"))?, 0)? {
            "set" => Ok(SetOutcome::Set),
            "moved" => Ok(SetOutcome::Moved),
            "refused" => Ok(SetOutcome::Refused),
            _ => Err(damaged("an unknown outcome")),
        }
    }

    async fn release_held(&self, rows: usize) -> Result<u64> {
        let rows = self.database.write(Again::Harmless, &RELEASE_HELD, &[&limit(rows)]).await?;
        unsigned(column(rows.first().ok_or_else(|| damaged("no answer"))?, 0)?)
    }

    async fn quarantine(&self, key: BlobKey, reason: String) -> Result<()> {
        if key.generation > GENERATION_OF_ORPHAN_MAX {
            return Ok(());
        }
        let bytes = key.digest.as_bytes().as_slice();
        let (generation, depth) = (signed(key.generation)?, i32::from(key.layout.depth()));
        self.database.write(Again::Harmless, &QUARANTINE, &[&bytes, &generation, &depth, &reason]).await.map(drop)
    }

    async fn list_quarantined(&self, after: Option<BlobKey>, rows: usize) -> Result<Vec<Quarantined>> {
        let keys: Vec<BlobKey> = after.into_iter().collect();
        let Columns { digests, generations, .. } = Columns::of(&keys)?;
        let bytes: &[u8] = digests.first().copied().unwrap_or_default();
        let generation = generations.first().copied().unwrap_or(-1);
        let rows = self.database.read(&LIST_QUARANTINED, &[&bytes, &generation, &limit(rows)]).await?;
        let quarantined = |row: &Row| {
            let key = blob_key(digest(row, 0)?, column(row, 1)?, column(row, 2)?)?;
            Ok(Quarantined { key, reason: column(row, 3)?, since: Stamp::from_seconds(column(row, 4)?) })
        };
        rows.iter().map(quarantined).collect()
    }

    async fn lift_quarantine(&self, key: BlobKey) -> Result<bool> {
        let (bytes, generation) = (key.digest.as_bytes().as_slice(), signed(key.generation)?);
        // Who asks again because the first answer was lost is told that it is not there: so it is.
        let rows = self.database.write(Again::Harmless, &LIFT_QUARANTINE, &[&bytes, &generation]).await?;
        column(rows.first().ok_or_else(|| damaged("no answer"))?, 0)
    }

    async fn condemn_quarantined(&self, key: BlobKey, instead: BlobKey) -> Result<bool> {
        if key.digest != instead.digest {
            return Ok(false);
        }
        let (bytes, generation) = (key.digest.as_bytes().as_slice(), signed(key.generation)?);
        let instead = signed(instead.generation)?;
        let rows = self.database.write(Again::Harmless, &CONDEMN_QUARANTINED, &[&bytes, &generation, &instead]).await?;
        column(rows.first().ok_or_else(|| damaged("no answer"))?, 0)
    }

    async fn spend_generation(&self, generation: u64) -> Result<()> {
        self.database
            .write(Again::Harmless, &SPEND_GENERATION, &[&signed(generation.min(GENERATION_OF_ORPHAN_MAX))?])
            .await
            .map(drop)
    }
}

fn key(namespace: i32, name: &str) -> Result<EntryKey> {
    let parsed = EntryKey::parse(Namespace::from_id(namespace.cast_unsigned()), name.as_bytes());
    parsed.map_err(|error| damaged("a name").with_source(error))
}
