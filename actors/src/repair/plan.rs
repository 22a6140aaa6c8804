//! What is to be done: looked at, decided, nothing changed yet.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt, stream};
use serde_json::{Value, json};

use super::{Repairer, Source, stored};
use crate::model::{BlobInfo, BlobKey, Digest, EntryKey, Kind, Result, StoredBlob};
use crate::patience::patiently;
use crate::store::meta::{Finding, GENERATION_OF_ORPHAN_MAX};
use crate::verify::{
    Damage, DamageKind, Phase, Read, Tools, VerifyReport, VerifySettings, VerifyState, before, content_now, read,
    unknown, verify,
};

/// Names asked for at once.
const PAGE_NAMES: usize = 1000;
/// Names of a content that a fallback is asked for.
const NAMES_TRIED_MAX: usize = 5;

/// One step of a repair.
#[derive(Clone, PartialEq, Debug)]
pub enum Action {
    /// An object that nothing knows of holds a content that nothing knows of: the content becomes known.
    Adopt {
        /// The object.
        blob: StoredBlob,
        /// The size of the content.
        logical_size: u64,
    },
    /// Another object of the content is whole (or the same one, described wrong): it becomes the content's.
    Switch {
        /// The one that was.
        from: Option<BlobKey>,
        /// The one that is whole.
        blob: StoredBlob,
        /// The size of the content.
        logical_size: u64,
        /// Whether it is in quarantine, which it leaves first.
        is_set_aside: bool,
        /// What is wrong.
        reason: &'static str,
    },
    /// A fallback has the content: it is stored anew.
    Refetch {
        /// The content.
        digest: Digest,
        /// The object that was.
        from: Option<BlobKey>,
        /// Where.
        source: Source,
        /// What is wrong.
        reason: &'static str,
    },
    /// There is no whole object to be had: this one is kept as it is.
    Quarantine {
        /// The object.
        key: BlobKey,
        /// What is wrong.
        reason: &'static str,
    },
    /// There is no whole object to be had, and none at all where it should be: the next upload of the content is stored.
    Await {
        /// The object that is not there.
        key: BlobKey,
        /// What is wrong.
        reason: &'static str,
    },
    /// The object is whole, though it was found damaged before: it is taken for good again.
    Clear {
        /// The object.
        key: BlobKey,
    },
    /// References are counted anew.
    Recount {
        /// The content.
        digest: Digest,
    },
    /// Totals are counted anew.
    Totals,
}

impl Action {
    /// The content that it is about, when it is about one.
    pub(super) fn digest(&self) -> Option<Digest> {
        match self {
            Self::Adopt { blob, .. } | Self::Switch { blob, .. } => Some(blob.key.digest),
            Self::Refetch { digest, .. } | Self::Recount { digest } => Some(*digest),
            Self::Quarantine { key, .. } | Self::Await { key, .. } | Self::Clear { key } => Some(key.digest),
            Self::Totals => None,
        }
    }

    /// The action as an object of a report.
    pub fn to_json(&self) -> Value {
        let name = |key: &Option<BlobKey>| key.map(|key| key.to_string());
        match self {
            Self::Adopt { blob, logical_size } => {
                json!({ "action": "adopt", "object": blob.key.to_string(), "logical_size": logical_size })
            }
            Self::Switch { from, blob, is_set_aside, reason, .. } => json!({
                "action": "switch", "from": name(from), "to": blob.key.to_string(), "from_quarantine": is_set_aside,
                "reason": reason,
            }),
            Self::Refetch { digest, from, source, reason } => json!({
                "action": "refetch", "digest": digest.to_string(), "from": name(from), "source": source.to_json(),
                "reason": reason,
            }),
            Self::Quarantine { key, reason } => {
                json!({ "action": "quarantine", "object": key.to_string(), "reason": reason })
            }
            Self::Await { key, reason } => json!({ "action": "await", "object": key.to_string(), "reason": reason }),
            Self::Clear { key } => json!({ "action": "clear", "object": key.to_string() }),
            Self::Recount { digest } => json!({ "action": "recount", "digest": digest.to_string() }),
            Self::Totals => json!({ "action": "totals" }),
        }
    }
}

/// What is wrong and what is to be done about it.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What was found.
    pub found: VerifyReport,
    /// What is to be done, in this order.
    pub actions: Vec<Action>,
    /// What cannot be put right.
    pub lost: Vec<Damage>,
    /// Objects that the plan left off, as it has no room for more to adopt: the next one takes them up. Those behind the
    /// last one with room were not read.
    pub left_off: u64,
}

impl Plan {
    /// Whether there is more to do than the plan tells.
    pub fn is_partial(&self) -> bool {
        self.left_off > 0 || self.found.damages_left_off > 0 || self.found.cleared_left_off > 0
    }
}

/// A content whose bytes cannot be read.
struct Loss {
    from: Option<BlobKey>,
    damage: Damage,
    candidates: Vec<BlobKey>,
}

