//! The command line.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;

use s3dedup_actors::cleaner::CleanOptions;
use s3dedup_actors::model::BlobKey;
use structopt::StructOpt;
use structopt::clap::{AppSettings, ErrorKind};

use crate::care::{self, QuarantineAction, RepairOptions, ReportTo, VerifyOptions};
use crate::config::{self, Config, Inputs, Loaded, MetadataType, docs};
use crate::{boot, clean, exit, instances};

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
    s3dedup instances --config s3dedup.toml   who serves the same PostgreSQL database
    s3dedup verify --deep --max-mbps 50 --resume verify.state
                                              reads and checks everything, and goes on after an interruption
";

const CONFIGURATION: &str = "\
CONFIGURATION:
    Defaults, then the file of --config (JSON, TOML or YAML by its extension), then the environment,
    then flags; later wins. An empty variable counts as unset, except FILETRACKER_PREFIX.
    Keys of the file: docs/configuration.md, config/s3dedup.toml, or `s3dedup check-config`.
";

const SERVER_HELP: &str = "\
SIGTERM or SIGINT lets requests in flight finish and ends with status 0; a second one ends at once.
`s3dedup --help` lists all environment variables and exit codes.
";

const INSTANCES_HELP: &str = "\
An instance that was not heard of for 15 seconds is gone; after a week it is forgotten.
";

const CLEAN_HELP: &str = "\
Removes contents that no file has used for CLEANER_GRACE seconds and what abandoned uploads left, up to
CLEANER_MAX_DELETES objects. The server does the same by itself every CLEANER_INTERVAL seconds. With SQLite the server
must be stopped; with PostgreSQL it may run. Ends with 0 when it ran (the summary says whether it is partial) and with 1
when it could not.
";

const VERIFY_HELP: &str = "\
Changes nothing and takes no lock: servers may run meanwhile. Exit code 0: whole; 9: damaged;
1: could not look, which says nothing about the store.
";

const REPAIR_HELP: &str = "\
With SQLite or contents in a folder the server must be stopped. Exit code 0: nothing was wrong, or
all of it was put right; 9: damage is left (with --dry-run: was found); 1: could not do it.
";

const QUARANTINE_HELP: &str = "\
Listing takes no lock. The rest: with SQLite or contents in a folder the server must be stopped. Exit code 0: done;
10: some objects stay where they are; 1: could not do it.
";

const IMPORT_HELP: &str = "\
With SQLite or contents in a folder the server must be stopped. Exit code 0: every name is there;
10: contents of some names are missing; 1: could not do it.
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
    #[structopt(after_help = SERVER_HELP)]
    Server(ServerOptions),
    /// Prints the effective configuration, secrets masked, or the line that says what is wrong
    CheckConfig(ReportOptions),
    /// Lists the instances that share the PostgreSQL database
    #[structopt(after_help = INSTANCES_HELP)]
    Instances(ReportOptions),
    /// Removes what no file uses, once
    #[structopt(after_help = CLEAN_HELP)]
    Clean(CleanFlags),
    /// Checks that the store is whole: counts, totals, and that every object is there
    #[structopt(after_help = VERIFY_HELP)]
    Verify(VerifyCommand),
    /// Puts right what verify finds; deletes nothing
    #[structopt(after_help = REPAIR_HELP)]
    Repair(RepairCommand),
    /// Lists objects that a repair put aside, or lets go of them
    #[structopt(after_help = QUARANTINE_HELP)]
    Quarantine(QuarantineCommand),
    /// Writes all names with what they hold, as lines of JSON
    Export(ExportCommand),
    /// Restores names that were exported, where their contents are known; newer names stay
    #[structopt(after_help = IMPORT_HELP)]
    Import(ImportCommand),
}

