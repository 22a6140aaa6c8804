//! Lists of names, outages, and being told to stop.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use s3dedup_actors::testkit::filetracker::OldFiletracker;

use super::old::{differences, ends, migrates, put};
use crate::support::{TestServer, eventually};

#[test]
fn a_list_of_names_is_copied_and_what_is_not_there_is_gone() {
    let old = OldFiletracker::start();
    let url = old.url();
    for number in 0..10 {
        put(&old, &format!("żó/{number}"), 1_600_000_000, format!("{number}").as_bytes());
    }
    let server = TestServer::builder().prepare();
    let list = server.temp_dir().join("names");
    fs::write(&list, "/żó/1@1600000000\nżó/2\n\nnothing\n/żó/3\n/a/../b\n").unwrap();
    let arguments = ["migrate", "--filetracker-url", &url, "--file-list", list.to_str().unwrap()];
    let (migration, not_copied) = migrates(&server, 10, &arguments);
    let files = &migration["files"];
    assert_eq!((&files["copied"], &files["gone"], &files["failed"]), (&3.into(), &1.into(), &1.into()));
    assert_eq!(not_copied["nothing"].0, "gone");
    assert_eq!(not_copied["/a/../b"].1, "path has a '.' or '..' component");
    let missing = differences(&server, &["--filetracker-url", &url]);
    assert_eq!(missing.len(), 7);
    assert!(missing.values().all(|kind| kind == "missing"), "{missing:?}");
    fs::remove_file(list).unwrap();
}

#[test]
fn an_outage_of_the_old_server_is_waited_for() {
    let mut old = OldFiletracker::start();
    let url = old.url();
    for number in 0..20 {
        put(&old, &format!("f{number}"), 1_600_000_000, format!("{number}").as_bytes());
    }
    let server = TestServer::builder().prepare();
    let list = server.temp_dir().join("names");
    fs::write(&list, (0..20).map(|number| format!("f{number}\n")).collect::<String>()).unwrap();
    old.kill();
    let log = server.temp_dir().join("log");
    let arguments = ["migrate", "--filetracker-url", &url, "--file-list", list.to_str().unwrap()];
    let mut command = server.command(&arguments);
    let mut child = command.stderr(fs::File::create(&log).unwrap()).stdout(Stdio::null()).spawn().unwrap();
    eventually("it says what it waits for", || {
        fs::read_to_string(&log).unwrap().contains("the migration waits for the source").then_some(())
    });
    std::thread::sleep(Duration::from_secs(2));
    assert!(child.try_wait().unwrap().is_none(), "it gave up");
    old.start_again();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{}", fs::read_to_string(&log).unwrap());
    assert!(differences(&server, &["--filetracker-url", &url]).is_empty());
    fs::remove_file(list).unwrap();
    fs::remove_file(log).unwrap();
}

#[test]
fn a_signal_stops_it_and_the_same_command_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("files")).unwrap();
    for number in 0..3000_u32 {
        fs::write(dir.path().join(format!("files/{number}")), number.to_le_bytes()).unwrap();
    }
    let directory = dir.path().to_str().unwrap();
    let arguments = ["migrate-v1", "--v1-directory", directory, "--max-concurrency", "1"];
    let server = TestServer::builder().prepare();
    let out = server.temp_dir().join("out");
    for signal in [Signal::INT, Signal::TERM] {
        let said = fs::File::create(&out).unwrap();
        let mut command = server.command(&arguments);
        let mut child = command.stdout(said.try_clone().unwrap()).stderr(said).spawn().unwrap();
        eventually("it copies", || {
            let begun = fs::read_to_string(&out).unwrap();
            (begun.contains("all names are known") || begun.contains("the migration goes on state=copying"))
                .then_some(())
        });
        std::thread::sleep(Duration::from_millis(300));
        kill_process(Pid::from_child(&child), signal).unwrap();
        let code = child.wait().unwrap().code();
        let said = fs::read_to_string(&out).unwrap();
        assert_eq!(code, Some(10), "{said}");
        assert!(said.contains("the same command goes on from here"), "{said}");
    }
    fs::remove_file(out).unwrap();
    let (migration, _) = migrates(&server, 0, &arguments[..3]);
    assert_eq!((&migration["resumed"], &migration["files"]["total"]), (&true.into(), &3000.into()));
    assert_eq!(migration["files"]["settled"], 3000);
    // What the first runs copied is counted, and was not copied again.
    assert_eq!(migration["files"]["copied"].as_u64(), migration["logical_bytes"].as_u64().map(|bytes| bytes / 4));
    assert!(differences(&server, &["--v1-directory", directory]).is_empty());
}

