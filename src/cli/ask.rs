//! Commands that ask a running server: `s3dedup stats`, `s3dedup healthcheck`.

use std::path::PathBuf;

use structopt::StructOpt;

use super::{complain, load, say};
use crate::ask::Place;
use crate::config::{self, Config, Secret, one_line};
use crate::exit;
use crate::observe::shown::stats_table;

pub(super) const STATS_HELP: &str = "\
Asks the server that the configuration describes, on this machine. Exit code 1: it does not answer.
A server with access tokens wants one of the role admin: ADMIN_TOKEN, or the file of ADMIN_TOKEN_FILE.
";

pub(super) const HEALTH_HELP: &str = "\
For containers and init systems. Exit code 0: it is; 1: it is not, or does not answer within 5 s.
";

#[derive(StructOpt, Debug)]
struct Whom {
    /// Reads settings from this file too
    #[structopt(long, value_name = "FILE", parse(from_os_str))]
    config: Option<PathBuf>,
    /// Asks this server instead of that of the configuration
    #[structopt(long, value_name = "URL", parse(try_from_str = Place::parse))]
    url: Option<Place>,
    /// Believes the certificates of this file, too, that a server of https shows
    #[structopt(long, value_name = "FILE", parse(from_os_str), requires = "url")]
    ca_file: Option<PathBuf>,
}

impl Whom {
    /// The server, and the token for it; `find` tells which of its listeners.
    fn place(self, find: fn(&Config) -> Place) -> Result<(Place, Option<Secret>), u8> {
        let failed = |reason: String| {
            complain(&format!("s3dedup: {}", one_line(&reason)));
            exit::CANNOT_START
        };
        let loaded = match (&self.url, self.config) {
            // Another server than the one that the configuration describes: only its token counts.
            (Some(_), None) => None,
            (_, config) => Some(load(config, Vec::new())?.config),
        };
        let place = match (self.url, &loaded, self.ca_file) {
            (Some(place), _, Some(file)) => place.with_authorities(&file),
            (Some(place), _, None) => Ok(place),
            (None, Some(config), _) => Ok(find(config)),
            (None, None, _) => Err("no server to ask".to_owned()),
        };
        let token = match loaded {
            Some(config) => config.access.admin_token,
            None => config::admin_token(&|name| std::env::var_os(name)).map_err(|error| {
                complain(&format!("s3dedup: configuration: {error}"));
                exit::WRONG_USE
            })?,
        };
        Ok((place.map_err(failed)?, token))
    }
}

#[derive(StructOpt, Debug)]
pub(super) struct StatsCommand {
    #[structopt(flatten)]
    whom: Whom,
    /// Prints JSON
    #[structopt(long)]
    json: bool,
}

#[derive(StructOpt, Debug)]
pub(super) struct HealthCommand {
    #[structopt(flatten)]
    whom: Whom,
    /// Asks whether it is ready for requests, not only whether it lives
    #[structopt(long)]
    ready: bool,
}

pub(super) fn stats(command: StatsCommand) -> u8 {
    let StatsCommand { whom, json } = command;
    whom.place(Place::of_admin)
        .map_or_else(|code| code, |(place, token)| told(shown(&place, token.as_ref(), json), say))
}

pub(super) fn healthcheck(command: HealthCommand) -> u8 {
    let HealthCommand { whom, ready } = command;
    whom.place(Place::of).map_or_else(|code| code, |(place, _)| told(healthy(&place, ready), |_| ()))
}

/// Says how a command ended; the exit code.
pub(super) fn told(outcome: Result<String, String>, say: fn(&str)) -> u8 {
    match outcome {
        Ok(text) => {
            say(&text);
            exit::OK
        }
        Err(reason) => {
            complain(&format!("s3dedup: {}", one_line(&reason)));
            exit::CANNOT_START
        }
    }
}

fn shown(place: &Place, token: Option<&Secret>, json: bool) -> Result<String, String> {
    let answer = place.get("/api/stats", token)?;
    let other = || format!("the server at {place} answers {}: {}", answer.status, in_one_line(&answer.body));
    if answer.status == 401 || answer.status == 403 {
        return Err(format!("{}; ADMIN_TOKEN or ADMIN_TOKEN_FILE names one of the role admin", other()));
    }
    if answer.status != 200 {
        return Err(other());
    }
    let stats: serde_json::Value = serde_json::from_str(&answer.body).map_err(|_| other())?;
    if json { Ok(format!("{stats:#}")) } else { stats_table(&stats).ok_or_else(other) }
}

fn healthy(place: &Place, ready: bool) -> Result<String, String> {
    let answer = place.get(if ready { "/ready" } else { "/health" }, None)?;
    match answer.status {
        200 => Ok(answer.body),
        status => Err(format!("the server at {place} answers {status}: {}", in_one_line(&answer.body))),
    }
}

/// What an error says, with the id of its request behind it.
fn in_one_line(body: &str) -> String {
    body.trim_end().replace('\n', ", ")
}
