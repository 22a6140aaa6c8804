//! The command line: one file per group of commands.

mod ask;
mod care;
mod clean;
mod instances;
mod manual;
mod migrate;
mod server;
mod token;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;

use structopt::StructOpt;
use structopt::clap::{AppSettings, ErrorKind};

use self::ask::{HealthCommand, StatsCommand};
use self::care::{ExportCommand, ImportCommand, QuarantineCommand, RepairCommand, VerifyCommand};
use self::clean::CleanFlags;
use self::manual::{CompletionsCommand, ManCommand};
use self::migrate::{AbandonCommand, CompareCommand, MigrateCommand, MigrateV1Command};
use self::server::{LiveMigrateCommand, LiveMigrateV1Command, ServerOptions};
use self::token::TokenCommand;
use crate::config::{self, Inputs, Loaded, docs};
use crate::exit;

const ABOUT: &str = "A Filetracker-compatible server that stores every content once, on S3 or in a local folder.";

const EXAMPLES: &str = "\
EXAMPLES:
    s3dedup                                   serve on port 8080, everything in ./data
    s3dedup server --listen-port 9000 --data-dir /srv/files
    s3dedup server --config s3dedup.toml      settings from a file
    S3_ENDPOINT=http://localhost:3900 S3_ACCESS_KEY=... S3_SECRET_KEY_FILE=/run/secrets/key \\
        BUCKET_NAME=files s3dedup             contents in a bucket
    s3dedup check-config --config s3dedup.toml
                                              what would hold, and where each value comes from
    s3dedup clean --dry-run                   what the cleaner would remove now
    s3dedup stats                             what the running server stores and saves
    s3dedup token new --role read-write --name judge --file tokens
                                              an access token, for ACCESS_TOKENS_FILE
    s3dedup instances --config s3dedup.toml   who serves the same PostgreSQL database
    s3dedup verify --deep --max-mbps 50 --resume verify.state
                                              reads and checks everything, and goes on after an interruption
    s3dedup migrate --filetracker-url http://old:9999 --report report.json
                                              copies all files of an old Filetracker server
    s3dedup compare --filetracker-url http://old:9999 --deep
                                              whether both hold the same files
";

const CONFIGURATION: &str = "\
CONFIGURATION:
    Defaults, then the file of --config (JSON, TOML or YAML by its extension), then the environment,
    then flags; later wins. An empty variable counts as unset, except FILETRACKER_PREFIX.
    Keys of the file: docs/configuration.md, config/s3dedup.toml, or `s3dedup check-config`.
";

#[derive(StructOpt, Debug)]
#[structopt(name = "s3dedup", about = ABOUT, global_setting = AppSettings::VersionlessSubcommands,
            global_setting = AppSettings::UnifiedHelpMessage, global_setting = AppSettings::DeriveDisplayOrder,
            setting = AppSettings::DisableHelpSubcommand)]
struct Cli {
    #[structopt(subcommand)]
    command: Option<Command>,
}