#[test]
fn a_report_that_cannot_be_written_is_refused_before_anything_is_copied() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("files")).unwrap();
    fs::write(dir.path().join("files/a"), b"a").unwrap();
    let server = TestServer::builder().prepare();
    // It leads to what would take a report, and would itself be replaced.
    let link = dir.path().join("link");
    std::os::unix::fs::symlink("files/a", &link).unwrap();
    let places =
        [dir.path().join("nowhere/report.json"), dir.path().into(), "/dev/null".into(), "/proc/report".into(), link];
    for place in places {
        let arguments =
            ["migrate-v1", "--v1-directory", dir.path().to_str().unwrap(), "--report", place.to_str().unwrap()];
        let said = String::from_utf8(ends(&server, 2, &arguments).stderr).unwrap();
        assert!(said.lines().count() == 1 && said.contains("cannot write the report"), "{said}");
    }
    assert!(!server.data_dir().exists());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing is left beside them");
    assert!(dir.path().join("link").is_symlink());
}

/// Copies 1,000 files and 30 links, whose report cannot be written where it was wanted any more; `meanwhile` is done while it copies.
/// What it said, and how it ended.
fn loses_the_place_of_its_report(server: &TestServer, meanwhile: impl Fn()) -> (Option<i32>, String) {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("files")).unwrap();
    for number in 0..1000_u32 {
        fs::write(dir.path().join(format!("files/{number}")), number.to_le_bytes()).unwrap();
    }
    for number in 0..30 {
        std::os::unix::fs::symlink("/nowhere", dir.path().join(format!("files/link{number}"))).unwrap();
    }
    let (reports, out) = (dir.path().join("reports"), dir.path().join("out"));
    fs::create_dir(&reports).unwrap();
    let report = reports.join("report.json");
    let directory = dir.path().to_str().unwrap();
    let arguments = ["migrate-v1", "--v1-directory", directory, "--max-concurrency", "1", "--report"];
    let arguments = [&arguments[..], &[report.to_str().unwrap()]].concat();
    let said = fs::File::create(&out).unwrap();
    let mut child = server.command(&arguments).stdout(said.try_clone().unwrap()).stderr(said).spawn().unwrap();
    eventually("it copies", || fs::read_to_string(&out).unwrap().contains("all names are known").then_some(()));
    fs::remove_dir(&reports).unwrap();
    meanwhile();
    (child.wait().unwrap().code(), fs::read_to_string(&out).unwrap())
}

#[test]
fn a_report_that_cannot_be_written_any_more_is_kept_elsewhere() {
    let server = TestServer::builder().prepare();
    let (code, said) = loses_the_place_of_its_report(&server, || ());
    assert_eq!(code, Some(1), "{said}");
    let last = said.lines().last().unwrap();
    let (_, kept) = last.split_once("; the report is in ").unwrap_or_else(|| panic!("{said}"));
    assert!(last.contains("cannot write the report") && said.contains(&format!("and 10 more in {kept}")), "{said}");
    let kept = std::path::PathBuf::from(kept);
    assert!(kept.starts_with(server.temp_dir()));
    let text = fs::read_to_string(&kept).unwrap();
    fs::remove_file(kept).unwrap();
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["not_copied"].as_array().unwrap().len(), 30, "{text}");
    assert_eq!(report["migration"]["files"]["copied"], 1000);
}

#[test]
fn a_report_that_can_be_written_nowhere_any_more_is_printed() {
    let server = TestServer::builder().prepare();
    let (code, said) = loses_the_place_of_its_report(&server, || fs::remove_dir(server.temp_dir()).unwrap());
    fs::create_dir(server.temp_dir()).unwrap();
    assert_eq!(code, Some(1), "{said}");
    let last = said.lines().last().unwrap();
    assert!(last.contains("cannot write the report") && last.contains("standard output has its names"), "{said}");
    // Told to people first, then to programs.
    let (summary, _) = said.split_once("complete but for what failed").unwrap_or_else(|| panic!("{said}"));
    assert!(summary.lines().any(|line| line.split_whitespace().eq(["copied", "1000"])), "{said}");
    let printed = said.lines().filter(|line| line.starts_with('{'));
    let printed = printed.map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let names: std::collections::BTreeSet<_> = printed
        .inspect(|one| assert_eq!((&one["fate"], &one["attempts"]), (&"failed".into(), &1.into()), "{one}"))
        .map(|one| one["name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(names, (0..30).map(|number| format!("link{number}")).collect());
}
