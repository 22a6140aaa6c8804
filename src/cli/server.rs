//! `s3dedup server`: its flags.

use std::path::PathBuf;

use structopt::StructOpt;

use super::{complain, load};
use crate::config::{Migration, MigrationMode};
use crate::{boot, exit};

pub(super) const HELP: &str = "\
SIGTERM or SIGINT lets requests in flight finish and ends with status 0; a second one ends at once.
`s3dedup --help` lists all environment variables and exit codes.
";

#[derive(StructOpt, Debug, Default)]
pub(super) struct ServerOptions {
    /// Reads no file: settings come from the environment and flags only (the default)
    #[structopt(long, conflicts_with = "config")]
    #[expect(dead_code, reason = "it only keeps --config away: the environment is always read")]
    env: bool,
    /// Reads settings from a file too; the environment and flags beat it
    #[structopt(long, value_name = "FILE", parse(from_os_str))]
    pub(super) config: Option<PathBuf>,
    /// Address to listen on
    #[structopt(long, value_name = "ADDRESS")]
    listen_address: Option<String>,
    /// Port to listen on; 0 picks a free one
    #[structopt(long, value_name = "PORT")]
    listen_port: Option<String>,
    /// Folder of everything that has no place of its own
    #[structopt(long, value_name = "FOLDER")]
    data_dir: Option<String>,
    /// error, warn, info, debug or trace
    #[structopt(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// Stands beside this old Filetracker server, and copies its files meanwhile
    #[structopt(long, value_name = "URL")]
    migrate_from: Option<String>,
    /// Stands beside the files of this directory of an old server of version 1, and copies them
    #[structopt(long, value_name = "DIR")]
    migrate_v1_directory: Option<String>,
    /// With an old server: copies only what clients ask for
    #[structopt(long, conflicts_with = "file-list")]
    proxy_only: bool,
    /// With an old server: copies the files that this file names, one a line, instead of all
    #[structopt(long, value_name = "FILE")]
    file_list: Option<String>,
    /// Files that are copied at once
    #[structopt(long, value_name = "N")]
    max_concurrency: Option<String>,
}

pub(super) const LIVE_HELP: &str = "\
Serves while clients move: what is not here comes from the old server, every write goes to both, and the files of the
old server are copied meanwhile. docs/migration.md shows the steps, and the way back. Any number of times: what is
here, as new or newer, is not copied again.
";

/// A server beside an old one.
#[derive(StructOpt, Debug)]
pub(super) struct LiveMigrateCommand {
    #[structopt(flatten)]
    server: ServerOptions,
    /// The old server, its prefix included; instead of FILETRACKER_URL
    #[structopt(long, value_name = "URL")]
    filetracker_url: Option<String>,
}

/// A server beside an old one of version 1.
#[derive(StructOpt, Debug)]
pub(super) struct LiveMigrateV1Command {
    #[structopt(flatten)]
    server: ServerOptions,
    /// The directory of the old server, which holds `files`; instead of FILETRACKER_V1_DIR
    #[structopt(long, value_name = "DIR")]
    v1_directory: Option<String>,
    /// The old server over HTTP, for what is not in the directory, or without one; instead of FILETRACKER_URL
    #[structopt(long, value_name = "URL")]
    filetracker_url: Option<String>,
}

pub(super) fn live_migrate(command: LiveMigrateCommand) -> u8 {
    let LiveMigrateCommand { mut server, filetracker_url } = command;
    server.migrate_from = filetracker_url.or(server.migrate_from);
    let has_directory = server.migrate_v1_directory.is_some();
    serve_beside(server, |migration| {
        if !has_directory {
            leave(&mut migration.v1_directory, "FILETRACKER_V1_DIR");
        }
        match (&migration.filetracker_url, &migration.v1_directory) {
            (None, None) => Err("--filetracker-url or FILETRACKER_URL is missing"),
            _ => Ok(()),
        }
    })
}

