//! Transactions that put right what is wrong.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, params};

use super::clean::{add_condemned, read_digest};
use super::known::{former_object, is_unreadable};
use super::put::{
    clear_damaged, execute, insert_content, insert_representation, logical_size, note_damaged, references, restore,
    take_intent,
};
use super::read::{blob_key, raw_blob};
use super::writer::{TotalsChange, Write};
use super::{SqliteStore, audit, damaged, sql_error, to_sql};
use crate::model::{BlobKey, Digest, EntryKey, Namespace, Result, Stamp, StoredBlob};
use crate::store::meta::care::HELD;
use crate::store::meta::{
    Audit, GENERATION_OF_ORPHAN_MAX, IntentId, MetaCare, NamedContent, NewIntent, Quarantined, Restored, SetBlob,
    SetOutcome,
};

#[async_trait]
impl MetaCare for SqliteStore {
    async fn audit(&self, findings_max: usize) -> Result<Audit> {
        self.read(move |connection| audit::audit(connection, findings_max)).await
    }

    async fn holders(&self, digests: Vec<Digest>, each_max: usize) -> Result<Vec<(Digest, EntryKey)>> {
        self.read(move |connection| holders(connection, &digests, each_max)).await
    }

    async fn names(&self, after: Option<EntryKey>, rows: usize) -> Result<Vec<NamedContent>> {
        self.read(move |connection| names(connection, after.as_ref(), rows)).await
    }

    async fn restore(&self, key: EntryKey, stamp: Stamp, digest: Digest) -> Result<Restored> {
        self.writer.run(move |write| restore(write, &key, stamp, digest)).await
    }

    async fn references(&self, digests: Vec<Digest>) -> Result<Vec<u64>> {
        let count = |connection: &Connection, digest| references(connection, digest).map(i64::unsigned_abs);
        self.read(move |connection| digests.into_iter().map(|digest| count(connection, digest)).collect()).await
    }

    async fn recount(&self, digests: Vec<Digest>) -> Result<()> {
        self.writer.run(move |write| recount(write, &digests)).await
    }

    async fn recount_totals(&self) -> Result<()> {
        self.writer.run(recount_totals).await
    }

    async fn begin_replacement(&self, digest: Digest, intent: NewIntent) -> Result<(IntentId, BlobKey)> {
        self.writer.run(move |write| begin_replacement(write, digest, &intent)).await
    }

    async fn set_blob(&self, set: SetBlob) -> Result<SetOutcome> {
        self.writer.run(move |write| set_blob(write, &set)).await
    }

    async fn release_held(&self, rows: usize) -> Result<u64> {
        self.writer.run(move |write| release_held(write, rows)).await
    }

    async fn quarantine(&self, key: BlobKey, reason: String) -> Result<()> {
        self.writer.run(move |write| quarantine(write, key, &reason)).await
    }

    async fn list_quarantined(&self, after: Option<BlobKey>, rows: usize) -> Result<Vec<Quarantined>> {
        self.read(move |connection| list_quarantined(connection, after, rows)).await
    }

    async fn lift_quarantine(&self, key: BlobKey) -> Result<bool> {
        self.writer.run(move |write| lift_quarantine(write, key)).await
    }

    async fn condemn_quarantined(&self, key: BlobKey, instead: BlobKey) -> Result<bool> {
        self.writer.run(move |write| condemn_quarantined(write, key, instead)).await
    }

    async fn spend_generation(&self, generation: u64) -> Result<()> {
        self.writer.run(move |write| spend_generation(write, generation)).await
    }
}

fn key(namespace: i64, name: &str) -> Result<EntryKey> {
    let namespace = u32::try_from(namespace).map_err(|_| damaged("a namespace"))?;
    let parsed = EntryKey::parse(Namespace::from_id(namespace), name.as_bytes());
    parsed.map_err(|error| damaged("a name").with_source(error))
}

fn holders(connection: &Connection, digests: &[Digest], each_max: usize) -> Result<Vec<(Digest, EntryKey)>> {
    let failed = |error| sql_error("read the database", error);
    let sql = "SELECT namespace, name FROM entries WHERE digest = ?1 LIMIT ?2";
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    let mut found = Vec::new();
    for digest in digests {
        let row = params![digest.as_bytes(), to_sql(each_max as u64)?];
        let names = statement.query_map(row, |row| Ok((row.get(0)?, row.get::<_, String>(1)?))).map_err(failed)?;
        for name in names {
            let (namespace, name) = name.map_err(failed)?;
            found.push((*digest, key(namespace, &name)?));
        }
    }
    Ok(found)
}

/// Namespace, name, version, digest and size as the database has them.
type RawNamed = (i64, String, i64, Vec<u8>, Option<i64>);

