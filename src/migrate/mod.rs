//! Files of an old Filetracker server: `s3dedup migrate`, `migrate-v1`, `compare` and `abandon-migration`.

mod abandon;
mod compare;
mod report;
pub mod show;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use s3dedup_actors::filetracker::{OldServer, OldServerLimits};
use s3dedup_actors::migrator::source::{NamesInFile, Server, Source, Tree};
use s3dedup_actors::migrator::{Copier, Ended, MigrationPhase, MigrationPlan, TERM};
use s3dedup_actors::store::meta::MigrationJournal;

use crate::boot::engine::{self, Offline};
use crate::boot::signals::Signals;
use crate::boot::{StartError, folders, open_files};
use crate::care::progress::Shown;
use crate::config::{Config, one_line};
use crate::{exit, logging};

pub use abandon::abandon;
pub use compare::{CompareOptions, compare};
pub use report::one as trouble_to_json;
pub use show::to_json;

/// How long requests inside the engine may take to end: there are none but ours.
const END_MAX: Duration = Duration::from_secs(1);

/// How long it is waited for another one that is at the same migration: as long as one that was killed keeps others from it.
const BUSY_MAX: Duration = TERM.saturating_add(Duration::from_secs(5));
const BUSY_LOOK_EVERY: Duration = Duration::from_secs(2);

/// Where files come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum From {
    /// `FILETRACKER_URL`.
    Server,
    /// `FILETRACKER_V1_DIR`.
    Directory,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct MigrateOptions {
    /// Where files come from.
    pub from: From,
    /// Where the report goes.
    pub report: Option<PathBuf>,
}

/// Opens what files come from; an error is one line for people.
pub fn open_source(config: &Config, from: From, file_list: Option<&Path>) -> Result<Arc<dyn Source>, String> {
    let migration = &config.migration;
    let files: Arc<dyn Source> = match (from, &migration.filetracker_url, &migration.v1_directory) {
        (From::Server, Some(url), _) => {
            let server = OldServer::new(url, OldServerLimits::default()).map_err(|error| error.to_string())?;
            Arc::new(Server::new(server))
        }
        (From::Directory, _, Some(directory)) => {
            Arc::new(Tree::new(directory, migration.max_concurrency).map_err(|error| error.to_string())?)
        }
        (From::Server, None, _) => return Err("--filetracker-url or FILETRACKER_URL is missing".to_owned()),
        (From::Directory, _, None) => return Err("--v1-directory or FILETRACKER_V1_DIR is missing".to_owned()),
    };
    match file_list {
        Some(file) => Ok(Arc::new(NamesInFile::new(file, files).map_err(|error| error.to_string())?)),
        None => Ok(files),
    }
}

/// Copies all files; returns the exit code.
pub fn run(config: &Config, options: &MigrateOptions) -> u8 {
    logging::init(&config.logging);
    let source = match open_source(config, options.from, config.migration.file_list.as_deref()) {
        Ok(source) => source,
        Err(why) => {
            complain(&why);
            return exit::WRONG_USE;
        }
    };
    if let Some(Err(why)) = options.report.as_deref().map(report::expect_place) {
        complain(&why);
        return exit::WRONG_USE;
    }
    let ran = Signals::listen().map_err(|error| error.to_string());
    let ran = ran.and_then(|signals| actix_rt::System::new().block_on(migrate(config, options, source, signals)));
    ran.unwrap_or_else(|why| {
        complain(&why);
        exit::CANNOT_START
    })
}

async fn migrate(
    config: &Config,
    options: &MigrateOptions,
    source: Arc<dyn Source>,
    mut signals: Signals,
) -> Result<u8, String> {
    open_files::raise();
    folders::create(config).map_err(|error| error.to_string())?;
    // Kept until the end: a server must not start on the same data meanwhile.
    let _locks = folders::lock(config).map_err(|error| in_use(&error))?;
    // Another name than that of any server: one that migrates under the same name would not notice. The next command on this
    // machine has the same one, and goes on at once where one that was killed left off.
    let holder = format!("migrate {}", config.instance_id(0));
    let started = engine::start_offline(config, &holder).await.map_err(|error| error.to_string())?;
    let Offline { engine, tree, journal, fatal } = started;
    let plan = MigrationPlan { source, concurrency: config.migration.max_concurrency, holder };
    let copier = Copier::new(engine, Arc::clone(&journal), plan);
    let progress = copier.progress().clone();
    let shown = Shown::fitted(move |columns| show::line(&progress.snapshot(), columns));
    let mut run = Box::pin(run_in_turn(&copier));
    let ended = tokio::select! {
        ended = &mut run => ended.map_err(|error| format!("cannot migrate error=\"{error}\"")),
        why = fatal => Err(format!("cannot go on: {}", why.unwrap_or_default())),
        signal = signals.first() => {
            log::info!("stopping signal={signal}");
            copier.stop();
            (&mut run).await.map_err(|error| format!("cannot migrate error=\"{error}\""))
        }
    };
    drop(run);
    drop(shown);
    let code = match ended {
        Ok(ended) => told(&copier, &ended, options, (journal.as_ref(), &config.bucket.temp_dir)).await,
        Err(why) => Err(why),
    };
    drop((copier, journal));
    tree.stop(END_MAX).await;
    code
}

/// Runs it, and waits for another one that is at it: it may have been killed.
async fn run_in_turn(copier: &Copier) -> s3dedup_actors::model::Result<Ended> {
    let begun = Instant::now();
    loop {
        let ended = copier.run().await?;
        if ended != Ended::Busy || copier.is_stopped() || begun.elapsed() > BUSY_MAX {
            return Ok(ended);
        }
        if begun.elapsed() < BUSY_LOOK_EVERY {
            log::warn!("another s3dedup is at this migration, or was killed while it was: waiting for up to a minute");
        }
        actix_rt::time::sleep(BUSY_LOOK_EVERY).await;
    }
}

/// Tells people and the report how it ended.
async fn told(
    copier: &Copier,
    ended: &Ended,
    options: &MigrateOptions,
    (journal, otherwise): (&dyn MigrationJournal, &Path),
) -> Result<u8, String> {
    if *ended == Ended::Busy {
        return Err("another s3dedup is at this migration: a command, or a server, whose GET /api/migration shows it"
            .to_owned());
    }
    let now = copier.progress().snapshot();
    let troubles = copier.id();
    let written = match &options.report {
        Some(file) => report::write(file, otherwise, &now, journal, troubles).await,
        None => Ok(()),
    };
    // Whoever waited for hours is told how it ended, report or not.
    let first = report::first(journal, troubles).await?;
    let is_in = match &written {
        Ok(()) => options.report.as_deref(),
        Err(misplaced) => misplaced.kept.as_deref(),
    };
    say(&show::summary(&now, &first, is_in));
    if let Err(report::Misplaced { why, kept }) = written {
        let Some(kept) = kept else {
            report::each(journal, troubles, say).await?;
            return Err(format!("{why}; nor can it be anywhere else: standard output has its names, one a line"));
        };
        return Err(format!("{why}; the report is in {}", kept.display()));
    }
    let is_all = now.phase == MigrationPhase::Done && now.counts.failed == 0;
    Ok(if is_all { exit::OK } else { exit::PARTIAL })
}

/// A running server has the data.
fn in_use(error: &StartError) -> String {
    format!("{error}; stop the server, or let it migrate itself: s3dedup server --help")
}

fn say(text: &str) {
    // A reader that went away is no failure of the work.
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn complain(why: &str) {
    let _ = writeln!(std::io::stderr(), "s3dedup: {}", one_line(why));
}