/// Looks the store over and decides.
pub async fn plan(with: &Repairer<'_>, deep: bool) -> Result<Plan> {
    let mut save = |_: &VerifyState| Ok(());
    let tools = Tools { examiner: with.examiner, progress: with.progress, save: &mut save };
    let settings = VerifySettings { deep, concurrency: with.concurrency };
    let found = verify(with.stores, &settings, VerifyState::default(), tools).await?;
    with.progress.enter(Phase::Orphans);
    let mut losses = losses(&found.damages);
    let (mut actions, left_off) = objects(with, &mut losses).await?;
    let (mut lost, mut recount) = (Vec::new(), BTreeSet::new());
    with.progress.enter(Phase::Losses);
    for (number, (digest, loss)) in losses.iter().enumerate() {
        with.progress.step(number as u64, losses.len() as u64);
        match decide(with, *digest, loss).await? {
            Some(action @ (Action::Quarantine { .. } | Action::Await { .. })) => {
                actions.push(action);
                lost.push(loss.damage.clone());
            }
            Some(action) => {
                actions.push(action);
                recount.insert(*digest);
            }
            None => lost.push(loss.damage.clone()),
        }
    }
    // Nobody knows what was there.
    let unreadable = found.damages.iter().filter(|damage| damage.kind == DamageKind::UnreadableRow);
    lost.extend(unreadable.filter(|damage| lost_content(damage).is_none()).cloned());
    actions.extend(found.cleared.iter().map(|key| Action::Clear { key: *key }));
    let wrong = found.damages.iter().filter(|damage| !damage.is_loss());
    recount.extend(wrong.filter(|damage| matches!(damage.kind, DamageKind::Metadata(_))).map(|damage| damage.digest));
    actions.extend(recount.into_iter().map(|digest| Action::Recount { digest }));
    let is_total_wrong = found.damages.iter().any(|damage| matches!(damage.kind, DamageKind::Totals { .. }));
    let moves_totals =
        |action: &Action| !matches!(action, Action::Quarantine { .. } | Action::Await { .. } | Action::Clear { .. });
    let is_changed = actions.iter().any(moves_totals);
    if is_total_wrong || is_changed {
        actions.push(Action::Totals);
    }
    Ok(Plan { found, actions, lost, left_off })
}

/// Contents that cannot be read, each once.
fn losses(damages: &[Damage]) -> BTreeMap<Digest, Loss> {
    let mut losses: BTreeMap<Digest, Loss> = BTreeMap::new();
    for damage in damages {
        let Some(digest) = lost_content(damage) else { continue };
        let from = match damage.kind {
            DamageKind::Metadata(Finding::StrayRepresentation { key, .. }) => Some(key),
            _ => damage.object,
        };
        let new = || Loss { from, damage: damage.clone(), candidates: from.into_iter().collect() };
        let loss = losses.entry(digest).or_insert_with(new);
        if loss.from.is_none() && from.is_some() {
            loss.from = from;
            loss.candidates.extend(from);
        }
    }
    losses
}

/// The content that cannot be read because of the damage. Whatever its rows were: what an object holds proves itself.
fn lost_content(damage: &Damage) -> Option<Digest> {
    match &damage.row {
        Some(row) => row.digest(),
        None => damage.is_loss().then_some(damage.digest),
    }
}

/// Walks all objects: those of lost contents are candidates, those that nothing knows of may be adopted. Also returns how
/// many of these there was no room for.
async fn objects(with: &Repairer<'_>, losses: &mut BTreeMap<Digest, Loss>) -> Result<(Vec<Action>, u64)> {
    let (mut adopted, mut left_off): (BTreeMap<Digest, Action>, u64) = Default::default();
    let (mut after, mut looked_at) = (None, 0);
    loop {
        let mut page = patiently(async || with.stores.contents.list(after.as_deref(), PAGE_NAMES).await).await?;
        looked_at += page.blobs.len() as u64;
        page.blobs.retain(|(key, _)| key.generation <= GENERATION_OF_ORPHAN_MAX);
        for (key, _) in &page.blobs {
            if let Some(loss) = losses.get_mut(&key.digest)
                && !loss.candidates.contains(key)
            {
                loss.candidates.push(*key);
            }
        }
        let mut orphans: Vec<BlobKey> =
            unknown(with.stores, page.blobs).await?.into_iter().map(|(key, _)| key).collect();
        orphans.retain(|key| !losses.contains_key(&key.digest) && !adopted.contains_key(&key.digest));
        // What there is no room for is not read: the next plan does.
        let is_full = adopted.len() >= with.adopted_max;
        let proven = stream::iter(orphans).map(|key| orphan(with, key, !is_full));
        let mut proven = proven.buffered(with.concurrency.max(1));
        while let Some(found) = proven.next().await {
            match found? {
                Orphan::Whole(action) if adopted.len() < with.adopted_max => {
                    if let Some(digest) = action.digest() {
                        adopted.entry(digest).or_insert(action);
                    }
                }
                Orphan::Whole(action) if action.digest().is_some_and(|digest| adopted.contains_key(&digest)) => {}
                Orphan::Whole(_) | Orphan::Unread => left_off += 1,
                Orphan::Nothing => {}
            }
        }
        drop(proven);
        with.progress.step(looked_at, 0);
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok((adopted.into_values().collect(), left_off)),
        }
    }
}

