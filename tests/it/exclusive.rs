//! One server per data: a second one ends with a clear line, and the first never notices.

use std::process::Command;

use rustix::process::Signal;

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
