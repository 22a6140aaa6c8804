//! Do a source and this store hold the same files?
//!
//! First every name of the source is looked for here, then the other way round. Sums over the names of both sides tell
//! whether the second look is needed at all, so that in the good case an old server is asked for each name once. Memory does
//! not grow with the names. What differs is looked at again before it counts: both sides may serve meanwhile.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use futures_util::{StreamExt, stream};

use super::source::Source;
use crate::filetracker::ListedName;
use crate::model::{Entry, EntryKey, Kind, Namespace, Recipe, Result};
use crate::verify::{Examiner, Stores};

/// Names of one page.
const PAGE_ROWS: usize = 1000;
/// Looks at a name that differs, and the pause between them.
const LOOKS_MAX: usize = 3;
/// The pause between two looks.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// How to compare.
#[derive(Clone, Copy, Debug)]
pub struct CompareOptions {
    /// Reads the bytes of both sides.
    pub deep: bool,
    /// Names that are looked at once.
    pub concurrency: usize,
}

/// A name that is not the same on both sides.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Difference {
    /// The name; what is no text is escaped.
    pub name: String,
    /// What differs.
    pub kind: DifferenceKind,
}

/// What differs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DifferenceKind {
    /// The source has it, this store does not.
    Missing,
    /// This store has it, the source does not.
    Extra,
    /// The versions differ.
    Version {
        /// Seconds since 1970.
        here: i64,
        /// Seconds since 1970.
        there: i64,
    },
    /// The sizes differ.
    Size {
        /// Bytes.
        here: u64,
        /// Bytes, as the source says.
        there: u64,
    },
    /// The bytes differ.
    Content {
        /// What is wrong.
        why: String,
    },
    /// The source has it under a name that cannot be here, or it is not a file.
    Unfit {
        /// Why.
        why: String,
    },
    /// One side does not hand it out.
    Unreadable {
        /// Why.
        why: String,
    },
}

impl DifferenceKind {
    /// A word for it.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Extra => "extra",
            Self::Version { .. } => "version",
            Self::Size { .. } => "size",
            Self::Content { .. } => "content",
            Self::Unfit { .. } => "unfit",
            Self::Unreadable { .. } => "unreadable",
        }
    }

    /// More about it, in one line; empty when the word says it.
    pub fn detail(&self) -> String {
        match self {
            Self::Missing | Self::Extra => String::new(),
            Self::Version { here, there } => format!("here={here} there={there}"),
            Self::Size { here, there } => format!("here={here} there={there}"),
            Self::Content { why } | Self::Unfit { why } | Self::Unreadable { why } => why.clone(),
        }
    }
}

/// What came of it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct CompareReport {
    /// Names that the source has.
    pub there: u64,
    /// Names that this store has.
    pub here: u64,
    /// Names that are the same on both sides.
    pub same: u64,
    /// Names that are not.
    pub different: u64,
    /// Logical bytes that were read on both sides and are the same.
    pub bytes: u64,
}

/// Counters that another task may read.
#[derive(Debug, Default)]
pub struct CompareProgress {
    /// Names that were looked at.
    pub looked_at: AtomicU64,
    /// Differences that were found.
    pub different: AtomicU64,
    /// Bytes that were read on both sides.
    pub bytes: AtomicU64,
}

/// What a comparison needs beside the two sides.
pub struct CompareTools<'a> {
    /// Reads bytes.
    pub examiner: &'a Examiner,
    /// Told how far it is.
    pub progress: &'a CompareProgress,
    /// Told each difference as it is found.
    pub found: &'a mut dyn FnMut(Difference),
}