/// An object that nothing knows of.
enum Orphan {
    /// It is to be adopted.
    Whole(Action),
    /// It may be.
    Unread,
    /// Its content is known, or it is not what it says.
    Nothing,
}

async fn orphan(with: &Repairer<'_>, key: BlobKey, is_read: bool) -> Result<Orphan> {
    if content_now(with.stores, key.digest).await?.is_some() {
        return Ok(Orphan::Nothing);
    }
    if !is_read {
        return Ok(Orphan::Unread);
    }
    Ok(prove(with, key).await?.map_or(Orphan::Nothing, |info| {
        Orphan::Whole(Action::Adopt { blob: stored(key, &info), logical_size: info.logical_size })
    }))
}

async fn decide(with: &Repairer<'_>, digest: Digest, loss: &Loss) -> Result<Option<Action>> {
    let (from, reason) = (loss.from, loss.damage.word());
    let (mut free, mut set_aside) = (Vec::new(), Vec::new());
    for key in &loss.candidates {
        // Whatever is said of the content's own object, it may prove to be good.
        if Some(*key) == from {
            free.push(*key);
        } else if !is_condemned(with, *key).await? {
            if is_set_aside(with, *key).await? { set_aside.push(*key) } else { free.push(*key) }
        }
    }
    let free = free.into_iter().map(|key| (key, false));
    for (key, is_set_aside) in free.chain(set_aside.into_iter().map(|key| (key, true))) {
        if let Some(info) = prove(with, key).await? {
            let (blob, logical_size) = (stored(key, &info), info.logical_size);
            return Ok(Some(Action::Switch { from, blob, logical_size, is_set_aside, reason }));
        }
    }
    if let Some(source) = elsewhere(with, digest).await? {
        return Ok(Some(Action::Refetch { digest, from, source, reason }));
    }
    Ok(from.map(|key| match loss.damage.kind {
        DamageKind::MissingObject => Action::Await { key, reason },
        _ => Action::Quarantine { key, reason },
    }))
}

/// Where a fallback has the content. One that fails has nothing, this time: the rest is put right all the same.
async fn elsewhere(with: &Repairer<'_>, digest: Digest) -> Result<Option<Source>> {
    if with.fallbacks.is_empty() {
        return Ok(None);
    }
    let names = with.stores.metadata.holders(vec![digest], NAMES_TRIED_MAX).await?;
    let names: Vec<EntryKey> = names.into_iter().map(|(_, name)| name).collect();
    for fallback in with.fallbacks {
        let find = async {
            for source in fallback.sources(digest, &names).await? {
                if fallback.fetch(&source).await?.is_some_and(|body| body.digest == digest) {
                    return Ok::<_, crate::model::Error>(Some(source));
                }
            }
            Ok(None)
        };
        match find.await {
            Ok(Some(source)) => return Ok(Some(source)),
            Ok(None) => {}
            Err(error) if error.kind() == Kind::Unavailable => {
                log::warn!("a fallback failed, what it has is not known digest={digest} error=\"{error}\"");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// What the object holds, if that is what it is named after.
pub(super) async fn prove(with: &Repairer<'_>, key: BlobKey) -> Result<Option<BlobInfo>> {
    Ok(match read(with.stores, with.examiner, &key).await? {
        Read::Whole(examined) => examined.describe(&key),
        Read::Nothing | Read::Unreadable | Read::Broken => None,
    })
}

/// Whether the object is about to be deleted.
async fn is_condemned(with: &Repairer<'_>, key: BlobKey) -> Result<bool> {
    let metadata = &with.stores.metadata;
    let condemned = patiently(async || metadata.list_condemned(right_before(key), 1).await).await?;
    Ok(condemned.first() == Some(&key))
}

/// Whether the object is in quarantine.
async fn is_set_aside(with: &Repairer<'_>, key: BlobKey) -> Result<bool> {
    let metadata = &with.stores.metadata;
    let quarantined = patiently(async || metadata.list_quarantined(right_before(key), 1).await).await?;
    Ok(quarantined.first().is_some_and(|object| object.key == key))
}

/// What an object comes right after in the order of digests and generations.
fn right_before(key: BlobKey) -> Option<BlobKey> {
    match key.generation.checked_sub(1) {
        Some(generation) => Some(BlobKey { generation, ..key }),
        None => before(key.digest).map(|digest| BlobKey { digest, generation: i64::MAX.cast_unsigned(), ..key }),
    }
}
