//! Deletions are remembered for as long as an old server may bring the names back, and no longer.

use s3dedup_actors::testkit::filetracker::OldFiletracker;

use super::world::{all_copied, all_told, beside, delete, old_file, old_put, our_file, put};
use crate::support::{TestServer, eventually};

/// Deletions that are remembered, as the database has them.
fn remembered(server: &TestServer) -> i64 {
    let found = std::fs::read_dir(server.data_dir()).unwrap().map(|entry| entry.unwrap().path());
    let databases: Vec<_> = found.filter(|path| path.extension().is_some_and(|it| it == "db")).collect();
    let [database] = databases.as_slice() else { panic!("{databases:?}") };
    let connection = rusqlite::Connection::open(database).unwrap();
    connection.query_row("SELECT count(*) FROM tombstones", [], |row| row.get(0)).unwrap()
}

#[test]
fn deletions_beside_an_old_server_are_forgotten_when_it_is_gone_and_was_told() {
    let mut old = OldFiletracker::start();
    for number in 0..3 {
        old_put(&old, &format!("f/{number}"), 1, b"theirs");
    }
    let mut server = beside(&old.url(), "proxy").start();
    assert_eq!(delete(&server, "f/0", 5).status, 200);
    old.stop();
    assert_eq!(delete(&server, "f/1", 5).status, 200);
    server.stop();
    // The old server has one of them yet: whoever stands beside it again is not to bring it back.
    server.set_env("MIGRATION", Some("off"));
    server.start_again();
    eventually("it is said", || server.log().contains("was not told of all writes").then_some(()));
    assert_eq!(remembered(&server), 2);
    server.stop();
    old.start_again();
    assert!(old_file(&old, "f/1").is_some());
    server.set_env("MIGRATION", Some("proxy"));
    server.start_again();
    assert!(our_file(&server, "f/1").is_none());
    all_told(&server, 60);
    assert!(old_file(&old, "f/1").is_none());
    assert_eq!(remembered(&server), 2);
    server.stop();
    server.set_env("MIGRATION", Some("off"));
    server.start_again();
    eventually("they are forgotten", || (remembered(&server) == 0).then_some(()));
    // Nothing is left of the old server here.
    put(&server, "f/0", 2, b"again").assert_status(200);
    assert_eq!(server.list(""), ["f/0"]);
}

#[test]
fn deletions_are_remembered_for_a_while_after_a_copy() {
    let old = OldFiletracker::start();
    for number in 0..3 {
        old_put(&old, &format!("f/{number}"), 1, b"theirs");
    }
    let mut server = beside(&old.url(), "live").start();
    all_copied(&server);
    server.stop();
    server.set_env("MIGRATION", Some("off"));
    server.start_again();
    assert_eq!(delete(&server, "f/0", 5).status, 200);
    server.stop();
    server.start_again();
    assert_eq!(remembered(&server), 1, "without the old server, too");
    server.stop();
    let again = server.run(&["migrate", "--filetracker-url", &old.url()]);
    assert_eq!(again.status.code(), Some(0), "{}", String::from_utf8_lossy(&again.stderr));
    server.start_again();
    assert!(our_file(&server, "f/0").is_none() && our_file(&server, "f/1").is_some());
}
