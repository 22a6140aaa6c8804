//! `s3dedup server`: its flags.

use std::path::PathBuf;

use structopt::StructOpt;

use super::load;
use crate::boot;

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
}

pub(super) fn run(options: ServerOptions) -> u8 {
    load(options.config.clone(), options.flags()).map_or_else(|code| code, |loaded| boot::run(&loaded.config))
}

impl ServerOptions {
    /// Keys of the table with the values given.
    pub(super) fn flags(self) -> Vec<(&'static str, String)> {
        let given = [
            ("bucket.address", self.listen_address),
            ("bucket.port", self.listen_port),
            ("data_dir", self.data_dir),
            ("logging.level", self.log_level),
        ];
        given.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
    }
}