#[derive(StructOpt, Debug)]
enum Command {
    /// Serves; this is also what happens without a subcommand
    #[structopt(after_help = server::HELP)]
    Server(ServerOptions),
    /// Prints the effective configuration, secrets masked, or the line that says what is wrong
    CheckConfig(ReportOptions),
    /// Lists the instances that share the PostgreSQL database
    #[structopt(after_help = instances::HELP)]
    Instances(ReportOptions),
    /// Tells what a running server stores and saves
    #[structopt(after_help = ask::STATS_HELP)]
    Stats(StatsCommand),
    /// Asks a running server whether it is well
    #[structopt(after_help = ask::HEALTH_HELP)]
    Healthcheck(HealthCommand),
    /// Makes and lists access tokens
    #[structopt(after_help = token::HELP)]
    Token(TokenCommand),
    /// Removes what no file uses, once
    #[structopt(after_help = clean::HELP)]
    Clean(CleanFlags),
    /// Checks that the store is whole: counts, totals, and that every object is there
    #[structopt(after_help = care::VERIFY_HELP)]
    Verify(VerifyCommand),
    /// Puts right what verify finds; deletes nothing
    #[structopt(after_help = care::REPAIR_HELP)]
    Repair(RepairCommand),
    /// Lists objects that a repair put aside, or lets go of them
    #[structopt(after_help = care::QUARANTINE_HELP)]
    Quarantine(QuarantineCommand),
    /// Writes all names with what they hold, as lines of JSON
    Export(ExportCommand),
    /// Restores names that were exported, where their contents are known; newer names stay
    #[structopt(after_help = care::IMPORT_HELP)]
    Import(ImportCommand),
    /// Copies all files of an old Filetracker server
    #[structopt(after_help = migrate::HELP)]
    Migrate(MigrateCommand),
    /// Copies all files of an old Filetracker server of version 1 from its disk
    #[structopt(name = "migrate-v1", after_help = migrate::HELP)]
    MigrateV1(MigrateV1Command),
    /// Serves beside an old Filetracker server while its files are copied
    #[structopt(name = "live-migrate", after_help = server::LIVE_HELP)]
    LiveMigrate(LiveMigrateCommand),
    /// Serves beside an old Filetracker server of version 1, or its directory, while the files are copied
    #[structopt(name = "live-migrate-v1", after_help = server::LIVE_HELP)]
    LiveMigrateV1(LiveMigrateV1Command),
    /// Compares the files of an old Filetracker server with those here
    #[structopt(after_help = migrate::COMPARE_HELP)]
    Compare(CompareCommand),
    /// Gives up an unfinished migration, and what an old server was not told of
    #[structopt(name = "abandon-migration", after_help = migrate::ABANDON_HELP)]
    AbandonMigration(AbandonCommand),
    /// Prints the completions of a shell
    Completions(CompletionsCommand),
    /// Writes the manual pages into a folder
    Man(ManCommand),
}

#[derive(StructOpt, Debug)]
struct ReportOptions {
    /// Reads settings from this file too
    #[structopt(long, value_name = "FILE", parse(from_os_str))]
    config: Option<PathBuf>,
    /// Prints JSON
    #[structopt(long)]
    json: bool,
}

/// Runs what the command line asks for and returns the exit code.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let command = match parse(arguments) {
        Ok(command) => command,
        Err(error) if matches!(error.kind, ErrorKind::HelpDisplayed | ErrorKind::VersionDisplayed) => {
            say(&error.message);
            return exit::OK;
        }
        Err(error) => {
            complain(&error.message);
            return exit::WRONG_USE;
        }
    };
    match command {
        Command::Server(options) => server::run(options),
        Command::CheckConfig(options) => check_config(options),
        Command::Instances(options) => instances::run(options),
        Command::Stats(command) => ask::stats(command),
        Command::Healthcheck(command) => ask::healthcheck(command),
        Command::Token(command) => token::run(command),
        Command::Clean(flags) => clean::run(&flags),
        Command::Verify(command) => care::verify(command),
        Command::Repair(command) => care::repair(command),
        Command::Quarantine(command) => care::quarantine(command),
        Command::Export(command) => care::export(command),
        Command::Import(command) => care::import(command),
        Command::Migrate(command) => migrate::migrate(command),
        Command::MigrateV1(command) => migrate::migrate_v1(command),
        Command::LiveMigrate(command) => server::live_migrate(command),
        Command::LiveMigrateV1(command) => server::live_migrate_v1(command),
        Command::Compare(command) => migrate::compare(command),
        Command::AbandonMigration(command) => migrate::abandon(command),
        Command::Completions(command) => manual::completions(&command),
        Command::Man(command) => manual::man(&command),
    }
}

fn check_config(options: ReportOptions) -> u8 {
    match load(options.config, Vec::new()) {
        Ok(loaded) => {
            if options.json {
                say(&format!("{:#}", loaded.to_json()));
            } else {
                say(loaded.to_table().trim_end());
            }
            exit::OK
        }
        Err(code) => code,
    }
}

fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, structopt::clap::Error> {
    let after = after_help();
    let matches = Cli::clap().after_help(after.as_str()).get_matches_from_safe(arguments)?;
    Ok(Cli::from_clap(&matches).command.unwrap_or_else(|| Command::Server(ServerOptions::default())))
}

fn after_help() -> String {
    let (environment, codes) = (docs::environment_help(), exit::HELP);
    format!("{EXAMPLES}\n{CONFIGURATION}\nENVIRONMENT [default]:\n{environment}\nEXIT CODES:\n{codes}")
}

