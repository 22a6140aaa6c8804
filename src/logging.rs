//! The log: lines for people or JSON objects, on standard error.

use std::fmt::Display;
use std::io::{self, Write};

use env_logger::{Builder, Target};
use log::{Level, LevelFilter, Log, Record};
use serde::Serialize;

use crate::config::{self, Logging, one_line};
use crate::terminal;

/// Crates that log at the configured level; all others only warn, unless the level is trace.
const OWN_CRATES: [&str; 2] = ["s3dedup", "s3dedup_actors"];

/// Crates that log at the level of debug or trace only. The first calls it an error when a client sends
/// garbage or goes away, and repeats failures of answers that the front end has logged itself; the second
/// has a line for every connection to PostgreSQL that ends, where the engine has one for all.
const QUIET_CRATES: [&str; 2] = ["actix_http", "deadpool"];

/// Starts the log. A second call changes nothing.
pub fn init(logging: &Logging) {
    let level = filter(logging.level);
    let mut builder = Builder::new();
    set_levels(&mut builder, level);
    if logging.json {
        json_format(&mut builder);
    } else {
        builder.format(|out, record| {
            let timestamp = out.timestamp_millis();
            let style = out.default_level_style(record.level());
            let level = record.level();
            // a name or a path with a line break in it must not pass for a second line
            let message = one_line(&record.args().to_string());
            let clearing = terminal::clearing();
            writeln!(out, "{clearing}{timestamp} {style}{level:5}{style:#} {} {message}", record.target())
        });
    }
    if builder.try_init().is_ok() {
        log_panics();
    }
}

fn set_levels(builder: &mut Builder, level: LevelFilter) {
    let others = if level == LevelFilter::Trace { level } else { level.min(LevelFilter::Warn) };
    builder.filter_level(others);
    for own in OWN_CRATES {
        builder.filter_module(own, level);
    }
    if level < LevelFilter::Debug {
        for quiet in QUIET_CRATES {
            builder.filter_module(quiet, LevelFilter::Off);
        }
    }
}

fn json_format(builder: &mut Builder) {
    builder.format(|out, record| {
        let timestamp = out.timestamp_millis();
        writeln!(out, "{}", json_line(&timestamp, record.level(), record.target(), &record.args().to_string()))
    });
}

/// One record in JSON, in this order of keys.
#[derive(Serialize)]
struct Line<'a> {
    ts: &'a str,
    level: &'a str,
    target: &'a str,
    message: &'a str,
}

fn json_line(timestamp: &dyn Display, level: Level, target: &str, message: &str) -> String {
    let (ts, level) = (timestamp.to_string(), level.as_str().to_ascii_lowercase());
    // four texts always have a JSON form
    serde_json::to_string(&Line { ts: &ts, level: &level, target, message }).unwrap_or_default()
}

/// Says something on standard output, in JSON when the log is: collectors read both streams.
pub fn announce(logging: &Logging, lines: &[String]) -> io::Result<()> {
    if logging.json {
        let mut builder = Builder::new();
        json_format(builder.filter_level(LevelFilter::Info).target(Target::Stdout));
        let logger = builder.build();
        for line in lines {
            let mut record = Record::builder();
            logger.log(&record.level(Level::Info).target("s3dedup").args(format_args!("{line}")).build());
        }
        return Ok(());
    }
    let mut out = io::stdout().lock();
    for line in lines {
        writeln!(out, "{line}")?;
    }
    out.flush()
}

/// Panics become lines of the log: the engine survives them, so nobody reads them elsewhere.
fn log_panics() {
    std::panic::set_hook(Box::new(|info| {
        let payload = info.payload();
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text");
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let thread = std::thread::current();
        log::error!("panic place={place} thread={} text={text:?}", thread.name().unwrap_or("-"));
    }));
}

fn filter(level: config::Level) -> LevelFilter {
    match level {
        config::Level::Error => LevelFilter::Error,
        config::Level::Warn => LevelFilter::Warn,
        config::Level::Info => LevelFilter::Info,
        config::Level::Debug => LevelFilter::Debug,
        config::Level::Trace => LevelFilter::Trace,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_json_line_is_one_line_and_parses_back() {
        let nasty = "path=\"a\nb\" \u{7} \\ ż";
        let line = json_line(&"2025-01-01T00:00:00.000Z", Level::Warn, "s3dedup::http", nasty);
        assert!(!line.contains('\n') && line.starts_with("{\"ts\":"));
        let back: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(back["message"], nasty);
        assert_eq!((&back["level"], &back["target"]), (&"warn".into(), &"s3dedup::http".into()));
        assert_eq!(back["ts"], "2025-01-01T00:00:00.000Z");
    }
    #[test]
    fn noise_about_clients_is_not_logged_before_debug() {
        let logs = |configured: LevelFilter, level: Level, target: &str| {
            let mut builder = Builder::new();
            set_levels(&mut builder, configured);
            builder.build().enabled(&log::Metadata::builder().level(level).target(target).build())
        };
        for configured in [LevelFilter::Error, LevelFilter::Warn, LevelFilter::Info] {
            assert!(!logs(configured, Level::Error, "actix_http::h1::dispatcher"));
            assert!(!logs(configured, Level::Warn, "deadpool.postgres"));
            assert!(logs(configured, Level::Error, "actix_server") && logs(configured, Level::Error, "s3dedup::http"));
        }
        assert!(logs(LevelFilter::Debug, Level::Error, "actix_http::h1::dispatcher"));
        assert!(!logs(LevelFilter::Debug, Level::Debug, "actix_http::h1::dispatcher"));
        assert!(logs(LevelFilter::Trace, Level::Trace, "actix_http::h1::dispatcher"));
    }
}
