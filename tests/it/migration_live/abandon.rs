//! Giving up what is kept for an old server that nobody goes on with.

use s3dedup_actors::testkit::filetracker::OldFiletracker;
use s3dedup_actors::testkit::postgres::{DATABASE, PostgresServer};

use super::world::{beside, delete, our_file, put, told};
use crate::migration::old::ends;
use crate::support::eventually;
use crate::support::s3::S3InProcess;
use crate::support::server::Builder;

#[test]
fn an_unfinished_migration_is_given_up_when_that_is_confirmed() {
    is_given_up("is in use by another s3dedup", |url| beside(url, "live"));
}

#[test]
fn an_unfinished_migration_is_given_up_on_postgresql_when_no_instance_lives() {
    let (postgres, s3) = (PostgresServer::start(), S3InProcess::start());
    is_given_up("stop all servers first", |url| beside(url, "live").s3(&s3.access).postgres(&postgres, DATABASE));
}

fn is_given_up(refusal: &str, build: impl FnOnce(&str) -> Builder) {
    let mut old = OldFiletracker::start();
    let url = old.url();
    old.stop();
    let mut server = build(&url).start();
    for path in ["a", "b", "gone"] {
        put(&server, path, 1, b"content").assert_status(200);
    }
    assert_eq!(delete(&server, "gone", 2).status, 200);
    eventually("the migration has begun", || told(&server)["waits_for"].is_string().then_some(()));
    let refused = ends(&server, 1, &["abandon-migration", "--yes"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains(refusal), "{refused:?}");
    server.stop();

    server.set_env("MIGRATION", None);
    for _ in 0..2 {
        let asked = ends(&server, 2, &["abandon-migration"]);
        let text = String::from_utf8_lossy(&asked.stdout).into_owned();
        for part in [
            &format!("an unfinished migration (listing) from {url}: 0 of 0 names"),
            "3 names whose last write the old server was not told of",
            "1 deletions that are remembered",
            "nothing was changed",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
    ends(&server, 0, &["abandon-migration", "--yes"]);
    let nothing = ends(&server, 0, &["abandon-migration"]);
    assert!(String::from_utf8_lossy(&nothing.stdout).contains("nothing is kept"), "{nothing:?}");
    server.start_again();
    assert!(
        our_file(&server, "a").is_some() && our_file(&server, "b").is_some() && our_file(&server, "gone").is_none()
    );
    assert!(!server.log().contains("was not told of all writes"), "{}", server.log());
}