fn names(connection: &Connection, after: Option<&EntryKey>, rows: usize) -> Result<Vec<NamedContent>> {
    let failed = |error| sql_error("read the database", error);
    let sql = "SELECT e.namespace, e.name, e.modified, e.digest, c.logical_size
        FROM entries e LEFT JOIN contents c ON c.digest = e.digest
        WHERE (e.namespace, e.name) > (?1, ?2) ORDER BY e.namespace, e.name LIMIT ?3";
    let (namespace, name) = after.map_or((-1, ""), |key| (i64::from(key.namespace().id()), key.name()));
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    let found = statement.query_map(params![namespace, name, to_sql(rows as u64)?], |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
    });
    let named = |row: rusqlite::Result<RawNamed>| {
        let (namespace, name, modified, digest, size) = row.map_err(failed)?;
        Ok(NamedContent {
            key: key(namespace, &name)?,
            stamp: Stamp::from_seconds(modified),
            digest: read_digest(&digest)?,
            logical_size: size.map(u64::try_from).transpose().map_err(|_| damaged("negative size"))?,
        })
    };
    found.map_err(failed)?.map(named).collect()
}

fn recount(write: &Write<'_>, digests: &[Digest]) -> Result<()> {
    let now = Stamp::now().seconds();
    for digest in digests {
        let sql = "UPDATE contents SET refs = ?2, unused_since = CASE WHEN ?2 = 0 THEN coalesce(unused_since, ?3) END
            WHERE digest = ?1 AND refs <> ?2";
        execute(write, sql, params![digest.as_bytes(), references(write, *digest)?, now])?;
    }
    Ok(())
}

fn recount_totals(write: &Write<'_>) -> Result<()> {
    let sql = "UPDATE state SET entries = (SELECT count(*) FROM entries), contents = (SELECT count(*) FROM contents),
        logical_bytes = (SELECT coalesce(sum(c.logical_size), 0) FROM entries e JOIN contents c ON c.digest = e.digest),
        stored_bytes = (SELECT coalesce(sum(r.stored_size), 0)
            FROM contents c JOIN representations r ON r.digest = c.digest) WHERE id = 1";
    execute(write, sql, [])?;
    // What earlier jobs of the same commit changed was just counted.
    write.forget_totals();
    Ok(())
}

fn begin_replacement(write: &Write<'_>, digest: Digest, intent: &NewIntent) -> Result<(IntentId, BlobKey)> {
    for table in ["representations", "quarantined"] {
        let sql = format!("SELECT max(generation) FROM {table} WHERE digest = ?1");
        let highest = write.query_row(&sql, [digest.as_bytes()], |row| row.get::<_, Option<i64>>(0));
        let highest = highest.map_err(|error| sql_error("read the database", error))?.map(u64::try_from);
        // A damaged number is not to use up all others.
        if let Some(Ok(highest @ ..=BlobKey::GENERATION_MAX)) = highest {
            spend_generation(write, highest)?;
        }
    }
    super::put::make_intent(write, digest, intent)
}

fn set_blob(write: &Write<'_>, set: &SetBlob) -> Result<SetOutcome> {
    let key = set.blob.key;
    let digest = key.digest;
    let size = to_sql(set.logical_size)?;
    let known = logical_size(write, digest)?;
    // Rows that cannot be read are made anew: whoever repairs knows of no object there, or of the one they still name.
    let is_unreadable = is_unreadable(write, digest)?;
    let former = former_object(write, digest)?;
    let former_key = former.and_then(|former| former.key);
    let old = if is_unreadable { None } else { representation(write, digest)? };
    if known == Some(size) && old == Some(set.blob) {
        if set.expected == Some(key) {
            // It proved to be good after all.
            lift(write, key)?;
        }
        return Ok(SetOutcome::Set);
    }
    let is_as_expected = match set.expected {
        None => old.is_none(),
        expected => former_key == expected,
    };
    if !is_as_expected {
        return Ok(SetOutcome::Moved);
    }
    if key.generation > GENERATION_OF_ORPHAN_MAX {
        return Ok(SetOutcome::Refused);
    }
    let is_its_own = former_key == Some(key);
    if is_among(write, "condemned", key)? || (is_among(write, "quarantined", key)? && !is_its_own) {
        return Ok(SetOutcome::Refused);
    }
    match set.intent {
        Some(intent) if !take_intent(write, intent, key)? => return Ok(SetOutcome::Refused),
        Some(_) => {}
        // Otherwise the cleaner would take the object for that of an upload that was given up.
        None => {
            let sql = "DELETE FROM intents WHERE digest = ?1 AND generation = ?2";
            execute(write, sql, params![digest.as_bytes(), to_sql(key.generation)?])?;
        }
    }
    spend_generation(write, key.generation)?;
    match former_key {
        Some(former) if former != key => quarantine(write, former, &set.reason)?,
        // It proved to be good after all.
        _ => lift(write, key)?,
    }
    if known.is_some() {
        let sql = "UPDATE contents SET logical_size = ?2 WHERE digest = ?1 AND logical_size <> ?2";
        execute(write, sql, params![digest.as_bytes(), size])?;
    } else {
        // A count that is too low until it is put right could have the content cleaned away meanwhile. One without names is
        // held.
        let references = references(write, digest)?.max(to_sql(set.references)?);
        insert_content(write, digest, size, references, HELD)?;
    }
    let stored_size = insert_representation(write, &set.blob)?;
    // A size that cannot be was never counted: the totals then have what is true already.
    let before = match former {
        Some(former) if known.is_some() => former.counted_size.unwrap_or(stored_size),
        _ => 0,
    };
    let contents = i64::from(known.is_none());
    let change = TotalsChange { contents, stored_bytes: stored_size - before, ..TotalsChange::default() };
    write.add_to_totals(change);
    Ok(SetOutcome::Set)
}

