//! `s3dedup abandon-migration`: gives up what is kept for an old server that nobody goes on with.

use std::fmt::Write;

use s3dedup_actors::model::{Error, Stamp};
use s3dedup_actors::store::meta::{MarkSummary, Migration};

use super::say;
use crate::boot::metadata::{self, Metadata};
use crate::boot::{folders, matching};
use crate::care::progress::duration;
use crate::care::{refuse_live, run};
use crate::config::{Config, MetadataType, one_line};
use crate::exit;

/// Rows that one transaction forgets.
const ROWS: usize = 1000;

/// Gives it up, or without `is_sure` only tells what there is; returns the exit code.
pub fn abandon(config: &Config, is_sure: bool) -> u8 {
    run(config, async {
        if config.kvstorage_type == MetadataType::Sqlite && !config.sqlite.path.exists() {
            return Err(format!("there is no database {}", config.sqlite.path.display()));
        }
        let _locks = folders::lock(config).map_err(|error| format!("{error}: stop it first"))?;
        let holder = format!("abandon {}", config.instance_id(0));
        let stores = metadata::open(config, &holder).await.map_err(|error| error.to_string())?;
        if let Some(registry) = &stores.registry {
            let place = matching::check_place(config, stores.store.as_ref(), registry.as_ref()).await;
            place.map_err(|error| error.to_string())?;
            refuse_live(registry.as_ref()).await?;
        }
        let failed = |error: Error| format!("cannot abandon it error=\"{error}\"");
        let kept = Kept::read(&stores).await.map_err(failed)?;
        if kept.is_nothing() {
            say("nothing is kept for an old server");
            return Ok(exit::OK);
        }
        say(&kept.text());
        if !is_sure {
            say("nothing was changed: with --yes all of that is given up");
            return Ok(exit::WRONG_USE);
        }
        kept.expect_idle(&stores, &holder).await?;
        give_up(&stores).await.map_err(failed)?;
        say("given up");
        Ok(exit::OK)
    })
}

/// What is there for the sake of an old server.
struct Kept {
    migrations: Vec<Migration>,
    marks: MarkSummary,
    tombstones: u64,
}

impl Kept {
    async fn read(stores: &Metadata) -> Result<Self, Error> {
        Ok(Self {
            migrations: stores.journal.unfinished_migrations().await?,
            marks: stores.mirror.mark_summary().await?,
            tombstones: stores.mirror.count_tombstones().await?,
        })
    }

    fn is_nothing(&self) -> bool {
        self.migrations.is_empty() && self.marks.marks == 0 && self.tombstones == 0
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for one in &self.migrations {
            let (state, counts, source) = (one.state.as_str(), &one.counts, one_line(&one.source));
            // Writing to a text does not fail.
            let _ = writeln!(
                text,
                "an unfinished migration ({state}) from {source}: {} of {} names are not copied yet",
                counts.total.saturating_sub(counts.settled()),
                counts.total
            );
        }
        if self.marks.marks > 0 {
            let since = self.marks.oldest.map(|oldest| {
                let seconds = Stamp::now().seconds().saturating_sub(oldest.seconds());
                let age = duration(std::time::Duration::from_secs(seconds.max(0).unsigned_abs()));
                format!(", the oldest {age} ago")
            });
            let _ = writeln!(
                text,
                "{} names whose last write the old server was not told of{}: it keeps what it has of them",
                self.marks.marks,
                since.unwrap_or_default()
            );
        }
        if self.tombstones > 0 {
            let _ = writeln!(
                text,
                "{} deletions that are remembered: a migration that is begun later brings back what the old server still has",
                self.tombstones
            );
        }
        text.trim_end().to_owned()
    }

    /// Refuses while a command copies: it is no instance, but has the lead of its migration.
    async fn expect_idle(&self, stores: &Metadata, holder: &str) -> Result<(), String> {
        for one in &self.migrations {
            let task = format!("migration {}", one.id.0);
            let lead = stores.journal.lead(&task, holder, super::TERM).await;
            if !lead.map_err(|error| format!("cannot read the database error=\"{error}\""))? {
                return Err(format!(
                    "another s3dedup is at the migration from {}: stop it first",
                    one_line(&one.source)
                ));
            }
        }
        Ok(())
    }
}

async fn give_up(stores: &Metadata) -> Result<(), Error> {
    while stores.journal.abandon_migrations(ROWS).await? {}
    while stores.mirror.forget_marks(ROWS).await? {}
    while stores.mirror.forget_tombstones(ROWS).await? {}
    Ok(())
}
