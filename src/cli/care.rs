//! Commands that look after a store: verify, repair, export, import.

use std::path::PathBuf;

use s3dedup_actors::model::BlobKey;
use structopt::StructOpt;

use super::{ReportOptions, load};
use crate::care::{self, QuarantineAction, RepairOptions, ReportTo, VerifyOptions};

pub(super) const VERIFY_HELP: &str = "\
Changes nothing and takes no lock: servers may run meanwhile. Exit code 0: whole; 9: damaged;
1: could not look, which says nothing about the store.
";

pub(super) const REPAIR_HELP: &str = "\
With SQLite or contents in a folder the server must be stopped. Exit code 0: nothing was wrong, or
all of it was put right; 9: damage is left (with --dry-run: was found); 1: could not do it.
";

pub(super) const QUARANTINE_HELP: &str = "\
Listing takes no lock. The rest: with SQLite or contents in a folder the server must be stopped. Exit code 0: done;
10: some objects stay where they are; 1: could not do it.
";

pub(super) const IMPORT_HELP: &str = "\
With SQLite or contents in a folder the server must be stopped. Exit code 0: every name is there;
10: contents of some names are missing; 1: could not do it.
";

#[derive(StructOpt, Debug)]
pub(super) enum QuarantineCommand {
    /// Lists what is there, why, since when, and whether its content has another object
    List(ReportOptions),
    /// Takes objects out: they are what they were before, the content's or unknown
    Lift {
        #[structopt(flatten)]
        report: ReportOptions,
        /// Objects, named as in the list
        #[structopt(value_name = "OBJECT", required = true)]
        objects: Vec<BlobKey>,
    },
    /// Leaves objects to the cleaner, when another object of their content is read and found whole
    Drop {
        #[structopt(flatten)]
        report: ReportOptions,
        /// Objects, named as in the list
        #[structopt(value_name = "OBJECT", required_unless = "all", conflicts_with = "all")]
        objects: Vec<BlobKey>,
        /// All for which that holds
        #[structopt(long)]
        #[expect(dead_code, reason = "no objects means all; it only has to be said")]
        all: bool,
    },
}

#[derive(StructOpt, Debug)]
pub(super) struct RepairCommand {
    /// Reads settings from this file too
    #[structopt(long, value_name = "FILE", parse(from_os_str))]
    config: Option<PathBuf>,
    /// Shows what would be done, and does nothing
    #[structopt(long, conflicts_with = "rebuild")]
    dry_run: bool,
    /// Reads every object and checks its hashes and sizes
    #[structopt(long)]
    deep: bool,
    /// For a lost database: makes a content known for every object
    #[structopt(long)]
    rebuild: bool,
    /// Repairs though the content store is empty and the database knows contents: only when it is known to be the right
    /// store, and to have lost its objects
    #[structopt(long, conflicts_with_all = &["rebuild", "release-adopted"])]
    accept_empty_store: bool,
    /// Gives contents that were adopted from objects, and that no name came for, to the cleaner
    #[structopt(long, conflicts_with_all = &["rebuild", "dry-run", "deep"])]
    release_adopted: bool,
    /// Reads at most N megabytes of objects a second
    #[structopt(long, value_name = "N", parse(try_from_str = positive))]
    max_mbps: Option<f64>,
    #[structopt(flatten)]
    report: ReportFlags,
}

#[derive(StructOpt, Debug)]
pub(super) struct ExportCommand {
    /// Reads settings from this file too
    #[structopt(long, value_name = "FILE", parse(from_os_str))]
    config: Option<PathBuf>,
    /// Writes to this file, replaced as a whole when all is written; without it to standard output
    #[structopt(long, value_name = "FILE", parse(from_os_str))]
    output: Option<PathBuf>,
}

#[derive(StructOpt, Debug)]
pub(super) struct ImportCommand {
    /// Reads settings from this file too
    #[structopt(long, value_name = "FILE", parse(from_os_str))]
    config: Option<PathBuf>,
    /// The exported names; - for standard input
    #[structopt(value_name = "FILE", parse(from_os_str))]
    input: PathBuf,
    #[structopt(flatten)]
    report: ReportFlags,
}

#[derive(StructOpt, Debug)]
pub(super) struct VerifyCommand {
    /// Reads settings from this file too
    #[structopt(long, value_name = "FILE", parse(from_os_str))]
    config: Option<PathBuf>,
    /// Reads every object and checks its hashes and sizes
    #[structopt(long)]
    deep: bool,
    /// Reads at most N megabytes of objects a second
    #[structopt(long, value_name = "N", parse(try_from_str = positive))]
    max_mbps: Option<f64>,
    /// Keeps in this file how far the run is, and goes on from there
    #[structopt(long, value_name = "FILE", parse(from_os_str))]
    resume: Option<PathBuf>,
    #[structopt(flatten)]
    report: ReportFlags,
}

#[derive(StructOpt, Debug)]
struct ReportFlags {
    /// Writes a JSON report to this file
    #[structopt(long, value_name = "FILE", parse(from_os_str))]
    report: Option<PathBuf>,
    /// Prints the JSON report
    #[structopt(long)]
    json: bool,
}

impl From<ReportFlags> for ReportTo {
    fn from(flags: ReportFlags) -> Self {
        Self { file: flags.report, json: flags.json }
    }
}

fn positive(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| number.is_finite() && *number > 0.0);
    number.ok_or_else(|| "expected a number above 0".to_owned())
}

pub(super) fn verify(command: VerifyCommand) -> u8 {
    let VerifyCommand { config, deep, max_mbps, resume, report } = command;
    let options = VerifyOptions { deep, mbps: max_mbps, resume, report: report.into() };
    load(config, Vec::new()).map_or_else(|code| code, |loaded| care::verify(&loaded.config, &options))
}

pub(super) fn repair(command: RepairCommand) -> u8 {
    let RepairCommand { config, dry_run, deep, rebuild, accept_empty_store, release_adopted, max_mbps, report } =
        command;
    let options = RepairOptions {
        dry_run,
        deep,
        rebuild,
        accepts_empty: accept_empty_store,
        release_adopted,
        mbps: max_mbps,
        report: report.into(),
    };
    load(config, Vec::new()).map_or_else(|code| code, |loaded| care::repair(&loaded.config, &options))
}

pub(super) fn quarantine(command: QuarantineCommand) -> u8 {
    let (ReportOptions { config, json }, action) = match command {
        QuarantineCommand::List(report) => (report, QuarantineAction::List),
        QuarantineCommand::Lift { report, objects } => (report, QuarantineAction::Lift(objects)),
        QuarantineCommand::Drop { report, objects, .. } => (report, QuarantineAction::Drop(objects)),
    };
    let report = ReportTo { file: None, json };
    load(config, Vec::new()).map_or_else(|code| code, |loaded| care::quarantine(&loaded.config, &action, &report))
}

pub(super) fn export(command: ExportCommand) -> u8 {
    let ExportCommand { config, output } = command;
    load(config, Vec::new()).map_or_else(|code| code, |loaded| care::export(&loaded.config, output.as_deref()))
}

pub(super) fn import(command: ImportCommand) -> u8 {
    let ImportCommand { config, input, report } = command;
    load(config, Vec::new()).map_or_else(|code| code, |loaded| care::import(&loaded.config, &input, &report.into()))
}
