//! Commands that ask a running server: `s3dedup stats`, `s3dedup healthcheck`.

use std::path::PathBuf;

use structopt::StructOpt;

use super::{complain, load, say};
use crate::ask::Place;
use crate::config::one_line;
use crate::exit;
use crate::observe::shown::stats_table;

pub(super) const STATS_HELP: &str = "\
Asks the server that the configuration describes, on this machine. Exit code 1: it does not answer.
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
}

impl Whom {
    fn place(self) -> Result<Place, u8> {
        match self.url {
            Some(place) => Ok(place),
            None => load(self.config, Vec::new()).map(|loaded| Place::of(&loaded.config)),
        }
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
    whom.place().map_or_else(|code| code, |place| told(shown(&place, json), say))
}

pub(super) fn healthcheck(command: HealthCommand) -> u8 {
    let HealthCommand { whom, ready } = command;
    whom.place().map_or_else(|code| code, |place| told(healthy(&place, ready), |_| ()))
}

fn told(outcome: Result<String, String>, say: fn(&str)) -> u8 {
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

fn shown(place: &Place, json: bool) -> Result<String, String> {
    let answer = place.get("/api/stats")?;
    let other = || format!("the server at {place} answers {}: {}", answer.status, answer.body.trim_end());
    if answer.status != 200 {
        return Err(other());
    }
    let stats: serde_json::Value = serde_json::from_str(&answer.body).map_err(|_| other())?;
    if json { Ok(format!("{stats:#}")) } else { stats_table(&stats).ok_or_else(other) }
}

fn healthy(place: &Place, ready: bool) -> Result<String, String> {
    let answer = place.get(if ready { "/ready" } else { "/health" })?;
    match answer.status {
        200 => Ok(answer.body),
        status => Err(format!("the server at {place} answers {status}: {}", answer.body.trim_end())),
    }
}
