//! Troubles around the server: full slots, a locked database, an absent store, a full disk.

use std::time::{Duration, Instant};

use crate::support::s3::S3InProcess;
use crate::support::{Noise, Request, Response, SlowUploads, TestServer, date, eventually, gunzip, upload};

/// The contract: refusals come within this time.
const REFUSAL_TIME_MAX: Duration = Duration::from_secs(5);

#[track_caller]
fn assert_refused_for_now(request: &Request) -> Response {
    let started = Instant::now();
    let answer = request.send();
    assert!(started.elapsed() < REFUSAL_TIME_MAX, "took {:?}", started.elapsed());
    answer.assert_refused(503);
    let seconds: u64 = answer.header("retry-after").expect("Retry-After").parse().unwrap();
    assert!((1..=5).contains(&seconds));
    answer
}

#[test]
fn full_slots_refuse_at_once_and_serve_again() {
    let server = TestServer::builder().env("REQUEST_SLOTS_MAX", 2).env("MAX_INMEMORY_SIZE", 4096).start();
    upload(&server, "there", 0, b"content").send().assert_status(200);
    let mut slow = SlowUploads::begin(&server, 2);

    assert_refused_for_now(&server.request("GET", "/files/there"));
    assert_refused_for_now(&server.request("GET", "/list"));
    assert_refused_for_now(&server.request("DELETE", &format!("/files/there?last_modified={}", date(0))));
    assert_refused_for_now(&upload(&server, "x", 0, b"content"));
    assert_refused_for_now(&upload(&server, "x", 0, &Noise::bytes(1, 8 << 20)));
    assert_eq!(server.request("HEAD", "/files/there").send().status, 503);
    server.request("GET", "/version").send().assert_status(200);

    for answer in slow.finish() {
        answer.assert_status(200);
    }
    server.request("GET", "/files/there").send().assert_status(200);
    assert_eq!(server.list(""), ["slow0", "slow1", "there"]);
}

#[test]
fn a_slot_is_kept_until_a_download_is_read() {
    let server = TestServer::builder().env("REQUEST_SLOTS_MAX", 1).start();
    let content = Noise::bytes(1, 32 << 20);
    upload(&server, "large", 0, &content).send().assert_status(200);
    let mut reader = server.connect();
    reader.write(&server.request("GET", "/files/large").header("Connection", "close").head());
    assert_eq!(reader.line(), "HTTP/1.1 200 OK");
    assert_refused_for_now(&server.request("GET", "/files/large"));
    assert_refused_for_now(&server.request("GET", "/list"));
    assert!(reader.rest().len() > content.len());
    eventually("the slot is free", || (server.request("GET", "/list").send().status == 200).then_some(()));
}

#[test]
fn a_client_that_hangs_up_gives_its_slot_back() {
    let server = TestServer::builder().env("REQUEST_SLOTS_MAX", 1).start();
    upload(&server, "large", 0, &Noise::bytes(1, 32 << 20)).send().assert_status(200);
    for round in 0..5 {
        let mut connection = server.connect();
        match round % 2 {
            0 => connection.write(&server.request("GET", "/files/large").head()),
            _ => {
                connection.write(&upload(&server, "x", 0, b"never sent").head());
                connection.write(b"x");
            }
        }
        drop(connection);
        eventually("the slot is free", || (server.request("GET", "/list").send().status == 200).then_some(()));
    }
}

#[test]
fn a_locked_database_refuses_writes_in_time_and_recovers() {
    let server = TestServer::start();
    upload(&server, "there", 0, b"content").send().assert_status(200);
    let lock = rusqlite::Connection::open(server.data_dir().join("kv.db")).unwrap();
    lock.execute_batch("BEGIN EXCLUSIVE").unwrap();
    assert_refused_for_now(&upload(&server, "x", 0, b"new content"));
    assert_refused_for_now(&upload(&server, "x", 0, b"content"));
    assert_refused_for_now(&server.request("DELETE", &format!("/files/there?last_modified={}", date(0))));
    lock.execute_batch("ROLLBACK").unwrap();
    eventually("writes work again", || (upload(&server, "x", 0, b"content").send().status == 200).then_some(()));
    assert_eq!(server.list(""), ["there", "x"]);
}

#[test]
fn a_locked_database_refuses_many_writers_of_one_content_in_time() {
    let server = TestServer::start();
    let lock = rusqlite::Connection::open(server.data_dir().join("kv.db")).unwrap();
    lock.execute_batch("BEGIN EXCLUSIVE").unwrap();
    std::thread::scope(|scope| {
        for number in 0..16 {
            let server = &server;
            scope.spawn(move || assert_refused_for_now(&upload(server, &format!("x/{number}"), 0, b"new content")));
        }
    });
    lock.execute_batch("ROLLBACK").unwrap();
    eventually("writes work again", || (upload(&server, "x/0", 0, b"new content").send().status == 200).then_some(()));
    assert_eq!(server.list("x"), ["0"]);
}

