//! Trees with everything that is no file, that change, and that go away.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::reading::PIECE_BYTES;
use super::*;
use crate::filetracker::ListedName;
use crate::model::Namespace;

fn tree() -> (tempfile::TempDir, Tree) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join(FILES)).unwrap();
    let tree = Tree::new(dir.path(), 2).unwrap();
    (dir, tree)
}

fn key(name: &str) -> EntryKey {
    EntryKey::parse(Namespace::FILETRACKER, name.as_bytes()).unwrap()
}

fn write(tree: &Tree, name: &str, bytes: &[u8], modified: SystemTime) {
    let path = tree.root.path.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, bytes).unwrap();
    File::options().write(true).open(path).unwrap().set_modified(modified).unwrap();
}

async fn content(tree: &Tree, name: &str) -> Result<Option<(i64, Vec<u8>)>> {
    let Some(mut download) = tree.open(&key(name)).await? else { return Ok(None) };
    let mut bytes = Vec::new();
    while let Some(piece) = download.stream.next().await {
        bytes.extend_from_slice(&piece?);
    }
    Ok(Some((download.file.stamp.seconds(), bytes)))
}

async fn names(tree: &Tree) -> BTreeMap<String, String> {
    let mut names = BTreeMap::new();
    let mut listing = tree.list().await.unwrap();
    while let Some(found) = listing.next().await {
        for listed in found.unwrap() {
            match listed {
                ListedName::Name(name) => names.insert(name.name().to_owned(), String::new()),
                ListedName::Odd { line, why } => names.insert(line, why),
            };
        }
    }
    names
}

#[actix_rt::test]
async fn files_are_listed_and_everything_else_is_named_as_what_it_is() {
    let (_dir, tree) = tree();
    assert!(names(&tree).await.is_empty());
    for name in ["a", "b/c/d", "żółć/ł", "odd\nname"] {
        write(&tree, name, b"x", UNIX_EPOCH);
    }
    let bad = tree.root.path.join(OsStr::from_bytes(b"b/\xff"));
    std::fs::write(bad, b"x").unwrap();
    std::os::unix::fs::symlink("/nowhere", tree.root.path.join("b/link")).unwrap();
    std::os::unix::fs::symlink(tree.root.path.join("b"), tree.root.path.join("to-a-directory")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(tree.root.path.join("socket")).unwrap();
    std::fs::create_dir(tree.root.path.join("empty")).unwrap();
    let found = names(&tree).await;
    let link = "a symbolic link, which is not followed";
    let want = [
        ("a", ""),
        ("b/\\xff", "path is not valid UTF-8"),
        ("b/c/d", ""),
        ("b/link", link),
        ("odd\\nname", "path has a control character"),
        ("socket", "a socket, not a file"),
        ("to-a-directory", link),
        ("żółć/ł", ""),
    ];
    let found: Vec<_> = found.iter().map(|(name, why)| (name.as_str(), why.as_str())).collect();
    assert_eq!(found, want);
}

#[actix_rt::test]
async fn versions_are_rounded_down_and_contents_are_whole() {
    let (_dir, tree) = tree();
    let long: Vec<u8> = (0..700_000_u32).map(|number| number as u8).collect();
    write(&tree, "late", b"abc", UNIX_EPOCH + Duration::from_millis(1999));
    write(&tree, "early", &long, UNIX_EPOCH - Duration::from_millis(500));
    write(&tree, "d/empty", b"", UNIX_EPOCH + Duration::from_secs(1 << 33));
    write(&tree, "piece", &long[..PIECE_BYTES as usize], UNIX_EPOCH);
    assert_eq!(content(&tree, "late").await.unwrap(), Some((1, b"abc".to_vec())));
    assert_eq!(content(&tree, "early").await.unwrap(), Some((-1, long.clone())));
    assert_eq!(content(&tree, "d/empty").await.unwrap(), Some((1 << 33, Vec::new())));
    assert_eq!(content(&tree, "piece").await.unwrap(), Some((0, long[..PIECE_BYTES as usize].to_vec())));
    let long_name = "x".repeat(300);
    for absent in ["nothing", "late/below", "d", &long_name] {
        assert_eq!(content(&tree, absent).await.unwrap(), None, "{absent}");
        assert_eq!(tree.head(&key(absent)).await.unwrap(), None, "{absent}");
    }
    assert_eq!(tree.head(&key("late")).await.unwrap().unwrap().stamp.seconds(), 1);
    std::os::unix::fs::symlink("late", tree.root.path.join("link")).unwrap();
    for error in [content(&tree, "link").await.unwrap_err(), tree.head(&key("link")).await.unwrap_err()] {
        assert_eq!((error.kind(), error.context()), (Kind::Invalid, "a symbolic link, which is not followed"));
    }
}

#[actix_rt::test]
async fn a_file_that_changes_while_it_is_read_is_an_error() {
    let (_dir, tree) = tree();
    let long = vec![7; 600_000];
    write(&tree, "f", &long, UNIX_EPOCH);
    for change in 0..3 {
        let mut download = tree.open(&key("f")).await.unwrap().unwrap();
        download.stream.next().await.unwrap().unwrap();
        match change {
            0 => write(&tree, "f", &long[1..], UNIX_EPOCH),
            1 => write(&tree, "f", &long, UNIX_EPOCH + Duration::from_secs(1)),
            _ => std::fs::remove_file(tree.root.path.join("f")).unwrap(),
        }
        let mut outcome = Ok(());
        while let Some(piece) = download.stream.next().await {
            outcome = piece.map(drop);
        }
        assert_eq!(outcome.unwrap_err().kind(), Kind::Unavailable, "{change}");
    }
}

#[actix_rt::test]
async fn files_of_a_root_that_is_away_are_out_of_reach_and_not_absent() {
    let (dir, tree) = tree();
    for name in ["a", "b/c"] {
        write(&tree, name, b"x", UNIX_EPOCH);
    }
    let (files, away) = (dir.path().join(FILES), dir.path().join("away"));
    let mut walk = Walk::new(tree.root.clone()).unwrap();
    std::fs::rename(&files, &away).unwrap();
    for is_other_there in [false, true] {
        if is_other_there {
            std::fs::create_dir(&files).unwrap();
        }
        for error in [content(&tree, "a").await.unwrap_err(), tree.head(&key("a")).await.unwrap_err()] {
            assert_eq!(error.kind(), Kind::Unavailable);
        }
        assert_eq!(tree.probe().await.unwrap_err().kind(), Kind::Unavailable);
        assert_eq!(walk.next().err().map(|error| error.kind()), Some(Kind::Unavailable));
    }
    std::fs::remove_dir(&files).unwrap();
    std::fs::rename(&away, &files).unwrap();
    assert_eq!(content(&tree, "a").await.unwrap(), Some((0, b"x".to_vec())));
    assert_eq!(tree.head(&key("nothing")).await.unwrap(), None);
    assert_eq!(names(&tree).await.len(), 2);
}

#[test]
fn a_directory_without_files_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let refusal = Tree::new(dir.path(), 1).err().unwrap();
    assert_eq!(refusal.kind(), Kind::Invalid);
    assert!(refusal.context().contains("version 1"), "{refusal}");
}
