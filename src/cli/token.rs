//! `s3dedup token`: making and listing access tokens.

use std::path::{Path, PathBuf};

use structopt::StructOpt;

use super::ask::told;
use super::{complain, load, say};
use crate::access::token::{Token, random_name};
use crate::access::{Role, file, table};
use crate::exit;

pub(super) const HELP: &str = "\
A running server reads its file of tokens again on SIGHUP. Who has a token shows it as `Authorization: Bearer TOKEN`,
or as the password of any user: http://user:TOKEN@host/
";

#[derive(StructOpt, Debug)]
pub(super) enum TokenCommand {
    /// Makes a token and prints it, this once; only its digest is kept, in the line for the file
    New {
        /// read-only, read-write or admin; each may do what those before it may
        #[structopt(long, value_name = "ROLE")]
        role: Role,
        /// Name of the token, for people
        #[structopt(long, value_name = "NAME", parse(try_from_str = parse_name))]
        name: Option<String>,
        /// Adds the line to this file, which is made when it is missing, instead of printing it
        #[structopt(long, value_name = "FILE", parse(from_os_str))]
        file: Option<PathBuf>,
    },
    /// Lists names and roles
    List {
        /// Reads this file instead of that of ACCESS_TOKENS_FILE
        #[structopt(long, value_name = "FILE", parse(from_os_str))]
        file: Option<PathBuf>,
        /// Reads settings from this file too
        #[structopt(long, value_name = "FILE", parse(from_os_str))]
        config: Option<PathBuf>,
    },
}

pub(super) fn run(command: TokenCommand) -> u8 {
    match command {
        TokenCommand::New { role, name, file } => told(new(role, name, file.as_deref()), say),
        TokenCommand::List { file: Some(file), .. } => told(list(&file), say),
        TokenCommand::List { file: None, config } => match load(config, Vec::new()) {
            Ok(loaded) => match loaded.config.access.tokens_file {
                Some(file) => told(list(&file), say),
                None => {
                    complain("s3dedup: no file of tokens: neither --file nor ACCESS_TOKENS_FILE names one");
                    exit::WRONG_USE
                }
            },
            Err(code) => code,
        },
    }
}

fn parse_name(text: &str) -> Result<String, &'static str> {
    let wrong = "expected at most 64 letters, digits, '.', '_' or '-'";
    if table::is_name(text) { Ok(text.to_owned()) } else { Err(wrong) }
}

/// The token alone, for scripts; then the line, when nobody put it into a file.
fn new(role: Role, name: Option<String>, file: Option<&Path>) -> Result<String, String> {
    let name = name.map_or_else(random_name, Ok)?;
    let token = Token::random()?;
    let line = token.line(&name, role);
    let Some(file) = file else { return Ok(format!("{}\n{line}", token.reveal())) };
    file::append(file, &line)?;
    Ok(token.reveal().to_owned())
}

fn list(file: &Path) -> Result<String, String> {
    let table = file::load(file)?;
    let width = table.entries().iter().map(|entry| entry.name.len()).max().unwrap_or(0);
    let lines = table.entries().iter().map(|entry| format!("{:width$}  {}", entry.name, entry.role));
    Ok(lines.collect::<Vec<_>>().join("\n"))
}