fn release_held(write: &Write<'_>, rows: usize) -> Result<u64> {
    let sql = "UPDATE contents SET unused_since = ?1
        WHERE digest IN (SELECT digest FROM contents WHERE unused_since = ?2 LIMIT ?3)";
    let released = execute(write, sql, params![Stamp::now().seconds(), HELD.seconds(), to_sql(rows as u64)?])?;
    Ok(released as u64)
}

pub(super) fn representation(connection: &Connection, digest: Digest) -> Result<Option<StoredBlob>> {
    let failed = |error| sql_error("read the database", error);
    let sql = "SELECT generation, key_depth, encoding, stored_size, stored_hash FROM representations WHERE digest = ?1";
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    let row = statement.query_row([digest.as_bytes()], |row| raw_blob(row, 0)).optional().map_err(failed)?;
    row.map(|raw| raw.into_blob(digest)).transpose()
}

fn is_among(connection: &Connection, table: &str, key: BlobKey) -> Result<bool> {
    let failed = |error| sql_error("read the database", error);
    let sql = format!("SELECT EXISTS (SELECT 1 FROM {table} WHERE digest = ?1 AND generation = ?2)");
    let mut statement = connection.prepare_cached(&sql).map_err(failed)?;
    let row = params![key.digest.as_bytes(), to_sql(key.generation)?];
    statement.query_row(row, |row| row.get(0)).map_err(failed)
}

pub(super) fn quarantine(connection: &Connection, key: BlobKey, reason: &str) -> Result<()> {
    if key.generation > GENERATION_OF_ORPHAN_MAX {
        return Ok(());
    }
    let sql = "INSERT INTO quarantined (digest, generation, key_depth, reason, quarantined_at)
        VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING";
    let (generation, now) = (to_sql(key.generation)?, Stamp::now().seconds());
    execute(connection, sql, params![key.digest.as_bytes(), generation, key.layout.depth(), reason, now])?;
    note_damaged(connection, key)?;
    spend_generation(connection, key.generation)
}

fn lift(connection: &Connection, key: BlobKey) -> Result<()> {
    lift_quarantine(connection, key).map(drop)
}

fn list_quarantined(connection: &Connection, after: Option<BlobKey>, rows: usize) -> Result<Vec<Quarantined>> {
    let failed = |error| sql_error("read the database", error);
    let sql = "SELECT digest, generation, key_depth, reason, quarantined_at FROM quarantined
        WHERE (digest, generation) > (?1, ?2) ORDER BY digest, generation LIMIT ?3";
    let (digest, generation) = match &after {
        Some(key) => (key.digest.as_bytes().as_slice(), to_sql(key.generation)?),
        None => ([].as_slice(), -1),
    };
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    let found = statement.query_map(params![digest, generation, to_sql(rows as u64)?], |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
    });
    let quarantined = |row: rusqlite::Result<(Vec<u8>, i64, i64, String, i64)>| {
        let (digest, generation, key_depth, reason, since) = row.map_err(failed)?;
        let key = blob_key(read_digest(&digest)?, generation, key_depth)?;
        Ok(Quarantined { key, reason, since: Stamp::from_seconds(since) })
    };
    found.map_err(failed)?.map(quarantined).collect()
}

fn lift_quarantine(connection: &Connection, key: BlobKey) -> Result<bool> {
    clear_damaged(connection, key)?;
    let sql = "DELETE FROM quarantined WHERE digest = ?1 AND generation = ?2";
    Ok(execute(connection, sql, params![key.digest.as_bytes(), to_sql(key.generation)?])? == 1)
}

fn condemn_quarantined(write: &Write<'_>, key: BlobKey, instead: BlobKey) -> Result<bool> {
    let digest = key.digest;
    let is_spare = instead.digest == digest && instead.generation != key.generation;
    let current = representation(write, digest)?.map(|blob| blob.key);
    let is_content = logical_size(write, digest)?.is_some() && current == Some(instead);
    if !is_spare || !is_content || is_among(write, "quarantined", instead)? || !lift_quarantine(write, key)? {
        return Ok(false);
    }
    if !is_among(write, "condemned", key)? {
        add_condemned(write, key)?;
    }
    Ok(true)
}

fn spend_generation(connection: &Connection, generation: u64) -> Result<()> {
    let sql = "UPDATE state SET generation_floor = ?1 WHERE id = 1 AND generation_floor < ?1";
    execute(connection, sql, [to_sql(generation.min(GENERATION_OF_ORPHAN_MAX))? + 1]).map(drop)
}
