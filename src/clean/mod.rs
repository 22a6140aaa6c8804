//! `s3dedup clean`: the cleaner once, from the command line.

mod show;

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use s3dedup_actors::cleaner::{CleanOptions, CleanReport, Cleaner};
use s3dedup_actors::model::Kind;
use s3dedup_actors::store::blob::{BlobStore, FolderStore};
use s3dedup_actors::store::meta::MetaStore;
use s3dedup_actors::store::tie::TiedStore;

use crate::boot::metadata::Metadata;
use crate::boot::{StartError, engine, folders, matching, metadata};
use crate::config::{Config, MetadataType, one_line};
use crate::logging;

pub use show::{aligned, table, to_json};

/// How often the progress bar moves.
const BAR_EVERY: Duration = Duration::from_millis(200);

/// Cleans once; an error is one line for people. A report may tell of trouble, too.
pub fn run(config: &Config, options: CleanOptions) -> Result<CleanReport, String> {
    logging::init(&config.logging);
    let cleaned = actix_rt::System::new().block_on(async {
        // Kept until the end: a server must not start on the same data meanwhile.
        let _locks = folders::lock(config).map_err(|error| in_use(&error))?;
        let (metadata, contents) = open(config).await.map_err(|error| error.to_string())?;
        clean(config, metadata, contents, options).await
    });
    cleaned.map_err(|reason| one_line(&reason))
}

/// A running server has the data: it cleans by itself.
fn in_use(error: &StartError) -> String {
    format!("{error}; a running server cleans by itself (CLEANER_INTERVAL), or stop it to clean by hand")
}

async fn open(config: &Config) -> Result<(Arc<dyn MetaStore>, Arc<dyn BlobStore>), StartError> {
    let path = &config.sqlite.path;
    if config.kvstorage_type == MetadataType::Sqlite && !path.exists() {
        return Err(StartError::new(format!("there is no database path={}", path.display())));
    }
    let Metadata { store: metadata, registry, .. } = metadata::open(config, "(clean)").await?;
    if let Some(registry) = registry {
        matching::check_place(config, metadata.as_ref(), registry.as_ref()).await?;
    }
    let contents = engine::open_contents(config, FolderStore::open).await?;
    let contents = Arc::new(TiedStore::new(contents, Arc::clone(&metadata)));
    matching::tie(&contents).await?;
    Ok((metadata, contents))
}

async fn clean(
    config: &Config,
    metadata: Arc<dyn MetaStore>,
    contents: Arc<dyn BlobStore>,
    options: CleanOptions,
) -> Result<CleanReport, String> {
    // Another name than that of any server: one that cleans under the same name would not notice.
    let holder = format!("clean {}:{}", config.instance_id(0), std::process::id());
    let limits = engine::cleaner_limits(config);
    let cleaner = Cleaner::new(Arc::clone(&metadata), contents, limits, holder);
    let busy = || "another instance cleans now; try again when it is done".to_owned();
    if options.dry_run || !std::io::stderr().is_terminal() {
        return cleaner.run(options).await.ok_or_else(busy);
    }
    // The bar needs to know how much there will be.
    let dry = CleanOptions { dry_run: true, ..CleanOptions::default() };
    let plan = cleaner.run(dry).await.ok_or_else(busy)?;
    let failed = |error| format!("cannot read the database error=\"{error}\"");
    let contents = if options.full_scan { metadata.totals().await.map_err(failed)?.contents } else { 0 };
    let run = cleaner.run(options);
    let mut run = std::pin::pin!(run);
    let progress = cleaner.progress();
    let report = loop {
        match tokio::time::timeout(BAR_EVERY, &mut run).await {
            Ok(report) => break report,
            Err(_) => show::bar(&progress, plan.planned(), contents),
        }
    };
    show::end_of_bar();
    report.ok_or_else(busy)
}

/// Why nothing at all was done, if so: one line.
pub fn refusal(report: &CleanReport) -> Option<String> {
    let error = report.first_error.as_ref()?;
    let is_nothing_done = report.planned() == 0 && report.parts.planned == 0 && report.scan.is_none();
    (is_nothing_done || error.kind() == Kind::Invalid).then(|| one_line(&format!("cannot clean: {error}")))
}
