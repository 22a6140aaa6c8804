//! Is the store whole? Nothing is changed by looking.
//!
//! First the metadata are looked over as they are at one moment. Then every content's object is looked for: in a
//! listing of the content store that is walked beside the contents, in memory that does not grow with either. With
//! `deep` every object is read, and both hashes and both sizes are computed again; without it only those that a server has
//! found missing or damaged. At last the objects that nothing
//! knows of are counted.
//!
//! Servers may go on meanwhile: what seems to be damage is looked at again, with the metadata read anew after the
//! object, and counts only when they still say the same. A backend that does not answer is an error, never damage.

mod damage;
mod examine;
mod objects;
mod orphans;
mod pace;
mod progress;
mod report;
mod state;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use tokio::sync::Semaphore;

pub use damage::{Damage, DamageKind};
pub use examine::{Examined, Examiner};
pub use orphans::Orphans;
pub(crate) use orphans::unknown;
pub use pace::Pace;
pub use progress::{Phase, Progress, Snapshot};
pub use report::VerifyReport;
pub use state::VerifyState;

use crate::failpoint::{self, Point};
use crate::model::{BlobKey, Digest, Error, Kind, Recipe, Result, StoredBlob};
use crate::patience::patiently;
use crate::store::blob::BlobStore;
use crate::store::meta::{MetaCare, StoredContent, Unreadable};

/// Contents of one page.
const PAGE_ROWS: usize = 1000;
/// Damages that are kept with what is known of them; more are only counted.
const DAMAGES_MAX: usize = 100_000;
/// Names told of each damage.
const NAMES_MAX: usize = 10;
/// Times that a content is looked at again because its metadata changed meanwhile.
const LOOKS_MAX: usize = 8;
/// Contents that are begun before those in front of them are done, for each one that is read at once: a large one is
/// not to keep the processors from the small ones behind it.
const AHEAD: usize = 4;
/// Pauses before an object that a store does not give out is asked for again.
const PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(2)];
/// Objects in a row that a store does not give out: the store is broken then rather than they.
const UNREADABLE_MAX: u64 = 10;
/// How often the caller is given the state to save.
const SAVE_EVERY: Duration = Duration::from_secs(3);

/// The two stores that belong together.
#[derive(Clone)]
pub struct Stores {
    /// Names and contents.
    pub metadata: Arc<dyn MetaCare>,
    /// Their bytes.
    pub contents: Arc<dyn BlobStore>,
}

/// How thoroughly to look.
#[derive(Clone, Debug)]
pub struct VerifySettings {
    /// Reads every object.
    pub deep: bool,
    /// Objects that are read at once.
    pub concurrency: usize,
}

/// What a run needs besides the stores.
pub struct Tools<'a> {
    /// Reads objects.
    pub examiner: &'a Examiner,
    /// Told how far it is.
    pub progress: &'a Progress,
    /// Keeps the state of an interrupted run.
    pub save: &'a mut dyn FnMut(&VerifyState) -> Result<()>,
}

