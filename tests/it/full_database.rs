//! The database's own disk is full: writes are refused as such, reads and the process go on.

use rustix::process::Signal;

use crate::support::{Noise, TestServer, gunzip, upload};

#[test]
fn a_full_disk_under_the_database_is_told_once_and_survived() {
    // the small file system is the temporary directory's, and the database lies in it
    let mut server = TestServer::builder().env("SQLITE_PATH", "temp/kv.db").temp_bytes_max(1 << 20).start();
    let content = Noise::bytes(1, 1000);
    let name = |number: usize| format!("{}{number}", "x".repeat(200));
    let mut stored = Vec::new();
    // How often the answers turned from good to bad: the log is to tell it as often, and no more. SQLite may find room
    // again when it moves its log into the database.
    let (mut turns, mut refused) = (0, 0);
    let mut was_stored = true;
    for number in 0.. {
        assert!(number < 10_000, "it never fills up");
        let answer = upload(&server, &name(number), 0, &content).send();
        if answer.status == 200 {
            stored.push(number);
        } else {
            answer.assert_refused(507);
            turns += usize::from(was_stored);
            refused += 1;
        }
        was_stored = answer.status == 200;
        if refused == 20 {
            break;
        }
    }
    assert!(!stored.is_empty());
    for number in [stored[0], stored[stored.len() - 1]] {
        let answer = server.request("GET", &format!("/files/{}", name(number))).send();
        assert!(gunzip(&answer.assert_status(200).body) == content);
    }
    assert_eq!(server.list("").len(), stored.len());
    let told = server.log().lines().filter(|line| line.contains("the database can't be written kind=")).count();
    assert_eq!(told, turns, "{}", server.log());
    // the database goes with its file system: nothing is left to look at
    server.signal(Signal::TERM);
    assert!(server.wait().success());
}
