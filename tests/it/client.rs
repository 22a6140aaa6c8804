//! The real Filetracker client, over every content store.

use crate::support::python::{run_script, run_shell};
use crate::support::s3::{Garage, S3InProcess};
use crate::support::{TestServer, eventually};

/// The Python API: every call of it.
#[test]
fn api_over_a_folder() {
    for prefix in ["", "/ft"] {
        let server = TestServer::builder().prefix(prefix).start();
        run_script("api.py", &[&server.url()]);
    }
}

#[test]
fn api_over_s3() {
    let s3 = S3InProcess::start();
    let server = TestServer::builder().s3(&s3.access).start();
    run_script("api.py", &[&server.url()]);
}

#[test]
fn api_over_garage() {
    let garage = Garage::start();
    let server = TestServer::builder().s3(&garage.access).start();
    run_script("api.py", &[&server.url()]);
}

/// Trees of which 40 % are duplicates, stored by four processes at once.
fn tree(server: &TestServer, files: usize) {
    run_script("tree.py", &[&server.url(), &files.to_string()]);
    assert_eq!(server.list("").len(), files);
}

#[test]
fn tree_over_a_folder() {
    let server = TestServer::start();
    tree(&server, 1000);
    assert_eq!(server.objects().len(), 600);
}

#[test]
fn tree_over_s3() {
    let s3 = S3InProcess::start();
    tree(&TestServer::builder().s3(&s3.access).start(), 300);
    assert_eq!(s3.objects().len(), 180);
}

#[test]
fn tree_over_garage() {
    let garage = Garage::start();
    tree(&TestServer::builder().s3(&garage.access).start(), 1000);
}

#[test]
fn shell_command() {
    let server = TestServer::start();
    let folder = tempfile::tempdir().unwrap();
    let local = folder.path().join("local");
    let local = local.to_str().unwrap();
    std::fs::write(local, "from the shell\n").unwrap();
    let url = server.url();
    run_shell(&url, &["put", local, "/shell/file"]);
    assert_eq!(server.list(""), ["shell/file"]);
    assert!(run_shell(&url, &["cat", "/shell/file"]).ends_with("from the shell\n"));
    let back = folder.path().join("back");
    run_shell(&url, &["get", "/shell/file", back.to_str().unwrap()]);
    assert_eq!(std::fs::read_to_string(back).unwrap(), "from the shell\n");
    assert!(run_shell(&url, &["version", "/shell/file"]).contains(|c: char| c.is_ascii_digit()));
    // The client deletes as of its own clock's second.
    eventually("the file is deleted", || {
        run_shell(&url, &["rm", "/shell/file"]);
        server.list("").is_empty().then_some(())
    });
}