/// Looks everything over; goes on from `state` when that is not new.
pub async fn verify(
    stores: &Stores,
    settings: &VerifySettings,
    state: VerifyState,
    tools: Tools<'_>,
) -> Result<VerifyReport> {
    let begun = Instant::now();
    tools.progress.enter(Phase::Metadata);
    let audit = stores.metadata.audit(DAMAGES_MAX).await?;
    let expected = |number: i64| u64::try_from(number).unwrap_or_default();
    tools.progress.expect(expected(audit.counted.contents), expected(audit.counted.stored_bytes));
    let (damages, left_off) = (Vec::new(), audit.left_off);
    let (cleared, cleared_left_off) = (Vec::new(), 0);
    let state_now = state.clone();
    let mut run =
        Run { stores, settings, tools, state: state_now, damages, left_off, cleared, cleared_left_off, unreadable: 0 };
    run.look_again(&state).await?;
    run.tools.progress.enter(Phase::Contents);
    run.contents().await?;
    run.tools.progress.enter(Phase::Orphans);
    let orphans = match orphans::find(stores, run.tools.progress).await {
        // What is known of objects cannot be read, so none can be said to be unknown.
        Err(error) if error.kind() == Kind::Corrupt => {
            let place = "what is known of objects".to_owned();
            run.note_row(Unreadable { place, why: error.to_string() });
            Orphans::default()
        }
        found => found?,
    };
    run.tools.progress.enter(Phase::Names);
    let mut damages = damage::of_audit(&audit);
    damages.append(&mut run.damages);
    match damage::name(stores, &mut damages, NAMES_MAX).await {
        // What is damaged is known; only whom it concerns cannot be read.
        Err(error) if error.kind() == Kind::Corrupt => {
            run.note_row(Unreadable { place: "names of damaged contents".to_owned(), why: error.to_string() });
            damages.append(&mut run.damages);
        }
        named => named?,
    }
    Ok(VerifyReport {
        deep: settings.deep,
        resumed: state.after.is_some(),
        contents: run.state.contents,
        stored_bytes: run.state.stored_bytes,
        names: audit.counted.entries,
        damages,
        damages_left_off: run.left_off,
        cleared: run.cleared,
        cleared_left_off: run.cleared_left_off,
        orphans,
        seconds: begun.elapsed().as_secs_f64(),
    })
}

struct Run<'a, 't> {
    stores: &'a Stores,
    settings: &'a VerifySettings,
    tools: Tools<'t>,
    state: VerifyState,
    damages: Vec<Damage>,
    left_off: u64,
    cleared: Vec<BlobKey>,
    cleared_left_off: u64,
    /// Objects in a row that could not be read.
    unreadable: u64,
}

impl Run<'_, '_> {
    /// What an interrupted run found may have been repaired since.
    async fn look_again(&mut self, former: &VerifyState) -> Result<()> {
        self.state.damaged.clear();
        for row in std::mem::take(&mut self.state.unreadable) {
            self.note_row(row);
        }
        for digest in &former.damaged {
            let Some(content) = content_now(self.stores, *digest).await? else { continue };
            let checked = check(self.stores, self.settings, self.tools.examiner, content).await?;
            self.note(checked)?;
        }
        Ok(())
    }

    async fn contents(&mut self) -> Result<()> {
        let (stores, settings, examiner) = (self.stores, self.settings, self.tools.examiner);
        let reading = Semaphore::new(settings.concurrency.max(1));
        let reading = &reading;
        let mut checks = expected(stores, self.state.after)
            .map(|found| async move {
                let (content, seems_whole) = match found? {
                    Expected::Content(content, seems_whole) => (content, seems_whole),
                    Expected::Unreadable(row) => return Ok(Looked::Unreadable(row)),
                };
                failpoint::hit(Point::VerifyBeforeContent).await?;
                let Recipe::Whole(blob) = &content.recipe;
                if seems_whole && !settings.deep && !content.is_suspect {
                    return Ok(Looked::Content(Box::new(Checked::whole(&content, blob))));
                }
                // Never closed.
                let _place = reading.acquire().await;
                check(stores, settings, examiner, content).await.map(|checked| Looked::Content(Box::new(checked)))
            })
            .buffered(settings.concurrency.max(1) * AHEAD)
            .boxed_local();
        let mut saved = Instant::now();
        while let Some(checked) = checks.next().await {
            let checked = match checked? {
                Looked::Content(checked) => *checked,
                Looked::Unreadable(row) => {
                    self.note_row(row);
                    continue;
                }
            };
            self.state.after = Some(checked.digest);
            self.state.contents += 1;
            self.state.stored_bytes += checked.stored_bytes;
            self.tools.progress.advance(self.state.contents, self.state.stored_bytes);
            self.note(checked)?;
            if saved.elapsed() >= SAVE_EVERY {
                (self.tools.save)(&self.state)?;
                saved = Instant::now();
            }
        }
        Ok(())
    }

    /// One that the audit came upon, too, is told once.
    fn note_row(&mut self, row: Unreadable) {
        self.state.unreadable.push(row.clone());
        let damage = Damage::unreadable(row);
        if self.damages.len() >= DAMAGES_MAX {
            self.left_off += 1;
            self.state.unreadable.pop();
        } else if !self.damages.contains(&damage) {
            self.damages.push(damage);
        }
    }

