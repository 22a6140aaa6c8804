//! Being the only one that repairs or cleans, among instances that share a database.

use std::sync::Arc;
use std::time::Duration;

use s3dedup_actors::cleaner::TASK as CLEAN;
use s3dedup_actors::store::meta::MetaCare;

use crate::boot::matching::REBUILD;
use crate::config::Config;

/// How long the others wait for one that does not answer any more.
const TERM: Duration = Duration::from_secs(15);
/// When the term is asked for anew.
const RENEW_EVERY: Duration = Duration::from_secs(5);

/// What is told to whoever has to wait.
const TAKEN: &str = "a cleaner or another repair is at work; try again when it is done";

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
        Ok(true) => tokio::select! {
            outcome = work => outcome,
            () = until_lost(metadata, tasks, &holder) => Err(TAKEN.to_owned()),
        },
        Ok(false) => Err(TAKEN.to_owned()),
        Err(why) => Err(why),
    };
    for task in tasks {
        // Otherwise the others wait for the end of the term.
        let _ = metadata.lead(task, &holder, Duration::ZERO).await;
    }
    outcome
}

async fn take(metadata: &Arc<dyn MetaCare>, tasks: &[&str], holder: &str) -> Result<bool, String> {
    for task in tasks {
        let taken = metadata.lead(task, holder, TERM).await;
        if !taken.map_err(|error| format!("cannot read the database error=\"{error}\""))? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Keeps the turn; ready when somebody else has it.
async fn until_lost(metadata: &Arc<dyn MetaCare>, tasks: &[&str], holder: &str) {
    loop {
        tokio::time::sleep(RENEW_EVERY).await;
        match take(metadata, tasks, holder).await {
            Ok(true) => {}
            Ok(false) => return,
            // Whoever cannot reach the database cannot repair either.
            Err(why) => log::warn!("the turn could not be kept, trying again: {why}"),
        }
    }
}
