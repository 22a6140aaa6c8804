//! The stores of one case, and the server on them.

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Output};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use s3dedup_actors::testkit::postgres::PostgresServer;

use crate::audit::audit_objects;
use crate::audit::{Database, audit};
use crate::cases::{Action, Case, Contents, Kind, Metadata};
use crate::mix::Client;
use crate::support::TestServer;
use crate::support::between::{Then, between};
use crate::support::s3::{Garage, S3Access, S3InProcess};

pub const VARIABLE: &str = "S3DEDUP_FAILPOINTS";
pub const CLIENTS: usize = 3;
/// How long a run of the cleaner may keep others out after it was killed, generously.
const TURN_MAX: Duration = Duration::from_secs(60);
/// How often a command is repeated that a busy machine kept from its work.
const PATIENCE: usize = 10;
const BUSY_PAUSE: Duration = Duration::from_secs(2);
/// An object with this digest is nobody's.
pub const ORPHAN: &str = "0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e";

pub struct World<'a> {
    pub case: Case,
    pub server: TestServer,
    pub database: Database<'a>,
    s3: Option<S3InProcess>,
    /// A bucket of a server that tells of uploads in parts.
    garage: Option<S3Access>,
    pub clients: Vec<Client>,
    pub wrong: Vec<String>,
    /// What commands printed.
    pub printed: String,
}

impl<'a> World<'a> {
    pub fn new(case: Case, number: usize, postgres: &'a PostgresServer, garage: &OnceLock<Garage>) -> Self {
        let has_parts = case.kind() == Kind::Parts;
        let s3 = (case.contents == Contents::S3 && !has_parts).then(S3InProcess::start);
        let garage = has_parts.then(|| garage.get_or_init(Garage::start).new_bucket(&format!("crash{number}")));
        let mut builder = TestServer::builder();
        for (name, value) in [("MAX_INMEMORY_SIZE", 300_000), ("HTTP_WORKERS", 2), ("CPU_THREADS", 1)] {
            builder = builder.env(name, value);
        }
        if let Some(s3) = &s3 {
            builder = builder.s3(&s3.access);
        }
        if let Some(garage) = &garage {
            // Through what tells of old uploads, where all are young.
            builder = builder.s3(&between(garage, |_| Then::PassOn));
        }
        let name = format!("crash{number}");
        if case.metadata == Metadata::Postgres {
            postgres.sql_in("postgres", &format!("CREATE DATABASE {name}"));
            builder =
                builder.postgres(postgres, &name).env("LOCKS_TYPE", "postgres").env("POSTGRES_MAX_CONNECTIONS", 4);
        }
        // Everything that is unused is cleaned at once, one object after the other.
        for (name, value) in [("CLEANER_INTERVAL", 1), ("CLEANER_GRACE", 0), ("CLEANER_BATCH_SIZE", 1)] {
            builder = builder.env(name, value);
        }
        let server = builder.env("CLEANER_ENABLED", case.kind() == Kind::Clean).prepare();
        let database = match case.metadata {
            Metadata::Sqlite => Database::Sqlite(server.data_dir().join("kv.db")),
            Metadata::Postgres => Database::Postgres(postgres, name),
        };
        let parts = case.point.name().contains("mid-upload") && case.contents == Contents::S3
            || ["put-after-part", "put-before-complete"].contains(&case.point.name());
        let may_seem_slow = case.action == Action::Block;
        let clients = (0..CLIENTS).map(|number| Client::new(number, parts && number == 0));
        let mut clients: Vec<_> = clients.collect();
        clients.iter_mut().for_each(|client| client.may_seem_slow = may_seem_slow);
        let (wrong, printed) = Default::default();
        Self { case, server, database, s3, garage, clients, wrong, printed }
    }

    /// The stored objects.
    pub fn objects(&self) -> Vec<PathBuf> {
        self.s3.as_ref().map_or_else(|| self.server.objects(), S3InProcess::objects)
    }

    /// The folder that all objects are in.
    pub fn root(&self) -> PathBuf {
        match self.objects().first() {
            // Two prefixes and the name.
            Some(object) => object.ancestors().nth(3).unwrap().to_owned(),
            None => panic!("there are no objects"),
        }
    }

