//! One server per data: a second one ends with a clear line, and the first never notices.

use std::process::Command;

use rustix::process::Signal;

use crate::support::s3::S3InProcess;
use crate::support::server::free_port;
use crate::support::{TestServer, gunzip, upload};

/// Starts a second server on the first one's data; returns its exit code and what it said.
fn second_server(first: &TestServer) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_s3dedup"))
        .arg("server")
        .env_clear()
        .env("LISTEN_ADDRESS", "127.0.0.1")
        .env("LISTEN_PORT", free_port().to_string())
        .env("STORAGE_TYPE", "filesystem")
        .env("DATA_DIR", first.data_dir())
        .env("TEMP_DIR", first.temp_dir())
        .output()
        .unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_second_server_on_the_same_data_is_refused_and_the_first_goes_on() {
    let mut server = TestServer::start();
    upload(&server, "before", 0, b"before").send().assert_status(200);
    let folder = server.data_dir().display().to_string();
    for _ in 0..2 {
        let (code, said) = second_server(&server);
        assert_eq!(code, Some(1), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.contains(&folder) && said.contains("another s3dedup"), "{said}");
        upload(&server, "after", 1, b"after").send().assert_status(200);
    }
    assert_eq!(gunzip(&server.request("GET", "/files/before").send().assert_status(200).body), b"before");

    // A killed server leaves its lock files, but no lock.
    server.signal(Signal::KILL);
    server.wait();
    server.start_again();
    assert_eq!(server.list(""), ["after", "before"]);
}

#[test]
fn a_bucket_of_another_database_is_refused_whatever_is_in_it() {
    let s3 = S3InProcess::start();
    let first = TestServer::builder().s3(&s3.access).start();
    // Nothing is stored yet.
    let second = TestServer::builder().s3(&s3.access).prepare();
    let said = second.fails_to_start();
    assert!(said.contains("the contents belong to another database") && said.contains("--rebuild"), "{said}");
    upload(&first, "x", 0, b"content").send().assert_status(200);
    second.fails_to_start();
    let clean = second.run(&["clean", "--full-scan", "--delete-orphans"]);
    assert_eq!(clean.status.code(), Some(1), "{}", String::from_utf8_lossy(&clean.stderr));
    first.request("GET", "/files/x").send().assert_status(200);
    assert_eq!(s3.objects().len(), 1);
}

#[test]
fn a_database_that_is_rebuilt_takes_the_bucket_over() {
    let s3 = S3InProcess::start();
    let mut first = TestServer::builder().s3(&s3.access).start();
    upload(&first, "x", 0, b"content").send().assert_status(200);
    first.stop();
    let mut second = TestServer::builder().s3(&s3.access).prepare();
    let rebuilt = second.run(&["repair", "--rebuild"]);
    assert_eq!(rebuilt.status.code(), Some(0), "{}", String::from_utf8_lossy(&rebuilt.stderr));
    second.start_again();
    upload(&second, "y", 0, b"content").send().assert_status(200);
    assert_eq!(s3.objects().len(), 1, "the content is known");
    assert!(first.fails_to_start().contains("the contents belong to another database"));
}