    fn note(&mut self, Checked { damage, cleared, .. }: Checked) -> Result<()> {
        match cleared {
            Some(key) if self.cleared.len() < DAMAGES_MAX => self.cleared.push(key),
            Some(_) => self.cleared_left_off += 1,
            None => {}
        }
        let is_unreadable = damage.as_ref().is_some_and(|damage| damage.kind == DamageKind::Unreadable);
        self.unreadable = if is_unreadable { self.unreadable + 1 } else { 0 };
        if self.unreadable >= UNREADABLE_MAX {
            let why = format!("the content store gives out none of {UNREADABLE_MAX} objects in a row");
            return Err(Error::new(Kind::Unavailable, why));
        }
        let Some(damage) = damage else { return Ok(()) };
        if self.damages.len() < DAMAGES_MAX {
            self.state.damaged.push(damage.digest);
            self.damages.push(damage);
        } else {
            self.left_off += 1;
        }
        Ok(())
    }
}

/// What the metadata have next.
enum Expected {
    /// A content, and whether its object is listed as it should be.
    Content(StoredContent, bool),
    Unreadable(Unreadable),
}

/// What became of it.
enum Looked {
    Content(Box<Checked>),
    Unreadable(Unreadable),
}

/// Contents after a digest, and rows among them that cannot be read.
fn expected(stores: &Stores, after: Option<Digest>) -> impl futures_util::Stream<Item = Result<Expected>> + '_ {
    let walk = objects::Walk::new(stores.contents.clone());
    let next = Some(after.map_or_else(Vec::new, |digest| digest.as_bytes().to_vec()));
    let state = (walk, VecDeque::new(), Vec::new(), next);
    stream::try_unfold(state, move |(mut walk, mut page, mut unreadable, mut next)| async move {
        loop {
            if let Some(row) = unreadable.pop() {
                return Ok(Some((Expected::Unreadable(row), (walk, page, unreadable, next))));
            }
            let content: Option<StoredContent> = page.pop_front();
            if let Some(content) = content {
                let Recipe::Whole(blob) = &content.recipe;
                let seems_whole = walk.size_of(&blob.key).await? == Some(blob.stored_size);
                return Ok(Some((Expected::Content(content, seems_whole), (walk, page, unreadable, next))));
            }
            let Some(after) = next.take() else { return Ok(None) };
            let survey = patiently(async || stores.metadata.survey(after.clone(), PAGE_ROWS).await).await?;
            (page, unreadable, next) = (survey.contents.into(), survey.unreadable, survey.next);
        }
    })
}

/// A content that was looked at.
struct Checked {
    digest: Digest,
    stored_bytes: u64,
    damage: Option<Damage>,
    /// Its object, when it is whole and noted to be missing or damaged.
    cleared: Option<BlobKey>,
}

impl Checked {
    fn whole(content: &StoredContent, blob: &StoredBlob) -> Self {
        let cleared = content.is_suspect.then_some(blob.key);
        Self { digest: content.digest, stored_bytes: blob.stored_size, damage: None, cleared }
    }
}

/// Looks at one content's object, again and again while its metadata change.
async fn check(
    stores: &Stores,
    settings: &VerifySettings,
    examiner: &Examiner,
    content: StoredContent,
) -> Result<Checked> {
    let digest = content.digest;
    let mut content = content;
    for _ in 0..LOOKS_MAX {
        let Recipe::Whole(blob) = &content.recipe;
        let found = look(stores, settings, examiner, &content, blob).await;
        let found = found.map_err(|error| named(error, &blob.key))?;
        let Some(kind) = found else {
            return Ok(Checked::whole(&content, blob));
        };
        match content_now(stores, digest).await? {
            None => return Ok(Checked { digest, stored_bytes: 0, damage: None, cleared: None }),
            Some(now) if (now.logical_size, &now.recipe) == (content.logical_size, &content.recipe) => {
                let damage = Damage::of_object(kind, blob.key);
                let stored_bytes = blob.stored_size;
                return Ok(Checked { digest, stored_bytes, damage: Some(damage), cleared: None });
            }
            Some(now) => content = now,
        }
    }
    Err(Error::new(Kind::Unavailable, format!("content {digest} changes too often to be looked at")))
}

