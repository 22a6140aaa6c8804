//! Kinds of damage, and the names they affect.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::Stores;
use crate::model::{BlobKey, Digest, EntryKey, Kind, Result};
use crate::store::meta::{Audit, Finding, Unreadable};

/// Stands for the content of what is about none.
const NO_CONTENT: Digest = Digest::from_bytes([0; 32]);

/// What is wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DamageKind {
    /// Rows contradict each other.
    Metadata(Finding),
    /// One of the totals is noted wrong.
    Totals {
        /// Which.
        total: &'static str,
        /// As it is noted.
        stored: i64,
        /// As it is counted.
        counted: i64,
    },
    /// There is no such object.
    MissingObject,
    /// The object has another size than is noted.
    WrongSize {
        /// As it is noted.
        expected: u64,
        /// As it is.
        found: u64,
    },
    /// The store answers, but does not give out the object.
    Unreadable,
    /// The object's bytes are not those of the content.
    WrongContent,
    /// A row, or a part of the database, is not what was written.
    UnreadableRow,
    /// The object holds the content, but its size or hash is noted wrong, so that it cannot be read.
    WrongDescription,
}

/// One thing that is wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Damage {
    /// What.
    pub kind: DamageKind,
    /// The content; zeros when it is about none.
    pub digest: Digest,
    /// The object, if it is about one.
    pub object: Option<BlobKey>,
    /// What cannot be read, and why, if it is about that.
    pub row: Option<Unreadable>,
    /// Names that it affects: the first ones.
    pub names: Vec<EntryKey>,
    /// Whether the names are not all.
    pub more_names: bool,
}

impl Damage {
    pub(super) fn of_object(kind: DamageKind, key: BlobKey) -> Self {
        Self { object: Some(key), ..Self::of_rows(kind, key.digest) }
    }

    fn of_rows(kind: DamageKind, digest: Digest) -> Self {
        Self { kind, digest, object: None, row: None, names: Vec::new(), more_names: false }
    }

    pub(super) fn unreadable(row: Unreadable) -> Self {
        Self { row: Some(row), ..Self::of_rows(DamageKind::UnreadableRow, NO_CONTENT) }
    }

    /// Whether it is about a content.
    fn has_content(&self) -> bool {
        !matches!(self.kind, DamageKind::Totals { .. } | DamageKind::UnreadableRow)
    }

    /// Whether a content cannot be read because of it.
    pub fn is_loss(&self) -> bool {
        match self.kind {
            DamageKind::Totals { .. } | DamageKind::UnreadableRow => false,
            DamageKind::Metadata(finding) => {
                !matches!(finding, Finding::WrongCount { .. } | Finding::NotMarkedUnused { .. })
            }
            _ => true,
        }
    }

    /// The kind as a word, for reports.
    pub fn word(&self) -> &'static str {
        match self.kind {
            DamageKind::Metadata(Finding::WrongCount { .. }) => "wrong-count",
            DamageKind::Metadata(Finding::NotMarkedUnused { .. }) => "not-marked-unused",
            DamageKind::Metadata(Finding::UnknownContent { .. }) => "unknown-content",
            DamageKind::Metadata(Finding::NoRepresentation { .. }) => "no-representation",
            DamageKind::Metadata(Finding::StrayRepresentation { .. }) => "stray-representation",
            DamageKind::Totals { .. } => "wrong-total",
            DamageKind::MissingObject => "missing-object",
            DamageKind::WrongSize { .. } => "wrong-size",
            DamageKind::Unreadable => "unreadable",
            DamageKind::WrongContent => "wrong-content",
            DamageKind::UnreadableRow => "unreadable-row",
            DamageKind::WrongDescription => "wrong-description",
        }
    }

    /// The damage as an object of a report.
    pub fn to_json(&self) -> Value {
        let mut object = json!({ "kind": self.word() });
        match self.kind {
            DamageKind::Totals { total, stored, counted } => {
                object["total"] = json!(total);
                object["stored"] = json!(stored);
                object["counted"] = json!(counted);
                return object;
            }
            DamageKind::Metadata(Finding::WrongCount { stored, counted, .. }) => {
                object["stored"] = json!(stored);
                object["counted"] = json!(counted);
            }
            DamageKind::UnreadableRow => {
                if let Some(Unreadable { place, why }) = &self.row {
                    object["row"] = json!(place);
                    object["why"] = json!(why);
                }
                return object;
            }
            DamageKind::WrongSize { expected, found } => {
                object["expected_size"] = json!(expected);
                object["found_size"] = json!(found);
            }
            _ => {}
        }
        object["digest"] = json!(self.digest.to_string());
        if let Some(key) = self.object {
            object["object"] = json!(key.to_string());
        }
        object["names"] = self.names.iter().map(EntryKey::name).collect();
        object["more_names"] = json!(self.more_names);
        object
    }
}

/// What the metadata's own look showed.
pub(super) fn of_audit(audit: &Audit) -> Vec<Damage> {
    let (stored, counted) = (audit.noted, audit.counted);
    let totals = [
        ("entries", stored.entries, counted.entries),
        ("contents", stored.contents, counted.contents),
        ("logical_bytes", stored.logical_bytes, counted.logical_bytes),
        ("stored_bytes", stored.stored_bytes, counted.stored_bytes),
    ];
    let totals = totals.into_iter().filter(|(_, stored, counted)| stored != counted);
    let totals = totals
        .map(|(total, stored, counted)| Damage::of_rows(DamageKind::Totals { total, stored, counted }, NO_CONTENT));
    // What was counted of rows that were not all reached says nothing.
    let totals = totals.filter(|_| !audit.is_cut);
    let rows = audit.findings.iter();
    let rows = rows.map(|finding| Damage::of_rows(DamageKind::Metadata(*finding), finding.digest()));
    let unreadable = audit.unreadable.iter().cloned().map(Damage::unreadable);
    totals.chain(unreadable).chain(rows).collect()
}

/// Looks up whom the damages affect.
pub(super) async fn name(stores: &Stores, damages: &mut [Damage], names_max: usize) -> Result<()> {
    let about = damages.iter().filter(|damage| damage.has_content());
    let mut digests: Vec<Digest> = about.map(|damage| damage.digest).collect();
    digests.sort_unstable();
    digests.dedup();
    let mut names: HashMap<Digest, Vec<EntryKey>> = HashMap::new();
    if !digests.is_empty() {
        // One more tells whether there are more.
        for (digest, name) in holders(stores, digests, names_max + 1).await? {
            names.entry(digest).or_default().push(name);
        }
    }
    for damage in damages.iter_mut().filter(|damage| damage.has_content()) {
        let Some(found) = names.get(&damage.digest) else { continue };
        damage.names = found.iter().take(names_max).cloned().collect();
        damage.names.sort_unstable();
        damage.more_names = found.len() > names_max;
    }
    Ok(())
}

/// Names of contents, as far as they can be read.
async fn holders(stores: &Stores, digests: Vec<Digest>, each_max: usize) -> Result<Vec<(Digest, EntryKey)>> {
    match stores.metadata.holders(digests.clone(), each_max).await {
        Err(error) if error.kind() == Kind::Corrupt => {}
        found => return found,
    }
    let mut found = Vec::new();
    for digest in digests {
        match stores.metadata.holders(vec![digest], each_max).await {
            Ok(names) => found.extend(names),
            Err(error) if error.kind() == Kind::Corrupt => {
                log::warn!("the names of a content cannot be read digest={digest} error=\"{error}\"");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}
