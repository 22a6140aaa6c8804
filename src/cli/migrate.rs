//! Commands that bring files of an old server here, and look whether they are here.

use std::path::PathBuf;

use structopt::StructOpt;

use super::load;
use crate::migrate::{self, CompareOptions, From, MigrateOptions};

pub(super) const HELP: &str = "\
Copies names, versions and bytes; what is here, as new or newer, stays. Cut off at any point, the same command goes on.
With SQLite or contents in a folder the server must be stopped; docs/migration.md shows how to migrate while it serves.
Exit code 0: all files are here; 10: some were not copied, see --report, or it was stopped; 1: could not do it.
";

pub(super) const COMPARE_HELP: &str = "\
Changes nothing and takes no lock: servers may run meanwhile. Exit code 0: the same files; 9: differences, which are
listed; 1: could not look, which says nothing about the files.
";

#[derive(StructOpt, Debug)]
pub(super) struct MigrateCommand {
    #[structopt(flatten)]
    common: CommonFlags,
    /// The old server, its prefix included; instead of FILETRACKER_URL
    #[structopt(long, value_name = "URL")]
    filetracker_url: Option<String>,
}

#[derive(StructOpt, Debug)]
pub(super) struct MigrateV1Command {
    #[structopt(flatten)]
    common: CommonFlags,
    /// The directory of the old server, which holds `files`; instead of FILETRACKER_V1_DIR
    #[structopt(long, value_name = "DIR")]
    v1_directory: Option<String>,
}

#[derive(StructOpt, Debug)]
struct CommonFlags {
    #[structopt(flatten)]
    settings: SettingsFlags,
    /// Copies the files that this file names, one a line, instead of all
    #[structopt(long, value_name = "FILE")]
    file_list: Option<String>,
    /// Writes a JSON report to this file, with each file that was not copied and the reason
    #[structopt(long, value_name = "FILE", parse(from_os_str))]
    report: Option<PathBuf>,
}

#[derive(StructOpt, Debug)]
struct SettingsFlags {
    /// Reads no file: settings come from the environment and flags only (the default)
    #[structopt(long, conflicts_with = "config")]
    #[expect(dead_code, reason = "it only keeps --config away: the environment is always read")]
    env: bool,
    /// Reads settings from this file too
    #[structopt(long, value_name = "FILE", parse(from_os_str))]
    config: Option<PathBuf>,
    /// Files that are dealt with at once
    #[structopt(long, value_name = "N")]
    max_concurrency: Option<String>,
}

#[derive(StructOpt, Debug)]
pub(super) struct CompareCommand {
    #[structopt(flatten)]
    settings: SettingsFlags,
    /// The old server, its prefix included; instead of FILETRACKER_URL
    #[structopt(long, value_name = "URL")]
    filetracker_url: Option<String>,
    /// Compares with the directory of an old server of version 1 instead
    #[structopt(long, value_name = "DIR", conflicts_with = "filetracker-url")]
    v1_directory: Option<String>,
    /// Reads the bytes of both sides
    #[structopt(long)]
    deep: bool,
    /// Prints JSON
    #[structopt(long)]
    json: bool,
}

impl SettingsFlags {
    /// Keys of the table with the values given.
    fn with(&self, key: &'static str, value: Option<String>) -> Vec<(&'static str, String)> {
        let given = [(key, value), ("migration.max_concurrency", self.max_concurrency.clone())];
        given.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
    }
}

pub(super) const ABANDON_HELP: &str = "\
For when nobody goes on with a migration or a live migration: the rest is not copied, what the old server was not told
of it is never told, and deletions are not remembered for it any more. Files stay as they are, here and there. All
servers must be stopped. Exit code 0: done, or there was nothing; 2: --yes is missing, nothing was changed; 1: could
not do it.
";

#[derive(StructOpt, Debug)]
pub(super) struct AbandonCommand {
    /// Reads settings from this file too
    #[structopt(long, value_name = "FILE", parse(from_os_str))]
    config: Option<PathBuf>,
    /// Gives it up; without it only what there is is told
    #[structopt(long)]
    yes: bool,
}

pub(super) fn abandon(command: AbandonCommand) -> u8 {
    let AbandonCommand { config, yes } = command;
    load(config, Vec::new()).map_or_else(|code| code, |loaded| migrate::abandon(&loaded.config, yes))
}

pub(super) fn migrate(command: MigrateCommand) -> u8 {
    let flags = command.common.settings.with("migration.filetracker_url", command.filetracker_url);
    start(From::Server, command.common, flags)
}

pub(super) fn migrate_v1(command: MigrateV1Command) -> u8 {
    let flags = command.common.settings.with("migration.v1_directory", command.v1_directory);
    start(From::Directory, command.common, flags)
}

fn start(from: From, common: CommonFlags, mut flags: Vec<(&'static str, String)>) -> u8 {
    flags.extend(common.file_list.map(|file| ("migration.file_list", file)));
    let options = MigrateOptions { from, report: common.report };
    load(common.settings.config, flags).map_or_else(|code| code, |loaded| migrate::run(&loaded.config, &options))
}

pub(super) fn compare(command: CompareCommand) -> u8 {
    let CompareCommand { settings, filetracker_url, v1_directory, deep, json } = command;
    let (from, flags) = match v1_directory {
        Some(directory) => (From::Directory, settings.with("migration.v1_directory", Some(directory))),
        None => (From::Server, settings.with("migration.filetracker_url", filetracker_url)),
    };
    let loaded = match load(settings.config, flags) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    let migration = &loaded.config.migration;
    let has_directory_only = migration.filetracker_url.is_none() && migration.v1_directory.is_some();
    let from = if has_directory_only { From::Directory } else { from };
    migrate::compare(&loaded.config, CompareOptions { from, deep, json })
}