async fn look(
    stores: &Stores,
    settings: &VerifySettings,
    examiner: &Examiner,
    content: &StoredContent,
    blob: &StoredBlob,
) -> Result<Option<DamageKind>> {
    // Whoever found it damaged has read it.
    if !settings.deep && !content.is_suspect {
        let Some(reader) = stores.contents.open(&blob.key, None).await? else {
            return Ok(Some(DamageKind::MissingObject));
        };
        let size = reader.size;
        return Ok(
            (size != blob.stored_size).then_some(DamageKind::WrongSize { expected: blob.stored_size, found: size })
        );
    }
    Ok(match read(stores, examiner, &blob.key).await? {
        Read::Nothing => Some(DamageKind::MissingObject),
        Read::Unreadable => Some(DamageKind::Unreadable),
        Read::Broken => Some(DamageKind::WrongContent),
        Read::Whole(examined) => examined.compare(content.logical_size, blob),
    })
}

/// What became of reading an object.
pub(crate) enum Read {
    /// There is none.
    Nothing,
    /// The store answers, and does not give it out: a bad place on a disk, say.
    Unreadable,
    /// It is not what the store itself says it should be.
    Broken,
    /// All of it was read.
    Whole(Examined),
}

/// Reads an object. One that a store does not give out is asked for again; when the store answers all the same, the object
/// is at fault, otherwise that is an error.
pub(crate) async fn read(stores: &Stores, examiner: &Examiner, key: &BlobKey) -> Result<Read> {
    let mut pauses = PAUSES.iter();
    loop {
        match examiner.examine(stores.contents.as_ref(), key).await {
            Ok(Some(examined)) => return Ok(Read::Whole(examined)),
            Ok(None) => return Ok(Read::Nothing),
            Err(error) if error.kind() == Kind::Corrupt => return Ok(Read::Broken),
            Err(error) if error.kind() == Kind::Unavailable => match pauses.next() {
                Some(pause) => tokio::time::sleep(*pause).await,
                None => {
                    stores.contents.probe().await?;
                    log::warn!("an object cannot be read object={key} error=\"{error}\"");
                    return Ok(Read::Unreadable);
                }
            },
            Err(error) => return Err(error),
        }
    }
}

/// What is known of a content now.
pub async fn content_now(stores: &Stores, digest: Digest) -> Result<Option<StoredContent>> {
    let after = before(digest).map_or_else(Vec::new, |before| before.as_bytes().to_vec());
    // The row behind it may be one that cannot be read, which is nobody's business here.
    let found = patiently(async || stores.metadata.survey(after.clone(), 1).await).await?;
    Ok(found.contents.into_iter().next().filter(|content| content.digest == digest))
}

/// The digest right before; `None` for the first one of all.
pub(crate) fn before(digest: Digest) -> Option<Digest> {
    let mut bytes = *digest.as_bytes();
    for byte in bytes.iter_mut().rev() {
        let (less, borrows) = byte.overflowing_sub(1);
        *byte = less;
        if !borrows {
            return Some(Digest::from_bytes(bytes));
        }
    }
    None
}

fn named(error: Error, key: &BlobKey) -> Error {
    Error::new(error.kind(), format!("cannot look at the object {key}")).with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_before_is_the_next_lower_one() {
        let digest = |hex: &str| hex.parse::<Digest>().unwrap();
        let zeros = "0".repeat(64);
        assert_eq!(before(digest(&zeros)), None);
        assert_eq!(before(digest(&format!("{}0100", &zeros[4..]))), Some(digest(&format!("{}00ff", &zeros[4..]))));
        assert_eq!(before(digest(&"f".repeat(64))), Some(digest(&format!("{}e", &"f".repeat(63)))));
    }
}
