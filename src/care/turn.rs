//! Being the only one that repairs or cleans, among instances that share a database.

use std::sync::Arc;
use std::time::{Duration, Instant};

use s3dedup_actors::cleaner::TASK as CLEAN;
use s3dedup_actors::store::meta::MetaCare;

use crate::boot::matching::REBUILD;
use crate::config::Config;

/// How long the others wait for one that does not answer any more.
const TERM: Duration = Duration::from_secs(120);
/// When the term is asked for anew.
const RENEW_EVERY: Duration = Duration::from_secs(30);

/// Does `work` while no cleaner and nobody else repairs. Ends it when the turn is lost: what was done stays, as after a
/// crash. With SQLite the lock files have seen to it.
pub async fn alone<T>(
    config: &Config,
    metadata: &Arc<dyn MetaCare>,
    is_rebuild: bool,
    work: impl Future<Output = Result<T, String>>,
) -> Result<T, String> {
    let holder = format!("repair {}:{}", config.instance_id(0), std::process::id());
    let tasks: &[&str] = if is_rebuild { &[CLEAN, REBUILD] } else { &[CLEAN] };
    let outcome = match take(metadata, tasks, &holder).await {
        Ok(()) => tokio::select! {
            outcome = work => outcome,
            why = keep(metadata, tasks, &holder) => Err(why),
        },
        Err(why) => Err(why),
    };
    for task in tasks {
        // Otherwise the others wait for the end of the term.
        let _ = metadata.lead(task, &holder, Duration::ZERO).await;
    }
    outcome
}

async fn take(metadata: &Arc<dyn MetaCare>, tasks: &[&str], holder: &str) -> Result<(), String> {
    for task in tasks {
        match metadata.lead(task, holder, TERM).await {
            Ok(true) => {}
            Ok(false) => return Err("a cleaner or another repair is at work; try again when it is done".to_owned()),
            Err(error) => return Err(format!("cannot read the database error=\"{error}\"")),
        }
    }
    Ok(())
}

/// Ready with the reason when the turn is lost.
async fn keep(metadata: &Arc<dyn MetaCare>, tasks: &[&str], holder: &str) -> String {
    let mut kept = Instant::now();
    loop {
        tokio::time::sleep(RENEW_EVERY).await;
        match take(metadata, tasks, holder).await {
            Ok(()) => kept = Instant::now(),
            Err(why) if kept.elapsed() >= TERM => return why,
            Err(why) => log::warn!("the turn could not be kept, trying again: {why}"),
        }
    }
}
