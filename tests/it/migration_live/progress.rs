//! How far a migration is, as logs and people at a terminal are told.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use s3dedup_actors::testkit::filetracker::OldFiletracker;

use super::world::{Watcher, beside, old_put};
use crate::support::TestServer;
use crate::support::python::venv;

/// Runs the rest of its arguments on a terminal of 200 columns, and passes on what they say.
const ON_A_TERMINAL: &str = r#"
import fcntl, os, pty, struct, sys, termios
child, terminal = pty.fork()
if child == 0:
    fcntl.ioctl(2, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 200, 0, 0))
    os.execv(sys.argv[1], sys.argv[1:])
while True:
    try:
        piece = os.read(terminal, 65536)
    except OSError:
        break
    if not piece:
        break
    sys.stdout.buffer.write(piece)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"#;

/// Half of the files have the content of others.
fn old_server_with(files: u64) -> OldFiletracker {
    let old = OldFiletracker::start();
    for number in 0..files {
        old_put(&old, &format!("f/{number}"), 1, format!("content {}", number / 2).repeat(100).as_bytes());
    }
    old
}

/// The first two lines with these words in them.
fn two_lines(log: impl Fn() -> String, words: &str) -> [String; 2] {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let log = log();
        let mut lines = log.lines().filter(|line| line.contains(words)).map(str::to_owned);
        if let (Some(first), Some(second)) = (lines.next(), lines.next()) {
            return [first, second];
        }
        assert!(Instant::now() < deadline, "no two lines with {words:?} in:\n{log}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// What a line says of each key.
fn said(line: &str) -> BTreeMap<&str, &str> {
    line.split_whitespace().filter_map(|word| word.split_once('=')).collect()
}

#[test]
fn a_log_has_a_line_now_and_then_in_both_modes() {
    let old = old_server_with(400);
    let slow = Watcher::start(old.port(), Duration::from_millis(300));
    let url = slow.url();
    let server = beside(&url, "live").env("MIGRATION_MAX_CONCURRENCY", 1).start();
    let offline = TestServer::builder().prepare();
    let log = offline.temp_dir().join("log");
    let arguments = ["migrate", "--filetracker-url", &url, "--max-concurrency", "1"];
    let mut command = offline.command(&arguments);
    let mut child = command.stderr(File::create(&log).unwrap()).stdout(Stdio::null()).spawn().unwrap();

    let lines = two_lines(|| fs::read_to_string(&log).unwrap(), " saved=");
    let [first, second] = lines.each_ref().map(|line| {
        let said = said(line);
        assert!(line.contains('[') && line.contains("% ") && line.contains(" kB "), "{line}");
        assert!(line.contains(" MB/s ") && said["rate"].ends_with("/s") && said["eta"] != "?", "{line}");
        assert!(said["saved"].ends_with('%') && said["failed"] == "0", "{line}");
        let (settled, total) = said["files"].split_once('/').unwrap();
        assert_eq!(total, "400", "{line}");
        settled.parse::<u64>().unwrap()
    });
    assert!(0 < first && first < second && second < 400, "{lines:?}");
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(10));
    fs::remove_file(log).unwrap();

    let lines = two_lines(|| server.log(), "migrating phase=copying");
    let [first, second] = lines.each_ref().map(|line| {
        let said = said(line);
        let number = |key: &str| said[key].parse::<u64>().unwrap_or_else(|_| panic!("{key}: {line}"));
        assert_eq!((number("names"), number("failed")), (400, 0), "{line}");
        assert!(number("logical_bytes") > number("stored_bytes") && number("stored_bytes") > 0, "{line}");
        assert!(number("seconds_left") > 0 && said["saved"].ends_with('%'), "{line}");
        number("settled")
    });
    assert!(0 < first && first < second && second < 400, "{lines:?}");
}

#[test]
fn a_terminal_shows_a_bar() {
    let old = old_server_with(60);
    let slow = Watcher::start(old.port(), Duration::from_millis(100));
    let server = TestServer::builder().prepare();
    let url = slow.url();
    let wanted = server.command(&["migrate", "--filetracker-url", &url, "--max-concurrency", "1"]);
    let mut command = Command::new(venv().join("bin/python"));
    command.args(["-c", ON_A_TERMINAL]).arg(wanted.get_program()).args(wanted.get_args()).stdin(Stdio::null());
    command.env_clear().envs(wanted.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{text}");
    // Each is drawn over the one before.
    let drawn = text.split("\r\u{1b}[K").filter(|line| line.starts_with('[') && line.contains("#."));
    let drawn: Vec<&str> = drawn.map(|line| line.lines().next().unwrap_or_default()).collect();
    assert!(drawn.len() >= 2, "{text}");
    for line in &drawn {
        let said = said(line);
        let (settled, total) = said["files"].split_once('/').unwrap();
        assert!(settled.parse::<u64>().unwrap() < 60 && total == "60", "{line}");
        assert!(line.contains("% ") && line.contains(" kB ") && line.contains(" MB/s "), "{line}");
        assert!(said["rate"].ends_with("/s") && said["eta"].ends_with('s'), "{line}");
        assert!(said["saved"].ends_with('%') && said["failed"] == "0", "{line}");
    }
    assert!(text.contains("complete"), "{text}");
}
