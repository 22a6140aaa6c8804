//! The log: lines for people or JSON objects on standard error, and JSON objects in a file if one is wanted.
//!
//! Lines carry the id of the request on whose behalf they were written ([`Behalf`]). Whatever goes wrong with the file, the
//! server goes on (`queue.rs`).

mod file;
mod line;
mod panics;
mod queue;

use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use env_logger::{Builder, Logger, Target};
use log::{Level, LevelFilter, Log, Metadata, Record};
use s3dedup_actors::Behalf;

use self::file::{LogFile, Rotation};
use self::queue::Queue;
use crate::config::{self, Logging, Rotate};
use crate::terminal;

pub use self::queue::lost;

/// Crates that log at the configured level; all others only warn, unless the level is trace.
const OWN_CRATES: [&str; 2] = ["s3dedup", "s3dedup_actors"];

/// Crates that log at the level of debug or trace only. The first calls it an error when a client sends
/// garbage or goes away, and repeats failures of answers that the front end has logged itself; the second
/// has a line for every connection to PostgreSQL that ends, where the engine has one for all.
const QUIET_CRATES: [&str; 2] = ["actix_http", "deadpool"];

/// Where the lines of the access log come from. They are there when they are wanted, whatever the level.
pub const ACCESS: &str = "s3dedup::access";

/// How long the end of the process waits for the last lines to get into the file.
const FLUSH_MAX: Duration = Duration::from_secs(2);

/// Starts the log of a command: on standard error. A second call changes nothing.
pub fn init(logging: &Logging) {
    start(logging, None);
}

/// Starts the log of a server: on standard error, and in the file if there is one. What comes back sees to it that the file
/// has all lines at the end.
pub fn init_server(logging: &Logging) -> Flush {
    let file = logging.json_path.as_ref().map(|path| {
        let rotation = match logging.json_rotate {
            Rotate::Daily => Rotation::Daily(logging.json_max_bytes),
            Rotate::Size => Rotation::Size(logging.json_max_bytes),
            Rotate::Never => Rotation::Never,
        };
        Queue::start(LogFile::new(path.clone(), rotation, logging.json_keep))
    });
    let (queue, refused) = match file {
        Some(Ok(queue)) => (Some(queue), None),
        Some(Err(error)) => (None, Some(error)),
        None => (None, None),
    };
    start(logging, queue.clone());
    if let Some(error) = refused {
        log::warn!("there is no log file: no thread for it error=\"{error}\"");
    }
    Flush(queue)
}

/// Dropped, it lets what was logged get into the file, for a moment at most.
pub struct Flush(Option<Queue>);

impl Drop for Flush {
    fn drop(&mut self) {
        if let Some(queue) = &self.0 {
            queue.flush(FLUSH_MAX);
        }
    }
}

fn start(logging: &Logging, file: Option<Queue>) {
    let level = filter(logging.level);
    let mut builder = Builder::new();
    set_levels(&mut builder, level, logging.access);
    if logging.json {
        json_format(&mut builder);
    } else {
        human_format(&mut builder);
    }
    let people = builder.build();
    let most = people.filter();
    if log::set_boxed_logger(Box::new(Both { people, file })).is_ok() {
        log::set_max_level(most);
        panics::log_them();
    }
}

/// Both places; the levels are the same.
struct Both {
    people: Logger,
    file: Option<Queue>,
}

impl Log for Both {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.people.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.people.matches(record) {
            return;
        }
        self.people.log(record);
        if let Some(file) = &self.file {
            file.push(line::json(record, SystemTime::now(), &Behalf::current()));
        }
    }

    fn flush(&self) {
        self.people.flush();
    }
}

fn set_levels(builder: &mut Builder, level: LevelFilter, access: bool) {
    let others = if level == LevelFilter::Trace { level } else { level.min(LevelFilter::Warn) };
    builder.filter_level(others);
    for own in OWN_CRATES {
        builder.filter_module(own, level);
    }
    if access {
        builder.filter_module(ACCESS, level.max(LevelFilter::Info));
    }
    if level < LevelFilter::Debug {
        for quiet in QUIET_CRATES {
            builder.filter_module(quiet, LevelFilter::Off);
        }
    }
}

fn human_format(builder: &mut Builder) {
    builder.format(|out, record| {
        let style = out.default_level_style(record.level());
        let level = format!("{style}{:5}{style:#}", record.level());
        let text = line::human(record, SystemTime::now(), &level, &Behalf::current());
        // what is drawn there is to go, and everything leaves in one piece
        writeln!(out, "{}{text}", terminal::clearing())
    });
}

fn json_format(builder: &mut Builder) {
    builder.format(|out, record| writeln!(out, "{}", line::json(record, SystemTime::now(), &Behalf::current())));
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

    fn logs(configured: LevelFilter, access: bool, level: Level, target: &str) -> bool {
        let mut builder = Builder::new();
        set_levels(&mut builder, configured, access);
        builder.build().enabled(&Metadata::builder().level(level).target(target).build())
    }

    #[test]
    fn noise_about_clients_is_not_logged_before_debug() {
        let logs = |configured, level, target| logs(configured, false, level, target);
        for configured in [LevelFilter::Error, LevelFilter::Warn, LevelFilter::Info] {
            assert!(!logs(configured, Level::Error, "actix_http::h1::dispatcher"));
            assert!(!logs(configured, Level::Warn, "deadpool.postgres"));
            assert!(logs(configured, Level::Error, "actix_server") && logs(configured, Level::Error, "s3dedup::http"));
        }
        assert!(logs(LevelFilter::Debug, Level::Error, "actix_http::h1::dispatcher"));
        assert!(!logs(LevelFilter::Debug, Level::Debug, "actix_http::h1::dispatcher"));
        assert!(logs(LevelFilter::Trace, Level::Trace, "actix_http::h1::dispatcher"));
    }

    #[test]
    fn the_libraries_only_warn_below_trace() {
        for library in ["tokio_postgres", "tokio_postgres::connection", "s3", "reqwest", "actix_server", "hyper"] {
            assert!(!logs(LevelFilter::Debug, true, Level::Info, library));
            assert!(logs(LevelFilter::Info, true, Level::Warn, library));
        }
    }

    #[test]
    fn the_access_log_does_not_depend_on_the_level() {
        assert!(logs(LevelFilter::Error, true, Level::Info, ACCESS));
        assert!(!logs(LevelFilter::Error, true, Level::Info, "s3dedup::http"));
        assert!(!logs(LevelFilter::Error, false, Level::Info, ACCESS));
    }
}