#[test]
fn a_database_without_its_contents_and_contents_without_their_database_do_not_start() {
    let mut server = TestServer::start();
    upload(&server, "x", 0, b"content").send().assert_status(200);
    server.stop();
    let (blobs, elsewhere) = (server.data_dir().join("blobs"), server.data_dir().join("elsewhere"));
    std::fs::rename(&blobs, &elsewhere).unwrap();
    assert!(server.fails_to_start().contains("the content store is empty"));
    std::fs::remove_dir_all(&blobs).unwrap();
    std::fs::rename(&elsewhere, &blobs).unwrap();
    let (database, elsewhere) = (server.data_dir().join("kv.db"), server.data_dir().join("kv.old"));
    std::fs::rename(&database, &elsewhere).unwrap();
    assert!(server.fails_to_start().contains("the contents belong to another database"));
    for leftover in ["kv.db", "kv.db-wal", "kv.db-shm"] {
        drop(std::fs::remove_file(server.data_dir().join(leftover)));
    }
    std::fs::rename(&elsewhere, &database).unwrap();
    server.start_again();
    server.request("GET", "/files/x").send().assert_status(200);
}

#[test]
fn an_absent_store_refuses_in_time_and_recovers() {
    let mut s3 = S3InProcess::start();
    let server = TestServer::builder().s3(&s3.access).start();
    // Too large to be cached.
    let content = Noise::bytes(1, 8 << 20);
    upload(&server, "there", 0, &content).send().assert_status(200);
    s3.stop();
    for _ in 0..3 {
        assert_refused_for_now(&upload(&server, "x", 0, b"new content"));
        assert_refused_for_now(&server.request("GET", "/files/there"));
    }
    // What needs no content works on: the names, and a further name of a known content.
    assert_eq!(server.list(""), ["there"]);
    upload(&server, "again", 0, &content).send().assert_status(200);
    s3.start_again();
    eventually("writes work again", || (upload(&server, "x", 0, b"new content").send().status == 200).then_some(()));
    let answer = eventually("reads work again", || {
        Some(server.request("GET", "/files/there").send()).filter(|a| a.status == 200)
    });
    assert!(gunzip(&answer.body) == content);
    assert_eq!(server.list(""), ["again", "there", "x"]);
}

#[test]
fn a_store_that_accepts_and_never_answers_is_refused_in_time() {
    let mut s3 = S3InProcess::start();
    let server = TestServer::builder().s3(&s3.access).start();
    upload(&server, "there", 0, &Noise::bytes(1, 8 << 20)).send().assert_status(200);
    let silent = s3.fall_silent();
    std::thread::scope(|scope| {
        scope.spawn(|| assert_refused_for_now(&upload(&server, "x", 0, b"new content")));
        scope.spawn(|| assert_refused_for_now(&upload(&server, "x", 0, &Noise::bytes(2, 20_000))));
        scope.spawn(|| assert_refused_for_now(&server.request("GET", "/files/there")));
    });
    drop(silent);
    s3.start_again();
    eventually("writes work again", || (upload(&server, "x", 0, b"new content").send().status == 200).then_some(()));
}

#[test]
fn a_full_upload_backlog_refuses_in_time_and_serves_again() {
    let mut s3 = S3InProcess::start();
    let one_at_a_time = TestServer::builder().env("UPLOADER_POOL_SIZE", 1).env("UPLOAD_BACKLOG_MAX", 1);
    let server = one_at_a_time.s3(&s3.access).start();
    let silent = s3.fall_silent();
    let reasons: Vec<String> = std::thread::scope(|scope| {
        let uploads: Vec<_> = (0..6)
            .map(|number| {
                let server = &server;
                scope.spawn(move || {
                    let content = format!("content {number}");
                    let answer = assert_refused_for_now(&upload(server, &format!("{number}"), 0, content.as_bytes()));
                    answer.header("x-exception").unwrap_or_default().to_owned()
                })
            })
            .collect();
        uploads.into_iter().map(|upload| upload.join().unwrap()).collect()
    });
    let refused_by_the_backlog = reasons.iter().filter(|reason| reason.contains("too many uploads")).count();
    assert!(refused_by_the_backlog >= 3, "{reasons:?}");
    drop(silent);
    s3.start_again();
    eventually("writes work again", || (upload(&server, "x", 0, b"new content").send().status == 200).then_some(()));
    assert_eq!(server.list(""), ["x"]);
}

#[test]
fn a_full_disk_while_spooling_is_told_and_survived() {
    let server = TestServer::builder().env("MAX_INMEMORY_SIZE", 4096).temp_bytes_max(1 << 20).start();
    for seed in 0..3 {
        let content = Noise::bytes(seed, 4 << 20);
        upload(&server, "large", 0, &content).send().assert_refused(507);
        let target = format!("/files/large?last_modified={}", date(0));
        server.request("PUT", &target).chunks(&content, 100_000).send().assert_refused(507);
        server.assert_no_temporary_files();
    }
    assert!(server.list("").is_empty() && server.objects().is_empty());
    let fits = Noise::bytes(9, 100_000);
    upload(&server, "fits", 0, &fits).send().assert_status(200);
    assert!(gunzip(&server.request("GET", "/files/fits").send().body) == fits);
}
