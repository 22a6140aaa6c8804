//! Every way to start a server beside an old one, by the command line as it is written in the docs.

use std::fs;
use std::path::Path;

use s3dedup_actors::testkit::filetracker::{FirstFiletracker, OldFiletracker};

use super::world::{all_copied, all_told, delete, old_file, old_put, our_file, put, told};
use crate::support::content::shown;
use crate::support::{TestServer, eventually};

/// A tree that an earlier command was about.
fn left_behind() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("files")).unwrap();
    fs::write(dir.path().join("files/left"), b"left").unwrap();
    dir
}

fn starts(arguments: &[&str], variables: &[(&str, &Path)]) -> TestServer {
    let builder = TestServer::builder().arguments(arguments);
    variables.iter().fold(builder, |builder, (name, value)| builder.env(name, value.display())).start()
}

/// What comes over when nobody asks for it.
#[derive(Clone, Copy, PartialEq)]
enum Copies {
    All,
    Listed,
    Nothing,
}

/// A client's day beside a server of version 2, to the end of both.
fn serves_beside_version_2(arguments: &[&'static str], copies: Copies) {
    let mut old = OldFiletracker::start();
    for path in ["asked", "listed", "other", "deleted"] {
        old_put(&old, path, 1, b"theirs");
    }
    let left = left_behind();
    let list = left.path().join("names");
    fs::write(&list, "/listed@1700000001\nasked\n").unwrap();
    let (url, list) = (old.url(), list.display().to_string());
    let known = |word: &&'static str| match *word {
        "URL" => url.clone(),
        "LIST" => list.clone(),
        word => word.to_owned(),
    };
    let arguments: Vec<String> = arguments.iter().map(known).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    // Of another command: that tree is none of this one's.
    let mut server = starts(&arguments, &[("FILETRACKER_V1_DIR", left.path())]);
    assert_eq!(our_file(&server, "asked").unwrap(), (shown(1), b"theirs".to_vec()), "{arguments:?}");
    put(&server, "written", 2, b"ours").assert_status(200);
    assert_eq!(delete(&server, "deleted", 2).status, 200);
    assert_eq!(server.list(""), ["asked", "listed", "other", "written"], "{arguments:?}");
    all_told(&server, 60);
    assert_eq!(old_file(&old, "written").unwrap(), (shown(2), b"ours".to_vec()));
    assert!(old_file(&old, "deleted").is_none());
    if copies != Copies::Nothing {
        all_copied(&server);
    }
    assert!(our_file(&server, "left").is_none(), "{arguments:?}");
    old.stop();
    for (path, is_here) in
        [("asked", true), ("listed", copies != Copies::Nothing), ("other", copies == Copies::All), ("written", true)]
    {
        let status = server.request("GET", &format!("/files/{path}")).send().status;
        assert_eq!(status, if is_here { 200 } else { 503 }, "{arguments:?} {path}");
    }
    // SIGTERM, and status 0.
    server.stop();
}

#[test]
fn live_migrate_serves_and_copies_all() {
    serves_beside_version_2(&["live-migrate", "--filetracker-url", "URL"], Copies::All);
}

#[test]
fn live_migrate_with_a_list_copies_what_it_names() {
    let arguments = ["live-migrate", "--filetracker-url", "URL", "--file-list", "LIST", "--max-concurrency", "2"];
    serves_beside_version_2(&arguments, Copies::Listed);
}

#[test]
fn server_with_migrate_from_serves_and_copies_all() {
    serves_beside_version_2(&["server", "--env", "--migrate-from", "URL"], Copies::All);
}

#[test]
fn server_with_a_list_copies_what_it_names() {
    serves_beside_version_2(&["server", "--migrate-from", "URL", "--file-list", "LIST"], Copies::Listed);
}

#[test]
fn server_with_proxy_only_copies_what_is_asked_for() {
    serves_beside_version_2(&["server", "--migrate-from", "URL", "--proxy-only"], Copies::Nothing);
}

/// The same beside version 1: from its directory, over HTTP or both.
fn serves_beside_version_1(make: impl Fn(&str, &str) -> Vec<String>, copies: Copies, is_told: bool) {
    let mut old = FirstFiletracker::start();
    for path in ["asked", "listed", "other", "deleted"] {
        let file = old.dir().join("files").join(path);
        fs::write(&file, b"theirs").unwrap();
        let modified = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_001);
        fs::File::options().write(true).open(file).unwrap().set_modified(modified).unwrap();
    }
    let dir = tempfile::tempdir().unwrap();
    let list = dir.path().join("names");
    fs::write(&list, "listed\nasked\n").unwrap();
    let arguments = make(&old.url(), old.dir().to_str().unwrap());
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let variables = [("MIGRATION_FILE_LIST", list.as_path())];
    let mut server = starts(&arguments, if copies == Copies::Listed { &variables } else { &[] });
    let plain = |path: &str| {
        let answer = server.request("GET", &format!("/files/{path}")).header("Accept-Encoding", "identity").send();
        (answer.status == 200).then_some(answer.body)
    };
    assert_eq!(plain("asked").as_deref(), Some(&b"theirs"[..]), "{arguments:?}");
    put(&server, "written", 2, b"ours").assert_status(200);
    assert_eq!(delete(&server, "deleted", 2).status, 200);
    assert_eq!(plain("deleted"), None, "{arguments:?}");
    if copies != Copies::Nothing {
        all_copied(&server);
    }
    if is_told {
        all_told(&server, 60);
    }
    assert_eq!(fs::read(old.dir().join("files/written")).ok(), is_told.then(|| b"ours".to_vec()), "{arguments:?}");
    let mut names = vec!["asked"];
    names.extend((copies != Copies::Nothing).then_some("listed"));
    names.extend((copies == Copies::All).then_some("other"));
    names.push("written");
    eventually("what was asked for is stored", || (server.list("") == names).then_some(()));
    old.kill();
    server.stop();
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn live_migrate_v1_copies_a_directory() {
    serves_beside_version_1(|_, dir| words(&["live-migrate-v1", "--v1-directory", dir]), Copies::All, false);
}

#[test]
fn server_with_migrate_v1_directory_copies_it() {
    serves_beside_version_1(|_, dir| words(&["server", "--migrate-v1-directory", dir]), Copies::All, false);
}

#[test]
fn live_migrate_v1_over_http_brings_what_is_asked_for() {
    serves_beside_version_1(|url, _| words(&["live-migrate-v1", "--filetracker-url", url]), Copies::Nothing, true);
}

#[test]
fn live_migrate_v1_over_http_copies_what_a_list_in_the_environment_names() {
    serves_beside_version_1(|url, _| words(&["live-migrate-v1", "--filetracker-url", url]), Copies::Listed, true);
}

#[test]
fn live_migrate_v1_takes_a_directory_and_a_server_together() {
    let make = |url: &str, dir: &str| words(&["live-migrate-v1", "--v1-directory", dir, "--filetracker-url", url]);
    serves_beside_version_1(make, Copies::All, true);
}

#[test]
fn what_the_command_line_does_not_name_is_said_to_be_left_out() {
    let (old, left) = (OldFiletracker::start(), left_behind());
    let server = starts(&["live-migrate", "--filetracker-url", &old.url()], &[("FILETRACKER_V1_DIR", left.path())]);
    assert!(server.log().contains("FILETRACKER_V1_DIR is set and not used"), "{}", server.log());
    assert_eq!(told(&server)["kind"], "v2");
}
