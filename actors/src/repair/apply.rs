//! Doing what was decided.

use futures_util::{StreamExt, TryStreamExt, stream};

use super::{Action, Repairer, stored};
use crate::failpoint::{self, Point};
use crate::model::{BlobKey, Digest, EntryKey, Result};
use crate::store::meta::{NewIntent, SetBlob, SetOutcome};

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
    while let Some(first) = rest.first() {
        let run = rest.iter().take_while(|action| is_alike(first, action)).count().min(RECOUNT_ROWS);
        let (alike, others) = rest.split_at(run);
        rest = others;
        if matches!(first, Action::Recount { .. }) {
            let digests = alike.iter().filter_map(|action| match action {
                Action::Recount { digest } => Some(*digest),
                _ => None,
            });
            with.stores.metadata.recount(digests.collect()).await?;
            applied.extend(alike.iter().map(|_| Applied::Done));
            continue;
        }
        let outcomes = stream::iter(alike).map(|action| one(with, action)).buffered(with.concurrency.max(1));
        applied.extend(outcomes.try_collect::<Vec<_>>().await?);
    }
    Ok(applied)
}

/// Whether two actions may be done at once, or together.
fn is_alike(one: &Action, other: &Action) -> bool {
    std::mem::discriminant(one) == std::mem::discriminant(other)
}

async fn one(with: &Repairer<'_>, action: &Action) -> Result<Applied> {
    let metadata = &with.stores.metadata;
    match action {
        Action::Adopt { blob, logical_size } => {
            let reason = String::new();
            set(with, SetBlob { blob: *blob, logical_size: *logical_size, expected: None, intent: None, reason }).await
        }
        Action::Switch { from, blob, logical_size, reason } => {
            let (expected, reason) = (*from, (*reason).to_owned());
            set(with, SetBlob { blob: *blob, logical_size: *logical_size, expected, intent: None, reason }).await
        }
        Action::Refetch { digest, from, name, reason } => refetch(with, *digest, *from, name, reason).await,
        Action::Quarantine { key, reason } => {
            failpoint::hit(Point::RepairBeforeQuarantine).await?;
            metadata.quarantine(*key, (*reason).to_owned()).await?;
            failpoint::hit(Point::RepairAfterQuarantine).await?;
            Ok(Applied::Done)
        }
        Action::Recount { digest } => {
            metadata.recount(vec![*digest]).await?;
            Ok(Applied::Done)
        }
        Action::Totals => {
            failpoint::hit(Point::RepairBeforeTotals).await?;
            metadata.recount_totals().await?;
            Ok(Applied::Done)
        }
    }
}

async fn set(with: &Repairer<'_>, set: SetBlob) -> Result<Applied> {
    Ok(match with.stores.metadata.set_blob(set).await? {
        SetOutcome::Set => {
            failpoint::hit(Point::RepairAfterSwitch).await?;
            Applied::Done
        }
        SetOutcome::Moved => Applied::Skipped("the content was changed meanwhile"),
        SetOutcome::Refused => Applied::Skipped("the object was given up meanwhile"),
    })
}

/// Like an upload: an intent, the object under a name of its own, the commit.
async fn refetch(
    with: &Repairer<'_>,
    digest: Digest,
    from: Option<BlobKey>,
    name: &EntryKey,
    reason: &str,
) -> Result<Applied> {
    let Some(fallback) = with.fallback else { return Ok(Applied::Skipped("there is no fallback")) };
    let body = fallback.fetch(name).await?.filter(|body| body.digest == digest);
    let Some(body) = body else { return Ok(Applied::Skipped("the fallback has it no more")) };
    let intent = NewIntent { instance: with.instance.clone(), layout: with.layout };
    let (intent, key) = with.stores.metadata.begin_replacement(digest, intent).await?;
    with.stores.contents.put(&key, &body.bytes, &body.info()).await?;
    failpoint::hit(Point::RepairAfterObject).await?;
    let (blob, logical_size) = (stored(key, &body.info()), body.logical_size);
    let reason = reason.to_owned();
    set(with, SetBlob { blob, logical_size, expected: from, intent: Some(intent), reason }).await
}
