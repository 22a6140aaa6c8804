//! What the cleaner asks of an S3 server, seen from between the two.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::between::{Then, between};
use crate::support::s3::{Garage, S3InProcess};
use crate::support::{Noise, Request, TestServer, date, eventually, gunzip, gzip, upload};

fn report(server: &TestServer, arguments: &[&str]) -> Value {
    let output = server.run(&[&["clean", "--json"], arguments].concat());
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{said} {complained}");
    serde_json::from_str(&said).unwrap()
}

#[test]
fn batches_are_as_large_and_as_many_at_once_as_the_environment_says() {
    const AT_ONCE: usize = 3;
    const GARBAGE: usize = 3 * AT_ONCE;
    let s3 = S3InProcess::start();
    let (requests, now, most) = (Arc::new(AtomicUsize::new(0)), AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
    let (together, counts) = (Barrier::new(AT_ONCE), (Arc::clone(&requests), Arc::clone(&most)));
    let access = between(&s3.access, move |line| {
        if line.starts_with("POST ") && line.contains("?delete") {
            counts.0.fetch_add(1, Ordering::SeqCst);
            counts.1.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            // Fewer at once would wait here in vain.
            together.wait();
            // More at once would be here by then.
            std::thread::sleep(Duration::from_millis(300));
            now.fetch_sub(1, Ordering::SeqCst);
        }
        Then::PassOn
    });
    let builder = TestServer::builder().s3(&access).env("CLEANER_ENABLED", false).env("CLEANER_GRACE", 0);
    let mut server = builder.env("CLEANER_CONCURRENCY", AT_ONCE).env("CLEANER_BATCH_SIZE", 1).start();
    for number in 0..GARBAGE {
        upload(&server, &format!("f{number}"), 0, &Noise::bytes(number as u64, 100)).send().assert_status(200);
        let target = format!("/files/f{number}?last_modified={}", date(1));
        server.request("DELETE", &target).send().assert_status(200);
    }
    server.stop();
    assert_eq!(s3.objects().len(), GARBAGE);
    assert_eq!(report(&server, &[])["unused"]["deleted"], GARBAGE);
    assert!(s3.objects().is_empty());
    assert_eq!((requests.load(Ordering::SeqCst), most.load(Ordering::SeqCst)), (GARBAGE, AT_ONCE));
}

#[test]
fn unfinished_uploads_in_parts_are_planned_and_ended() {
    const UPLOADS: usize = 2;
    let garage = Garage::start();
    let completions = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&completions);
    // Parts are stored, and never put together.
    let access = between(&garage.access, move |line| {
        let completes = line.starts_with("POST ") && line.contains("uploadId=");
        seen.fetch_add(usize::from(completes), Ordering::SeqCst);
        if completes { Then::Lose } else { Then::PassOn }
    });
    let builder = TestServer::builder().s3(&access).env("CLEANER_ENABLED", false);
    // Less than there is: they are no objects.
    let mut server = builder.env("CLEANER_MAX_DELETES", 1).start();
    upload(&server, "small", 0, b"small").send().assert_status(200);
    std::thread::scope(|scope| {
        for number in 0..UPLOADS {
            let content = Noise::bytes(number as u64, 9 << 20);
            let target = format!("/ft/files/large{number}?last_modified={}", date(0));
            let request = Request::new(server.address(), "PUT", &target).header("Content-Encoding", "gzip");
            let request = request.body(gzip(&content, 0));
            scope.spawn(move || assert!(request.try_send().is_err(), "it cannot be stored"));
        }
        eventually("all parts are stored", || (completions.load(Ordering::SeqCst) >= UPLOADS).then_some(()));
        server.signal(Signal::KILL);
    });
    server.wait();
    for _ in 0..2 {
        let dry = report(&server, &["--dry-run"]);
        assert_eq!((&dry["parts"]["planned"], &dry["parts"]["deleted"]), (&UPLOADS.into(), &0.into()), "{dry}");
    }
    let row = |arguments: &[&str]| {
        let output = server.run(arguments);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let row = said.lines().find(|line| line.starts_with("unfinished uploads in parts"));
        let cells: Vec<_> = row.unwrap_or_default().split_whitespace().skip(4).map(str::to_owned).collect();
        (output.status.code(), said.ends_with("complete\n"), cells)
    };
    let cells = |planned: usize, deleted: usize| vec![planned.to_string(), deleted.to_string(), "-".to_owned()];
    assert_eq!(row(&["clean", "--dry-run"]), (Some(0), true, cells(UPLOADS, 0)));
    assert_eq!(row(&["clean"]), (Some(0), true, cells(UPLOADS, UPLOADS)));
    let rest = report(&server, &[]);
    assert_eq!((&rest["parts"]["planned"], &rest["parts"]["deleted"]), (&0.into(), &0.into()), "{rest}");
    // Their names are free, and nothing else was touched.
    server.start_again();
    assert_eq!(server.list(""), ["small"]);
    assert_eq!(gunzip(&server.request("GET", "/files/small").send().assert_status(200).body), b"small");
}
