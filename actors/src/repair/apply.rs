//! Doing what was decided.

use futures_util::{StreamExt, TryStreamExt, stream};

use super::{Action, Repairer, Source, stored};
use crate::failpoint::{self, Point};
use crate::model::{BlobKey, Digest, Kind, Result};
use crate::patience::patiently;
use crate::store::blob::Spooled;
use crate::store::meta::{NewIntent, SetBlob, SetOutcome};
use crate::verify::Phase;

/// Contents that are counted anew in one transaction.
const RECOUNT_ROWS: usize = 10_000;

/// What became of an action.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Applied {
    /// It was done.
    Done,
    /// It was not: why.
    Skipped(&'static str),
}

/// Does everything that was decided, in its order. An error ends it; what was done stays, and a new plan goes on.
pub async fn apply(with: &Repairer<'_>, actions: &[Action]) -> Result<Vec<Applied>> {
    let mut applied = Vec::with_capacity(actions.len());
    let mut rest = actions;
    failpoint::hit(Point::RepairAfterPlan).await?;
    with.progress.enter(Phase::Repair);
    while let Some(first) = rest.first() {
        let run = rest.iter().take_while(|action| is_alike(first, action)).count().min(RECOUNT_ROWS);
        let (alike, others) = rest.split_at(run);
        rest = others;
        let digests: Vec<Digest> = alike.iter().filter_map(Action::digest).collect();
        if matches!(first, Action::Recount { .. }) {
            patiently(async || with.stores.metadata.recount(digests.clone()).await).await?;
            applied.extend(alike.iter().map(|_| Applied::Done));
            with.progress.step(applied.len() as u64, actions.len() as u64);
            continue;
        }
        // Counted before, not after: whatever cuts the repair off, no content has names that are not counted.
        let counts = match first {
            Action::Adopt { .. } | Action::Switch { .. } | Action::Refetch { .. } => {
                patiently(async || with.stores.metadata.references(digests.clone()).await).await?
            }
            _ => vec![0; alike.len()],
        };
        let counted = alike.iter().zip(counts);
        let outcomes = stream::iter(counted).map(|(action, count)| one(with, action, count));
        let mut outcomes = outcomes.buffered(with.concurrency.max(1));
        while let Some(outcome) = outcomes.try_next().await? {
            applied.push(outcome);
            with.progress.step(applied.len() as u64, actions.len() as u64);
        }
    }
    Ok(applied)
}

/// Whether two actions may be done at once, or together.
fn is_alike(one: &Action, other: &Action) -> bool {
    std::mem::discriminant(one) == std::mem::discriminant(other)
}

async fn one(with: &Repairer<'_>, action: &Action, references: u64) -> Result<Applied> {
    let metadata = &with.stores.metadata;
    match action {
        // It was whole when it was looked at. Whatever took it away meanwhile: a content is not pointed at nothing.
        Action::Adopt { blob, .. } | Action::Switch { blob, .. } if !is_there(with, &blob.key).await? => {
            Ok(Applied::Skipped("the object is gone meanwhile"))
        }
        Action::Adopt { blob, logical_size } => {
            let (blob, logical_size, reason) = (*blob, *logical_size, String::new());
            set(with, SetBlob { blob, logical_size, expected: None, intent: None, references, reason }).await
        }
        Action::Switch { from, blob, logical_size, is_set_aside, reason } => {
            if *is_set_aside {
                patiently(async || metadata.lift_quarantine(blob.key).await).await?;
            }
            let (blob, logical_size, expected, reason) = (*blob, *logical_size, *from, (*reason).to_owned());
            set(with, SetBlob { blob, logical_size, expected, intent: None, references, reason }).await
        }
        Action::Refetch { digest, from, source, reason } => {
            refetch(with, *digest, *from, source, reason, references).await
        }
        Action::Quarantine { key, reason } => {
            failpoint::hit(Point::RepairBeforeQuarantine).await?;
            patiently(async || metadata.quarantine(*key, (*reason).to_owned()).await).await?;
            failpoint::hit(Point::RepairAfterQuarantine).await?;
            Ok(Applied::Done)
        }
        Action::Await { key, .. } => {
            patiently(async || metadata.note_damaged(*key).await).await?;
            failpoint::hit(Point::RepairAfterAwait).await?;
            Ok(Applied::Done)
        }
        Action::Clear { key } => {
            patiently(async || metadata.lift_quarantine(*key).await).await?;
            failpoint::hit(Point::RepairAfterClear).await?;
            Ok(Applied::Done)
        }
        Action::Recount { digest } => {
            patiently(async || metadata.recount(vec![*digest]).await).await?;
            Ok(Applied::Done)
        }
        Action::Totals => {
            failpoint::hit(Point::RepairBeforeTotals).await?;
            patiently(async || metadata.recount_totals().await).await?;
            Ok(Applied::Done)
        }
    }
}

async fn set(with: &Repairer<'_>, set: SetBlob) -> Result<Applied> {
    failpoint::hit(Point::RepairBeforeSwitch).await?;
    Ok(match patiently(async || with.stores.metadata.set_blob(set.clone()).await).await? {
        SetOutcome::Set => {
            failpoint::hit(Point::RepairAfterSwitch).await?;
            Applied::Done
        }
        SetOutcome::Moved => Applied::Skipped("the content was changed meanwhile"),
        SetOutcome::Refused => Applied::Skipped("the object was given up meanwhile"),
    })
}

async fn is_there(with: &Repairer<'_>, key: &BlobKey) -> Result<bool> {
    match patiently(async || with.stores.contents.stat(key).await).await {
        Ok(info) => Ok(info.is_some()),
        // It does not say what it is, but that was found out.
        Err(error) if error.kind() == Kind::Corrupt => Ok(true),
        Err(error) => Err(error),
    }
}

/// What a fallback has there.
async fn fetch(with: &Repairer<'_>, source: &Source) -> Result<Option<Spooled>> {
    for fallback in with.fallbacks {
        if let Some(body) = fallback.fetch(source).await? {
            return Ok(Some(body));
        }
    }
    Ok(None)
}

/// Like an upload: an intent, the object under a name of its own, the commit.
async fn refetch(
    with: &Repairer<'_>,
    digest: Digest,
    from: Option<BlobKey>,
    source: &Source,
    reason: &str,
    references: u64,
) -> Result<Applied> {
    let body = match fetch(with, source).await {
        Ok(body) => body.filter(|body| body.digest == digest),
        Err(error) if error.kind() == Kind::Unavailable => {
            log::warn!("a fallback failed digest={digest} error=\"{error}\"");
            return Ok(Applied::Skipped("the fallback does not answer"));
        }
        Err(error) => return Err(error),
    };
    let Some(body) = body else { return Ok(Applied::Skipped("the fallback has it no more")) };
    let intent = NewIntent { instance: with.instance.clone(), layout: with.layout };
    let (intent, key) = with.stores.metadata.begin_replacement(digest, intent).await?;
    patiently(async || with.stores.contents.put(&key, &body.bytes, &body.info()).await).await?;
    failpoint::hit(Point::RepairAfterObject).await?;
    let (blob, logical_size) = (stored(key, &body.info()), body.logical_size);
    let reason = reason.to_owned();
    set(with, SetBlob { blob, logical_size, expected: from, intent: Some(intent), references, reason }).await
}
