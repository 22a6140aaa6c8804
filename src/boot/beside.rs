//! The old Filetracker server that a configuration puts beside this one.

use std::sync::Arc;
use std::time::Duration;

use s3dedup_actors::filetracker::{OldServer, OldServerLimits};
use s3dedup_actors::migrator::MigrationPlan;
use s3dedup_actors::migrator::source::{NamesInFile, Server, Source, Tree};
use s3dedup_actors::store::meta::{MigrationJournal, MirrorJournal};
use s3dedup_actors::{BesideSettings, Engine, EngineTree};

use super::StartError;
use crate::config::{Config, MigrationMode};

/// The longest silence of a listing while a client waits for it.
const CLIENT_LIST_SILENCE_MAX: Duration = Duration::from_secs(60);
/// How long a request of a client waits for the old server to be reached, or to say what it has.
const CLIENT_CONNECT_MAX: Duration = Duration::from_millis(1500);
const CLIENT_LOOK_MAX: Duration = Duration::from_secs(2);
/// The old server waits for its own locks for up to 20 seconds.
const TELL_MAX: Duration = Duration::from_secs(25);

/// Remembered deletions that one transaction forgets.
const FORGOTTEN_AT_ONCE: usize = 1000;

/// What is to be done besides serving.
pub struct Beside {
    settings: BesideSettings,
    copy: Option<MigrationPlan>,
}

/// Reads what is wanted; `None` when there is no old server beside this one.
pub fn plan(config: &Config, journal: Arc<dyn MirrorJournal>, instance: &str) -> Result<Option<Beside>, StartError> {
    let migration = &config.migration;
    if migration.mode == MigrationMode::Off {
        return Ok(None);
    }
    let failed = |error: s3dedup_actors::model::Error| StartError::new(error.to_string());
    let url = migration.filetracker_url.as_deref();
    let server = |limits| url.map(|url| OldServer::new(url, limits)).transpose().map_err(failed);
    let asked = server(OldServerLimits {
        connect: CLIENT_CONNECT_MAX,
        small: CLIENT_LOOK_MAX,
        breaks: true,
        ..OldServerLimits::default()
    })?;
    let patient = || OldServerLimits {
        small: TELL_MAX,
        list_silence: CLIENT_LIST_SILENCE_MAX,
        breaks: true,
        ..OldServerLimits::default()
    };
    let told = asked.as_ref().map(|asked| asked.with_limits(patient())).transpose().map_err(failed)?;
    let copied = server(OldServerLimits::default())?;
    let tree = migration.v1_directory.as_deref();
    let tree = tree.map(|directory| Tree::new(directory, migration.max_concurrency)).transpose().map_err(failed)?;
    let tree: Option<Arc<dyn Source>> = tree.map(|tree| Arc::new(tree) as _);
    let mut sources: Vec<Arc<dyn Source>> = tree.iter().cloned().collect();
    sources.extend(asked.map(|server| Arc::new(Server::new(server)) as _));
    if sources.is_empty() {
        let problem = "MIGRATION is on, but there is neither FILETRACKER_URL nor FILETRACKER_V1_DIR";
        return Err(StartError::new(problem));
    }
    let whole = tree.or_else(|| copied.map(|server| Arc::new(Server::new(server)) as _));
    let copy = match (migration.mode, whole, &migration.file_list) {
        (MigrationMode::Live, Some(whole), None) => Some(whole),
        (MigrationMode::Live, Some(whole), Some(list)) => {
            Some(Arc::new(NamesInFile::new(list, whole).map_err(failed)?) as Arc<dyn Source>)
        }
        _ => None,
    };
    let concurrency = migration.max_concurrency;
    let copy = copy.map(|source| MigrationPlan { source, concurrency, holder: instance.to_owned() });
    Ok(Some(Beside { settings: BesideSettings { sources, server: told, journal, concurrency }, copy }))
}

/// Deletions are remembered for the sake of an old server; without one, and when it was told everything, they are forgotten.
pub async fn forget_deletions(journal: Arc<dyn MirrorJournal>) {
    let forget = async {
        let waiting = journal.mark_summary().await?.marks;
        if waiting > 0 {
            log::warn!("an old server was not told of all writes and is not beside this one any more names={waiting}");
            return Ok(());
        }
        while journal.forget_tombstones(FORGOTTEN_AT_ONCE).await? {}
        Ok::<_, s3dedup_actors::model::Error>(())
    };
    if let Err(error) = forget.await {
        log::debug!("remembered deletions are not forgotten yet error=\"{error}\"");
    }
}

impl Beside {
    /// Lets the engine stand beside the old server, and begins the copy.
    pub fn begin(self, tree: &mut EngineTree, engine: &Engine, journal: Arc<dyn MigrationJournal>) {
        let places: Vec<String> = self.settings.sources.iter().map(|source| source.place()).collect();
        let copied = self.copy.as_ref().map(|plan| plan.source.place());
        let copies = copied.unwrap_or_else(|| "what is asked for".to_owned());
        log::info!("an old server is beside this one old={:?} copies={copies:?}", places.join(", "));
        tree.stand_beside(engine, self.settings);
        if let Some(plan) = self.copy {
            tree.migrate(engine, journal, plan);
        }
    }
}