pub(super) fn live_migrate_v1(command: LiveMigrateV1Command) -> u8 {
    let LiveMigrateV1Command { mut server, v1_directory, filetracker_url } = command;
    server.migrate_from = filetracker_url.or(server.migrate_from);
    server.migrate_v1_directory = v1_directory.or(server.migrate_v1_directory);
    serve_beside(server, |migration| {
        // Over HTTP there are no names to copy by.
        if migration.v1_directory.is_none() && migration.file_list.is_none() {
            migration.mode = MigrationMode::Proxy;
        }
        match (&migration.filetracker_url, &migration.v1_directory) {
            (None, None) => Err("--v1-directory, --filetracker-url, FILETRACKER_V1_DIR or FILETRACKER_URL is missing"),
            _ => Ok(()),
        }
    })
}

/// Serves in the mode of the command, whatever the settings say; `fit` sees what they say of the old server.
fn serve_beside(options: ServerOptions, fit: impl FnOnce(&mut Migration) -> Result<(), &'static str>) -> u8 {
    let mode = if options.proxy_only { "proxy" } else { "live" };
    let config = options.config.clone();
    let mut flags = options.flags();
    flags.retain(|(key, _)| *key != "migration.mode");
    flags.push(("migration.mode", mode.to_owned()));
    serve(config, flags, fit)
}

pub(super) fn run(options: ServerOptions) -> u8 {
    let is_named = [options.migrate_from.is_some(), options.migrate_v1_directory.is_some()];
    let has_list = options.file_list.is_some();
    serve(options.config.clone(), options.flags(), |migration| {
        // Flags that name an old server name all of it: what else the environment names is of another command.
        match is_named {
            [true, false] => leave(&mut migration.v1_directory, "FILETRACKER_V1_DIR"),
            [false, true] => leave(&mut migration.filetracker_url, "FILETRACKER_URL"),
            _ => {}
        }
        if has_list && migration.mode == MigrationMode::Off {
            return Err(
                "--file-list says what is copied from an old server: --migrate-from or --migrate-v1-directory is \
                        missing",
            );
        }
        Ok(())
    })
}

fn serve(
    file: Option<PathBuf>,
    flags: Vec<(&'static str, String)>,
    fit: impl FnOnce(&mut Migration) -> Result<(), &'static str>,
) -> u8 {
    let mut loaded = match load(file, flags) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    if let Err(problem) = fit(&mut loaded.config.migration).and_then(|()| expect_old_server(&loaded.config.migration)) {
        complain(&format!("s3dedup: {problem}"));
        return exit::WRONG_USE;
    }
    boot::run(&loaded.config)
}

/// Who is to stand beside an old server has to know which one: starting again does not help.
fn expect_old_server(migration: &Migration) -> Result<(), &'static str> {
    let is_named = migration.filetracker_url.is_some() || migration.v1_directory.is_some();
    if migration.mode == MigrationMode::Off || is_named {
        return Ok(());
    }
    Err("the old server is missing: --migrate-from or FILETRACKER_URL, --migrate-v1-directory or FILETRACKER_V1_DIR")
}

/// Does not use a setting; says so when it is there.
fn leave<T>(setting: &mut Option<T>, name: &str) {
    if setting.take().is_some() {
        complain(&format!("s3dedup: {name} is set and not used: the command line names another old server"));
    }
}

impl ServerOptions {
    /// Keys of the table with the values given.
    pub(super) fn flags(self) -> Vec<(&'static str, String)> {
        let mode = match (self.proxy_only, &self.migrate_from, &self.migrate_v1_directory) {
            (true, _, _) => Some("proxy".to_owned()),
            (false, None, None) => None,
            (false, _, _) => Some("live".to_owned()),
        };
        let given = [
            ("bucket.address", self.listen_address),
            ("bucket.port", self.listen_port),
            ("data_dir", self.data_dir),
            ("logging.level", self.log_level),
            ("migration.mode", mode),
            ("migration.filetracker_url", self.migrate_from),
            ("migration.v1_directory", self.migrate_v1_directory),
            ("migration.file_list", self.file_list),
            ("migration.max_concurrency", self.max_concurrency),
        ];
        given.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
    }
}
