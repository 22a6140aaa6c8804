//! Files of a server of version 1, from its disk.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::old::{differences, ends, large_bytes, migrates};
use crate::support::{Noise, TestServer, gunzip};

fn write(root: &Path, name: &[u8], content: &[u8], modified: SystemTime) {
    let path = root.join("files").join(OsStr::from_bytes(name));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, content).unwrap();
    File::options().write(true).open(path).unwrap().set_modified(modified).unwrap();
}

fn at(milliseconds: i64) -> SystemTime {
    let time = Duration::from_millis(milliseconds.unsigned_abs());
    if milliseconds < 0 { UNIX_EPOCH - time } else { UNIX_EPOCH + time }
}

#[test]
fn a_tree_is_copied_and_what_is_no_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    for number in 0..50_i64 {
        let name = format!("{}zażółć {number}", "d/".repeat(number as usize % 120));
        // Four of ten are the same.
        let content = Noise::bytes(if number % 10 < 4 { 0 } else { number as u64 }, 5000);
        write(root, name.as_bytes(), &content, at(1_500_000_000_000 + number * 999));
    }
    write(root, b"empty", b"", at(0));
    write(root, b"early", b"early", at(-1500));
    write(root, b"a@b@3", b"at", at(1999));
    let large = File::create(root.join("files/large")).unwrap();
    large.set_len(large_bytes()).unwrap();
    large.set_modified(at(7_000)).unwrap();
    write(root, b"bytes \xff", b"x", at(0));
    write(root, b"two\nlines", b"x", at(0));
    symlink("early", root.join("files/link")).unwrap();
    symlink("/nowhere", root.join("files/d/dangling")).unwrap();
    let _socket = UnixListener::bind(root.join("files/socket")).unwrap();
    let directory = root.to_str().unwrap();

    let mut server = TestServer::builder().prepare();
    let (migration, not_copied) = migrates(&server, 10, &["migrate-v1", "--v1-directory", directory]);
    assert_eq!((&migration["files"]["copied"], &migration["files"]["failed"]), (&54.into(), &5.into()));
    assert_eq!(migration["unique_contents"], 31 + 4);
    let odd: Vec<_> = not_copied.iter().map(|(name, (_, why))| (name.as_str(), why.as_str())).collect();
    let link = "a symbolic link, which is not followed";
    let want = [
        ("bytes \\xff", "path is not valid UTF-8"),
        ("d/dangling", link),
        ("link", link),
        ("socket", "a socket, not a file"),
        ("two\\nlines", "path has a control character"),
    ];
    assert_eq!(odd, want);
    let found = differences(&server, &["--v1-directory", directory]);
    assert_eq!(found.keys().map(String::as_str).collect::<Vec<_>>(), want.map(|(name, _)| name));
    assert!(found.values().all(|kind| kind == "unfit"), "{found:?}");

    server.start_again();
    let early = server.request("GET", "/files/early").send();
    assert_eq!(gunzip(&early.assert_status(200).body), b"early");
    assert_eq!(early.header("last-modified").unwrap(), "Wed, 31 Dec 1969 23:59:58 -0000", "versions are rounded down");
    let marked = server.request("GET", "/files/a%40b%403").send();
    assert_eq!(marked.assert_status(200).header("last-modified").unwrap(), "Thu, 01 Jan 1970 00:00:01 -0000");
    server.stop();

    // The old server's deletions do nothing; ours are not undone.
    server.start_again();
    server.request("DELETE", "/files/early?last_modified=Fri,+31+Dec+9999+00:00:00+GMT").send().assert_status(200);
    server.stop();
    write(root, b"empty", b"not any more", at(5_000));
    let (again, _) = migrates(&server, 10, &["migrate-v1", "--v1-directory", directory]);
    let files = &again["files"];
    assert_eq!((&files["copied"], &files["skipped"], &files["deleted_here"]), (&1.into(), &52.into(), &1.into()));
    let found = differences(&server, &["--v1-directory", directory]);
    assert_eq!(found.get("early").map(String::as_str), Some("missing"));
    ends(&server, 0, &["verify", "--deep"]);
}