/// The help of a command below `s3dedup`, each paragraph in one line.
fn help_of(path: &[String]) -> String {
    let words = std::iter::once("s3dedup").chain(path.iter().map(String::as_str)).chain(["--help"]);
    let after = after_help();
    // 0: no limit
    let asked = Cli::clap().after_help(after.as_str()).set_term_width(0).get_matches_from_safe(words);
    asked.err().map(|error| error.message).unwrap_or_default()
}

fn load(file: Option<PathBuf>, flags: Vec<(&'static str, String)>) -> Result<Loaded, u8> {
    config::load(&Inputs { file, variable: &|name| std::env::var_os(name), flags }).map_err(|error| {
        complain(&format!("s3dedup: configuration: {error}"));
        exit::WRONG_USE
    })
}

/// Prints a line; a reader that went away is no reason to panic, as `println!` would.
fn say(text: &str) {
    let _ = writeln!(io::stdout(), "{text}");
}

fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::table::SETTINGS;

    fn parsed(arguments: &[&str]) -> Result<Command, structopt::clap::Error> {
        parse(std::iter::once("s3dedup").chain(arguments.iter().copied()).map(OsString::from))
    }

    #[test]
    fn no_subcommand_serves_from_the_environment() {
        let Command::Server(options) = parsed(&[]).unwrap() else { panic!() };
        assert!(options.config.is_none() && options.flags().is_empty());
        assert!(matches!(parsed(&["server", "--env"]), Ok(Command::Server(_))));
    }

    #[test]
    fn every_flag_of_the_table_reaches_its_key() {
        for setting in SETTINGS {
            let Some(flag) = setting.flag else { continue };
            let Command::Server(options) = parsed(&["server", flag, "x"]).unwrap() else { panic!() };
            assert_eq!(options.flags(), [(setting.key, "x".to_owned())]);
        }
    }

    #[test]
    fn what_stands_below_the_flags_is_not_broken_anew() {
        use super::{care, instances, token};
        let texts = [
            (server::HELP, server::LIVE_HELP),
            (migrate::HELP, migrate::COMPARE_HELP),
            (migrate::ABANDON_HELP, clean::HELP),
            (care::VERIFY_HELP, care::REPAIR_HELP),
            (care::QUARANTINE_HELP, care::IMPORT_HELP),
            (ask::STATS_HELP, ask::HEALTH_HELP),
            (instances::HELP, token::HELP),
        ];
        // clap breaks lines that are longer, in the middle of a paragraph.
        for line in texts.into_iter().flat_map(|(one, other)| [one, other]).flat_map(str::lines) {
            assert!(line.chars().count() < 120, "{line}");
        }
    }

    #[test]
    fn env_and_config_exclude_each_other() {
        let error = parsed(&["server", "--env", "--config", "a.toml"]).unwrap_err();
        assert_eq!(error.kind, ErrorKind::ArgumentConflict);
    }

    #[test]
    fn exit_codes_tell_wrong_use_from_success() {
        let code =
            |arguments: &[&str]| run(std::iter::once("s3dedup").chain(arguments.iter().copied()).map(OsString::from));
        assert_eq!(code(&["--version"]), exit::OK);
        assert_eq!(code(&["check-config", "--config", "config/s3.json", "--json"]), exit::OK);
        assert_eq!(code(&["check-config", "--config", "/nowhere/a.toml"]), exit::WRONG_USE);
        assert_eq!(code(&["server", "--listen-port", "eighty"]), exit::WRONG_USE);
        assert_eq!(code(&["serve"]), exit::WRONG_USE);
        assert_eq!(code(&["clean", "--delete-orphans"]), exit::WRONG_USE);
        assert_eq!(code(&["stats", "--url", "ftp://a"]), exit::WRONG_USE);
        assert_eq!(code(&["instances", "--config", "config/dev.toml"]), exit::WRONG_USE);
    }

    #[test]
    fn help_teaches_variables_examples_and_exit_codes() {
        let help = parsed(&["--help"]).unwrap_err();
        assert_eq!(help.kind, ErrorKind::HelpDisplayed);
        for part in ["EXAMPLES", "S3_SECRET_KEY_FILE", "EXIT CODES", "check-config", "later wins"] {
            assert!(help.message.contains(part), "{part}");
        }
    }
}