/// Compares everything. An error says nothing about the files.
pub async fn compare(
    source: &dyn Source,
    stores: &Stores,
    options: CompareOptions,
    tools: CompareTools<'_>,
) -> Result<CompareReport> {
    let CompareTools { examiner, progress, found } = tools;
    let look = Look { source, stores, options, examiner, progress };
    let mut report = CompareReport::default();
    let mut theirs = NameSum::default();
    let pages = source.list().await?.flat_map(|page| match page {
        Ok(names) => stream::iter(names).map(Ok).left_stream(),
        Err(error) => stream::iter([Err(error)]).right_stream(),
    });
    let looks = pages.map(|listed| async {
        match listed? {
            ListedName::Name(name) => look.at(&name).await.map(|outcome| (Some(name), outcome)),
            ListedName::Odd { line, why } => {
                let difference = Difference { name: line, kind: DifferenceKind::Unfit { why } };
                Ok((None, Outcome::Different(difference)))
            }
        }
    });
    let mut looks = std::pin::pin!(looks.buffer_unordered(options.concurrency.max(1)));
    while let Some(looked) = looks.next().await {
        let (name, outcome) = looked?;
        progress.looked_at.fetch_add(1, Relaxed);
        // What went meanwhile is found by the second look, if it is here.
        if outcome.is_gone_there() {
            continue;
        }
        name.iter().for_each(|name| theirs.add(name));
        report.there += 1;
        match outcome {
            Outcome::Nowhere => {}
            Outcome::Same { bytes } => {
                report.same += 1;
                report.bytes += bytes;
            }
            Outcome::Different(difference) => {
                report.different += 1;
                progress.different.fetch_add(1, Relaxed);
                found(difference);
            }
        }
    }
    look.others(theirs, &mut report, found).await?;
    Ok(report)
}

/// A sum over names that does not depend on their order: equal sums are sums over the same names.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct NameSum {
    count: u64,
    hashes: [u64; 4],
}

impl NameSum {
    fn add(&mut self, name: &EntryKey) {
        self.count += 1;
        let hash = blake3::hash(name.name().as_bytes());
        for (sum, bytes) in self.hashes.iter_mut().zip(hash.as_bytes().as_chunks::<8>().0) {
            *sum = sum.wrapping_add(u64::from_le_bytes(*bytes));
        }
    }
}

/// What was found of a name.
#[derive(PartialEq, Eq)]
enum Outcome {
    Same {
        bytes: u64,
    },
    Different(Difference),
    /// It was listed and is on neither side any more.
    Nowhere,
}

impl Outcome {
    fn is_gone_there(&self) -> bool {
        match self {
            Self::Nowhere => true,
            Self::Different(difference) => difference.kind == DifferenceKind::Extra,
            Self::Same { .. } => false,
        }
    }
}

struct Look<'a> {
    source: &'a dyn Source,
    stores: &'a Stores,
    options: CompareOptions,
    examiner: &'a Examiner,
    progress: &'a CompareProgress,
}

