//! `s3dedup clean`.

use s3dedup_actors::cleaner::CleanOptions;
use structopt::StructOpt;

use super::{ReportOptions, complain, load, say};
use crate::config::{self, Config};
use crate::{clean, exit};

pub(super) const HELP: &str = "\
Removes contents that no file has used for CLEANER_GRACE seconds and what abandoned uploads left, up to
CLEANER_MAX_DELETES objects. The server does the same by itself every CLEANER_INTERVAL seconds. With SQLite the server
must be stopped; with PostgreSQL it may run. Ends with 0 when it ran (the summary says whether it is partial) and with
1 when it could not.
";

#[derive(StructOpt, Debug)]
pub(super) struct CleanFlags {
    #[structopt(flatten)]
    report: ReportOptions,
    /// Changes nothing, tells what would be done
    #[structopt(long)]
    dry_run: bool,
    /// Compares all objects with the database
    #[structopt(long)]
    full_scan: bool,
    /// Deletes objects that the database knows nothing of; they may be the last copies of files stored after a backup
    /// that was restored
    #[structopt(long, requires = "full-scan")]
    delete_orphans: bool,
}

pub(super) fn run(flags: &CleanFlags) -> u8 {
    load(flags.report.config.clone(), Vec::new()).map_or_else(|code| code, |loaded| once(&loaded.config, flags))
}

fn once(config: &Config, flags: &CleanFlags) -> u8 {
    let CleanFlags { dry_run, full_scan, delete_orphans, .. } = *flags;
    let report = match clean::run(config, CleanOptions { dry_run, full_scan, delete_orphans }) {
        Ok(report) => report,
        Err(reason) => {
            complain(&format!("s3dedup: {reason}"));
            return exit::CANNOT_START;
        }
    };
    if let Some(refusal) = clean::refusal(&report) {
        complain(&format!("s3dedup: {refusal}"));
        return exit::CANNOT_START;
    }
    if flags.report.json {
        say(&format!("{:#}", clean::to_json(&report, dry_run)));
    } else {
        say(&clean::table(&report, dry_run));
    }
    // What was done is told all the same; the next run does the rest.
    match &report.first_error {
        Some(error) => {
            complain(&format!("s3dedup: not everything was cleaned: {}", config::one_line(&error.to_string())));
            exit::CANNOT_START
        }
        None => exit::OK,
    }
}