    /// An object that no row knows.
    pub fn leave_orphan(&self) {
        let folder = self.root().join("0e/0e");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(ORPHAN), b"orphan").unwrap();
    }

    pub fn has_orphan(&self) -> bool {
        self.objects().iter().any(|object| object.ends_with(ORPHAN))
    }

    /// Runs SQL on the database.
    pub fn sql(&self, text: &str) {
        match &self.database {
            Database::Sqlite(path) => rusqlite::Connection::open(path).unwrap().execute_batch(text).unwrap(),
            Database::Postgres(server, database) => {
                server.sql_in(database, &format!("SET search_path TO s3dedup; {text}"));
            }
        }
    }

    /// A digest as SQL has it.
    pub fn bytes(&self, hex: &str) -> String {
        match &self.database {
            Database::Sqlite(_) => format!("x'{hex}'"),
            Database::Postgres(..) => format!("'\\x{hex}'"),
        }
    }

    /// An intent for an object, as old as a time in seconds says.
    pub fn leave_intent(&self, digest: &str, generation: u64, made_at: u64) {
        let columns = "digest, generation, key_depth, instance, made_at";
        let digest = self.bytes(digest);
        self.sql(&format!("INSERT INTO intents ({columns}) VALUES ({digest}, {generation}, 2, 'gone', {made_at})"));
    }

    /// Compares rows and objects. Nothing may be in flight.
    pub fn look(&mut self) {
        if let Some(garage) = &self.garage {
            let objects = garage.objects().into_iter().map(|(key, size)| (key.to_string(), size));
            self.wrong.extend(audit_objects(&self.database, objects.collect()));
            return;
        }
        let mut objects = self.objects();
        objects.retain(|object| !object.ends_with(ORPHAN));
        self.wrong.extend(audit(&self.database, &objects));
    }

    pub fn arm(&mut self) {
        self.server.set_env(VARIABLE, Some(&self.case.armed()));
    }

    pub fn disarm(&mut self) {
        self.server.set_env(VARIABLE, None);
    }

    pub fn says(&mut self, is_wrong: bool, what: impl Into<String>) {
        self.wrong.extend(is_wrong.then(|| what.into()));
    }

    /// All clients go on with their plans, until these or the server end.
    pub fn all_go_on(&mut self) {
        go_on(&mut self.clients, &self.server);
    }

    pub fn all_check(&mut self) {
        for client in &mut self.clients {
            client.check(&self.server);
        }
    }

    /// Runs a command that the crash point is reached in; returns its output.
    pub fn run_armed(&mut self, arguments: &[&str], well: &[i32]) -> Output {
        self.arm();
        let reached = format!("crash point point={}", self.case.point.name());
        let mut output = self.server.run(arguments);
        for _ in 0..PATIENCE {
            if !is_busy(&output) || String::from_utf8_lossy(&output.stderr).contains(&reached) {
                break;
            }
            std::thread::sleep(BUSY_PAUSE);
            output = self.server.run(arguments);
        }
        self.disarm();
        self.printed += &String::from_utf8_lossy(&output.stderr);
        let is_right = match self.case.action {
            Action::Abort => is_abort(output.status),
            Action::Error => output.status.code() == Some(1),
            Action::Stall | Action::Block => {
                is_busy(&output) || output.status.code().is_some_and(|code| well.contains(&code))
            }
        };
        let printed = String::from_utf8_lossy(&output.stderr).into_owned();
        self.says(!is_right, format!("{arguments:?} ended with {}: {printed}", output.status));
        output
    }

    /// Runs a command that must end in one of these ways; waits for the turn of one that was killed.
    pub fn run(&mut self, arguments: &[&str], well: &[i32]) -> Output {
        let begun = Instant::now();
        let mut output = self.server.run(arguments);
        for _ in 0..PATIENCE {
            while is_kept_out(&output) && begun.elapsed() < TURN_MAX {
                std::thread::sleep(Duration::from_millis(500));
                output = self.server.run(arguments);
            }
            if !is_busy(&output) {
                break;
            }
            std::thread::sleep(BUSY_PAUSE);
            output = self.server.run(arguments);
        }
        let is_right = output.status.code().is_some_and(|code| well.contains(&code));
        let printed = String::from_utf8_lossy(&output.stderr).into_owned();
        self.says(!is_right, format!("{arguments:?} ended with {}: {printed}", output.status));
        output
    }

    /// Cleans by hand.
    pub fn clean(&mut self, arguments: &[&str]) {
        self.run(arguments, &[0]);
    }

    /// Everything that was found wrong, at the end.
    pub fn into_wrong(mut self) -> Vec<String> {
        let name = self.case.point.name();
        let reached = format!("crash point point={name}");
        let is_reached = self.printed.contains(&reached) || self.server.log().contains(&reached);
        self.says(!is_reached, "the point was not reached");
        let left = std::fs::read_dir(self.server.data_dir().join("blobs"));
        let left = left.into_iter().flatten().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
        self.wrong.extend(left.filter(|name| name.starts_with('.')).map(|name| format!("left behind: {name}")));
        self.wrong.extend(self.clients.into_iter().flat_map(|client| client.violations));
        if !self.wrong.is_empty() {
            let (case, wrong) = (self.case, self.wrong.join("\n    "));
            eprintln!("--- {case:?} ---\n    {wrong}\n{}\n{}", self.server.log(), self.printed);
        }
        self.wrong
    }
}

/// Whether the command gave up because the machine is: it may be repeated.
fn is_busy(output: &Output) -> bool {
    let told = String::from_utf8_lossy(&output.stderr);
    output.status.code() == Some(1) && told.contains("does not answer in time")
}

/// Whether somebody else has the turn: one that was killed keeps it for a while.
fn is_kept_out(output: &Output) -> bool {
    let told = String::from_utf8_lossy(&output.stderr);
    let turns = ["another instance cleans now", "another repair is at work", "the database is being rebuilt"];
    output.status.code() == Some(1) && turns.iter().any(|turn| told.contains(turn))
}

pub fn go_on(clients: &mut [Client], server: &TestServer) {
    std::thread::scope(|scope| {
        for client in clients {
            scope.spawn(|| client.go_on(server));
        }
    });
}

pub fn is_abort(end: ExitStatus) -> bool {
    end.core_dumped() || end.signal() == Some(6)
}