impl Look<'_> {
    /// Looks at a name on both sides, again when it differs.
    async fn at(&self, name: &EntryKey) -> Result<Outcome> {
        for again in 1.. {
            let looked = self.once(name).await;
            match looked {
                Ok(Outcome::Different(_)) if again < LOOKS_MAX => {}
                Ok(outcome) => return Ok(outcome),
                Err(_) if again < LOOKS_MAX => {}
                // Is it the file, or the whole side?
                Err(error) => {
                    self.source.probe().await?;
                    self.stores.metadata.probe().await?;
                    self.stores.contents.probe().await?;
                    return Ok(different(name, DifferenceKind::Unreadable { why: error.to_string() }));
                }
            }
            tokio::time::sleep(LOOK_AGAIN_AFTER).await;
        }
        Ok(Outcome::Nowhere)
    }

    async fn once(&self, name: &EntryKey) -> Result<Outcome> {
        let here = self.stores.metadata.lookup(name.clone()).await?;
        let (file, body) = if self.options.deep && here.is_some() {
            match self.source.open(name).await? {
                Some(download) => (Some(download.file), Some(download.stream)),
                None => (None, None),
            }
        } else {
            (self.source.head(name).await?, None)
        };
        let (here, there) = match (here, file) {
            (Some(here), Some(there)) => (here, there),
            (None, Some(_)) => return Ok(different(name, DifferenceKind::Missing)),
            (Some(_), None) => return Ok(different(name, DifferenceKind::Extra)),
            (None, None) => return Ok(Outcome::Nowhere),
        };
        if here.stamp != there.stamp {
            let (here, there) = (here.stamp.seconds(), there.stamp.seconds());
            return Ok(different(name, DifferenceKind::Version { here, there }));
        }
        if let Some(claimed) = there.logical_size.filter(|size| *size != here.logical_size) {
            return Ok(different(name, DifferenceKind::Size { here: here.logical_size, there: claimed }));
        }
        let Some(body) = body else { return Ok(Outcome::Same { bytes: 0 }) };
        let theirs = self.examiner.examine_body(body, there.encoding).await?;
        let wrong = |why: &str| Ok(different(name, DifferenceKind::Content { why: why.to_owned() }));
        match theirs.logical {
            None => return wrong("the bytes of the source are not one complete gzip stream"),
            Some((digest, _)) if digest != here.digest => return wrong("the bytes of the source are others"),
            Some(_) => {}
        }
        if let Some(why) = self.damage(&here).await? {
            return wrong(&why);
        }
        self.progress.bytes.fetch_add(here.logical_size, Relaxed);
        Ok(Outcome::Same { bytes: here.logical_size })
    }

    /// What is wrong with the bytes here.
    async fn damage(&self, here: &Entry) -> Result<Option<String>> {
        let Recipe::Whole(blob) = &here.recipe;
        let examined = match self.examiner.examine(self.stores.contents.as_ref(), &blob.key).await {
            Ok(Some(examined)) => examined,
            Ok(None) => return Ok(Some(format!("the object {} is missing here", blob.key))),
            Err(error) if error.kind() == Kind::Corrupt => return Ok(Some(error.to_string())),
            Err(error) => return Err(error),
        };
        let is_whole = examined.logical == Some((here.digest, here.logical_size));
        Ok((!is_whole).then(|| format!("the object {} is damaged here: see s3dedup verify", blob.key)))
    }

    /// Counts the names here, and looks for those that the source does not have, if there can be any.
    async fn others(
        &self,
        theirs: NameSum,
        report: &mut CompareReport,
        found: &mut dyn FnMut(Difference),
    ) -> Result<()> {
        let (mut ours, mut after) = (NameSum::default(), None);
        loop {
            let page = self.stores.metadata.names(after, PAGE_ROWS).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.key.clone());
            let names = page.iter().map(|named| &named.key);
            names.filter(|key| key.namespace() == Namespace::FILETRACKER).for_each(|key| ours.add(key));
        }
        report.here = ours.count;
        if ours == theirs {
            return Ok(());
        }
        let mut after = None;
        loop {
            let page = self.stores.metadata.names(after, PAGE_ROWS).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.key.clone());
            let names = page.into_iter().map(|named| named.key);
            let looks = stream::iter(names.filter(|key| key.namespace() == Namespace::FILETRACKER))
                .map(|name| async move { self.is_extra(&name).await.map(|is_extra| is_extra.then_some(name)) });
            let mut looks = std::pin::pin!(looks.buffered(self.options.concurrency.max(1)));
            while let Some(looked) = looks.next().await {
                self.progress.looked_at.fetch_add(1, Relaxed);
                if let Some(name) = looked? {
                    report.different += 1;
                    self.progress.different.fetch_add(1, Relaxed);
                    found(Difference { name: name.name().to_owned(), kind: DifferenceKind::Extra });
                }
            }
        }
    }

    /// Whether this store has a name that the source does not have.
    async fn is_extra(&self, name: &EntryKey) -> Result<bool> {
        for again in 1.. {
            match self.source.head(name).await {
                Ok(Some(_)) => return Ok(false),
                // It may be gone here, too.
                Ok(None) if self.stores.metadata.lookup(name.clone()).await?.is_none() => return Ok(false),
                Ok(None) if again >= LOOKS_MAX => return Ok(true),
                // Something of that name is there: it was compared, or listed as unfit.
                Err(error) if error.kind() == Kind::Invalid => return Ok(false),
                Err(error) if again >= LOOKS_MAX => return Err(error),
                Ok(None) | Err(_) => tokio::time::sleep(LOOK_AGAIN_AFTER).await,
            }
        }
        Ok(false)
    }
}

fn different(name: &EntryKey, kind: DifferenceKind) -> Outcome {
    Outcome::Different(Difference { name: name.name().to_owned(), kind })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_depend_on_the_names_and_not_on_their_order() {
        let sum = |names: &[&str]| {
            let mut sum = NameSum::default();
            for name in names {
                sum.add(&EntryKey::parse(Namespace::FILETRACKER, name.as_bytes()).unwrap());
            }
            sum
        };
        assert_eq!(sum(&["a", "b", "c"]), sum(&["c", "a", "b"]));
        assert_ne!(sum(&["a", "b"]), sum(&["a", "c"]));
        assert_ne!(sum(&["a", "a"]), sum(&["a"]));
        assert_ne!(sum(&["a", "a"]), sum(&["b", "b"]));
    }
}
