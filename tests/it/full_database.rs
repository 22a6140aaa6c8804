//! The database's own disk is full: writes are refused as such, reads and the process go on.

use rustix::process::Signal;

use crate::support::{Noise, TestServer, gunzip, upload};

#[test]
fn a_full_disk_under_the_database_is_told_once_and_survived() {
    // the small file system is the temporary directory's, and the database lies in it
    let mut server = TestServer::builder().env("SQLITE_PATH", "temp/kv.db").temp_bytes_max(1 << 20).start();
    let content = Noise::bytes(1, 1000);
    let name = |number: usize| format!("{}{number}", "x".repeat(200));
    let mut stored = 0;
    let refused = loop {
        assert!(stored < 10_000, "it never fills up");
        let answer = upload(&server, &name(stored), 0, &content).send();
        if answer.status != 200 {
            break answer;
        }
        stored += 1;
    };
    refused.assert_refused(507);
    for number in 0..20 {
        upload(&server, &name(10_000 + number), 0, &content).send().assert_refused(507);
    }
    assert!(stored > 0);
    for number in [0, stored - 1] {
        let answer = server.request("GET", &format!("/files/{}", name(number))).send();
        assert!(gunzip(&answer.assert_status(200).body) == content);
    }
    assert_eq!(server.list("").len(), stored);
    let told = server.log().lines().filter(|line| line.contains("the database can't be written kind=")).count();
    assert_eq!(told, 1, "{}", server.log());
    // the database goes with its file system: nothing is left to look at
    server.signal(Signal::TERM);
    assert!(server.wait().success());
}
