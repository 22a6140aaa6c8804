//! Writing down the names that the source has.

use futures_util::StreamExt;

use super::copier::{BATCH, Copier, Cut};
use super::patience::{Pauses, Stopped};
use super::source::drained;
use crate::filetracker::{ListedName, NameLines};
use crate::model::{Error, Kind, Result, Retry};
use crate::store::meta::MigrationId;

/// Names that are none which are logged; all are in the journal.
const ODD_NAMES_TOLD_MAX: usize = 100;
/// Listings that break off in a row, with names, before these are copied first.
const CUT_OFFS_MAX: u32 = 3;

/// How far a listing came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Listed {
    /// All names are noted.
    All,
    /// It breaks off again and again; what came is noted.
    Part,
}

impl Copier {
    /// Writes names into the journal, from the beginning whenever the listing breaks off, as sources have no place to go on
    /// from. An old server's listing breaks off when a file goes away under it, which may happen again and again.
    pub(super) async fn list(&self, id: MigrationId, pauses: &mut Pauses) -> Result<Listed, Cut> {
        let mut cut_offs = 0;
        loop {
            let mut noted = 0;
            let error = match self.list_once(id, &mut noted).await {
                Ok(()) => {
                    self.progress().waits_for(None);
                    return Ok(Listed::All);
                }
                Err(_) if self.patience().is_stopped() => return Err(Cut::Stopped),
                Err(error) if error.retry() == Retry::Never => return Err(error.into()),
                Err(error) => error,
            };
            self.progress().retried();
            if self.source().probe().await.is_err() {
                self.patience().outlive("the source", async || self.source().probe().await).await?;
                continue;
            }
            log::warn!("the listing broke off names={noted} error=\"{error}\"");
            cut_offs += u32::from(noted > 0);
            if cut_offs >= CUT_OFFS_MAX {
                log::warn!("the listing breaks off again and again: what it named is copied before it is begun anew");
                self.progress().waits_for(None);
                return Ok(Listed::Part);
            }
            self.progress().waits_for(Some(format!("the source: {}", error.context())));
            self.patience().pause(pauses).await?;
        }
    }

    async fn listing(&self) -> Result<NameLines> {
        let listing = self.source().list().await?;
        if !self.source().is_listed_in_haste() {
            return Ok(listing);
        }
        let (pool, temp_dir) = self.engine().spool_place();
        drained(listing, pool, temp_dir).await
    }

    /// Notes names as long as they come; how many, and how it ended.
    async fn list_once(&self, id: MigrationId, noted: &mut usize) -> Result<()> {
        let mut listing = tokio::select! {
            listing = self.listing() => listing?,
            () = self.patience().stopped() => return Err(Error::new(Kind::Unavailable, "stopped")),
        };
        let (mut names, mut unfit, mut told) = (Vec::new(), Vec::new(), 0);
        loop {
            let found = tokio::select! {
                found = listing.next() => found,
                // The caller's next pause tells it to stop.
                () = self.patience().stopped() => return Err(Error::new(Kind::Unavailable, "stopped")),
            };
            let (found, end) = match found {
                Some(Ok(found)) => (found, None),
                Some(Err(error)) => (Vec::new(), Some(Err(error))),
                None => (Vec::new(), Some(Ok(()))),
            };
            for listed in found {
                match listed {
                    ListedName::Name(name) => names.push(name.name().to_owned()),
                    ListedName::Odd { line, why } => {
                        let line = line.replace(char::is_control, " ");
                        if told < ODD_NAMES_TOLD_MAX {
                            log::warn!("a name cannot be copied name={line:?} error=\"{why}\"");
                        }
                        told += 1;
                        unfit.push((line, why));
                    }
                }
                if names.len() + unfit.len() >= BATCH {
                    *noted += names.len() + unfit.len();
                    self.add(id, &mut names, &mut unfit).await?;
                }
            }
            if let Some(end) = end {
                // Those before a break count, too.
                *noted += names.len() + unfit.len();
                self.add(id, &mut names, &mut unfit).await?;
                return end;
            }
        }
    }

    async fn add(&self, id: MigrationId, names: &mut Vec<String>, unfit: &mut Vec<(String, String)>) -> Result<()> {
        let (names, unfit) = (std::mem::take(names), std::mem::take(unfit));
        let listed = names.len() + unfit.len();
        let add = async || self.journal().add_names(id, names.clone(), unfit.clone()).await;
        let stopped = |Stopped| Error::new(Kind::Unavailable, "stopped");
        self.patience().insist("the database", add).await.map_err(stopped)??;
        self.progress().listed(listed);
        Ok(())
    }
}