#[derive(StructOpt, Debug)]
enum QuarantineCommand {
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
struct RepairCommand {
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
struct ExportCommand {
    /// Reads settings from this file too
    #[structopt(long, value_name = "FILE", parse(from_os_str))]
    config: Option<PathBuf>,
    /// Writes to this file, replaced as a whole when all is written; without it to standard output
    #[structopt(long, value_name = "FILE", parse(from_os_str))]
    output: Option<PathBuf>,
}

#[derive(StructOpt, Debug)]
struct ImportCommand {
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
struct VerifyCommand {
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

#[derive(StructOpt, Debug, Default)]
struct ServerOptions {
    /// Reads no file: settings come from the environment and flags only (the default)
    #[structopt(long, conflicts_with = "config")]
    #[expect(dead_code, reason = "it only keeps --config away: the environment is always read")]
    env: bool,
    /// Reads settings from a file too; the environment and flags beat it
    #[structopt(long, value_name = "FILE", parse(from_os_str))]
    config: Option<PathBuf>,
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

#[derive(StructOpt, Debug)]
struct CleanFlags {
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
        Command::Server(options) => match load(options.config.clone(), options.flags()) {
            Ok(loaded) => boot::run(&loaded.config),
            Err(code) => code,
        },
        Command::CheckConfig(options) => match load(options.config, Vec::new()) {
            Ok(loaded) if options.json => {
                say(&format!("{:#}", loaded.to_json()));
                exit::OK
            }
            Ok(loaded) => {
                say(loaded.to_table().trim_end());
                exit::OK
            }
            Err(code) => code,
        },
        Command::Instances(options) => match load(options.config, Vec::new()) {
            Ok(loaded) => list_instances(&loaded.config, options.json),
            Err(code) => code,
        },
        Command::Clean(flags) => match load(flags.report.config.clone(), Vec::new()) {
            Ok(loaded) => clean_once(&loaded.config, &flags),
            Err(code) => code,
        },
        Command::Verify(VerifyCommand { config, deep, max_mbps, resume, report }) => {
            let options = VerifyOptions { deep, mbps: max_mbps, resume, report: report.into() };
            load(config, Vec::new()).map_or_else(|code| code, |loaded| care::verify(&loaded.config, &options))
        }
        Command::Repair(RepairCommand { config, dry_run, deep, rebuild, release_adopted, max_mbps, report }) => {
            let options =
                RepairOptions { dry_run, deep, rebuild, release_adopted, mbps: max_mbps, report: report.into() };
            load(config, Vec::new()).map_or_else(|code| code, |loaded| care::repair(&loaded.config, &options))
        }
        Command::Quarantine(command) => {
            let (ReportOptions { config, json }, action) = match command {
                QuarantineCommand::List(report) => (report, QuarantineAction::List),
                QuarantineCommand::Lift { report, objects } => (report, QuarantineAction::Lift(objects)),
                QuarantineCommand::Drop { report, objects, .. } => (report, QuarantineAction::Drop(objects)),
            };
            let report = ReportTo { file: None, json };
            load(config, Vec::new())
                .map_or_else(|code| code, |loaded| care::quarantine(&loaded.config, &action, &report))
        }
        Command::Export(ExportCommand { config, output }) => {
            load(config, Vec::new()).map_or_else(|code| code, |loaded| care::export(&loaded.config, output.as_deref()))
        }
        Command::Import(ImportCommand { config, input, report }) => load(config, Vec::new())
            .map_or_else(|code| code, |loaded| care::import(&loaded.config, &input, &report.into())),
    }
}

fn clean_once(config: &Config, flags: &CleanFlags) -> u8 {
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

fn list_instances(config: &Config, json: bool) -> u8 {
    if config.kvstorage_type != MetadataType::Postgres {
        complain("s3dedup: instances are listed with KVSTORAGE_TYPE=postgres only: an SQLite database has one");
        return exit::WRONG_USE;
    }
    match instances::ask(config) {
        Ok(known) if json => say(&format!("{:#}", instances::to_json(&known))),
        Ok(known) => say(&instances::table(&known)),
        Err(reason) => {
            complain(&format!("s3dedup: {}", config::one_line(&reason)));
            return exit::CANNOT_START;
        }
    }
    exit::OK
}

fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, structopt::clap::Error> {
    let (environment, codes) = (docs::environment_help(), exit::HELP);
    let after = format!("{EXAMPLES}\n{CONFIGURATION}\nENVIRONMENT [default]:\n{environment}\nEXIT CODES:\n{codes}");
    let matches = Cli::clap().after_help(after.as_str()).get_matches_from_safe(arguments)?;
    Ok(Cli::from_clap(&matches).command.unwrap_or_else(|| Command::Server(ServerOptions::default())))
}

fn load(file: Option<PathBuf>, flags: Vec<(&'static str, String)>) -> Result<Loaded, u8> {
    config::load(&Inputs { file, variable: &|name| std::env::var_os(name), flags }).map_err(|error| {
        complain(&format!("s3dedup: configuration: {error}"));
        exit::WRONG_USE
    })
}

impl ServerOptions {
    /// Keys of the table with the values given.
    fn flags(self) -> Vec<(&'static str, String)> {
        let given = [
            ("bucket.address", self.listen_address),
            ("bucket.port", self.listen_port),
            ("data_dir", self.data_dir),
            ("logging.level", self.log_level),
        ];
        given.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
    }
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
