//! Contents from objects, when the database is lost.

use futures_util::{StreamExt, stream};
use serde_json::{Value, json};

use super::plan::prove;
use super::{Repairer, stored};
use crate::failpoint::{self, Point};
use crate::model::{BlobInfo, BlobKey, Error, Kind, Recipe, Result};
use crate::patience::patiently;
use crate::store::meta::{GENERATION_OF_ORPHAN_MAX, SetBlob, SetOutcome, StoredContent};
use crate::store::tie;
use crate::verify::{Phase, content_now};

/// Names asked for at once.
const PAGE_NAMES: usize = 1000;
/// Objects that are adopted at once by their own word: they share commits.
const TRUSTED: usize = 128;
/// Objects that are told by name.
const LISTED_MAX: usize = 1000;

/// What became of the objects.
#[derive(Clone, Default, Debug)]
pub struct Rebuilt {
    /// Objects that were looked at.
    pub objects: u64,
    /// Contents that are known now.
    pub adopted: u64,
    /// Further objects of contents that are known.
    pub superfluous: u64,
    /// Objects that are not what they should be, now in quarantine.
    pub refused: u64,
    /// The first of them.
    pub first_refused: Vec<BlobKey>,
    /// Objects that had been given up before: they are left to the cleaner, or stay in quarantine.
    pub given_up: u64,
    /// Names that are not ours.
    pub strangers: u64,
}

impl Rebuilt {
    /// An object of a report.
    pub fn to_json(&self) -> Value {
        let refused: Vec<String> = self.first_refused.iter().map(BlobKey::to_string).collect();
        json!({
            "format": 1, "objects": self.objects, "adopted": self.adopted, "superfluous": self.superfluous,
            "quarantined": self.refused, "first_quarantined": refused, "given_up": self.given_up,
            "strangers": self.strangers,
        })
    }
}

enum Outcome {
    Adopted,
    Superfluous,
    Refused(BlobKey),
    GivenUp,
}

/// Makes a content known for every object that describes itself, or whose bytes prove what it is; with `deep` all
/// objects have to prove it. May be repeated after an interruption. A database with names is refused: that is what
/// repairs are for. The objects are this database's from then on.
pub async fn rebuild(with: &Repairer<'_>, deep: bool) -> Result<Rebuilt> {
    let metadata = &with.stores.metadata;
    if metadata.totals().await?.entries > 0 {
        let why = "the database has names: it is not lost; repair it without rebuilding";
        return Err(Error::new(Kind::Invalid, why));
    }
    tie::take_over(metadata.as_ref(), with.stores.contents.as_ref()).await?;
    failpoint::hit(Point::RebuildAfterTakeOver).await?;
    with.progress.enter(Phase::Contents);
    let concurrency = if deep { with.concurrency.max(1) } else { with.concurrency.max(TRUSTED) };
    let (mut rebuilt, mut after, mut bytes) = (Rebuilt::default(), None, 0);
    let mut highest = None;
    loop {
        let mut page = patiently(async || with.stores.contents.list(after.as_deref(), PAGE_NAMES).await).await?;
        let listed = page.blobs.len();
        page.blobs.retain(|(key, _)| key.generation <= GENERATION_OF_ORPHAN_MAX);
        rebuilt.strangers += (page.strangers.len() + listed - page.blobs.len()) as u64;
        bytes += page.blobs.iter().map(|(_, size)| size).sum::<u64>();
        // Whatever became of the uploads of the former database: no later one uses their names.
        let in_page = page.blobs.iter().map(|(key, _)| key.generation).max();
        if in_page > highest {
            highest = in_page;
            patiently(async || metadata.spend_generation(highest.unwrap_or_default()).await).await?;
        }
        let mut outcomes =
            stream::iter(page.blobs).map(|(key, size)| adopt(with, key, size, deep)).buffered(concurrency);
        while let Some(outcome) = outcomes.next().await {
            rebuilt.objects += 1;
            match outcome? {
                Outcome::Adopted => rebuilt.adopted += 1,
                Outcome::Superfluous => rebuilt.superfluous += 1,
                Outcome::GivenUp => rebuilt.given_up += 1,
                Outcome::Refused(key) => {
                    rebuilt.refused += 1;
                    if rebuilt.first_refused.len() < LISTED_MAX {
                        rebuilt.first_refused.push(key);
                    }
                }
            }
        }
        with.progress.advance(rebuilt.objects, bytes);
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(rebuilt),
        }
    }
}

async fn adopt(with: &Repairer<'_>, key: BlobKey, size: u64, deep: bool) -> Result<Outcome> {
    let metadata = &with.stores.metadata;
    let Some(info) = describe(with, key, size, deep).await? else {
        let reason = "not what it should be, found while rebuilding";
        patiently(async || metadata.quarantine(key, reason.to_owned()).await).await?;
        return Ok(Outcome::Refused(key));
    };
    let (blob, logical_size) = (stored(key, &info), info.logical_size);
    // There are no names.
    let set = SetBlob { blob, logical_size, expected: None, intent: None, references: 0, reason: String::new() };
    let outcome = patiently(async || metadata.set_blob(set.clone()).await).await?;
    failpoint::hit(Point::RebuildAfterContent).await?;
    match outcome {
        SetOutcome::Set => Ok(Outcome::Adopted),
        // What is known was proven.
        SetOutcome::Moved if deep => Ok(Outcome::Superfluous),
        SetOutcome::Moved => choose(with, key, size).await,
        SetOutcome::Refused => Ok(Outcome::GivenUp),
    }
}

/// Another object of the content was taken at its word. One of the two may be there because the other one was damaged.
async fn choose(with: &Repairer<'_>, key: BlobKey, size: u64) -> Result<Outcome> {
    let metadata = &with.stores.metadata;
    let Some(StoredContent { recipe: Recipe::Whole(known), .. }) = content_now(with.stores, key.digest).await? else {
        return Ok(Outcome::Superfluous);
    };
    let proven = describe(with, known.key, known.stored_size, true).await?;
    if proven.is_some_and(|info| stored(known.key, &info) == known) {
        return Ok(Outcome::Superfluous);
    }
    let Some(info) = describe(with, key, size, true).await? else { return Ok(Outcome::Superfluous) };
    let (blob, logical_size) = (stored(key, &info), info.logical_size);
    let reason = "not what it should be, found while rebuilding".to_owned();
    let expected = Some(known.key);
    let set = SetBlob { blob, logical_size, expected, intent: None, references: 0, reason };
    Ok(match patiently(async || metadata.set_blob(set.clone()).await).await? {
        SetOutcome::Set => Outcome::Adopted,
        SetOutcome::Moved | SetOutcome::Refused => Outcome::Superfluous,
    })
}

/// What an object is: by its own word, or by its bytes.
async fn describe(with: &Repairer<'_>, key: BlobKey, size: u64, deep: bool) -> Result<Option<BlobInfo>> {
    let contents = with.stores.contents.as_ref();
    if !deep {
        match patiently(async || contents.stat(&key).await).await {
            Ok(Some(info)) if info.digest == key.digest && info.stored_size == size => return Ok(Some(info)),
            Ok(_) => {}
            Err(error) if error.kind() == Kind::Corrupt => {}
            Err(error) => return Err(error),
        }
    }
    prove(with, key).await
}
