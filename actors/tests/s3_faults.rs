//! What the S3 store makes of a server that fails: scripted answers over real TCP, and real servers
//! that are asked for what they must refuse.
#![allow(missing_docs, reason = "a test")]
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod support;

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use s3dedup_actors::model::{BlobKey, Kind, Result, Stamp};
use s3dedup_actors::store::blob::{BlobStore, S3Settings, S3Store, S3Timeouts, Spooled, StaleUploads};
use s3dedup_actors::store::blocking::BlockingPool;
use s3dedup_actors::testkit::{Place, key_of, noise, spooled};
use support::fault_server::{FaultServer, Reply, answer, error};
use support::s3_server::{self, S3Server};

const EMPTY_LIST: &str = "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>";

fn store(settings: S3Settings) -> S3Store {
    let pool = BlockingPool::start("blocking", 2, 64).expect("threads");
    S3Store::new(S3Settings { part_size: 5 << 20, ..settings }, pool).expect("settings")
}

fn on(server: &FaultServer) -> S3Store {
    let mut settings = S3Settings::new(&server.endpoint, "bucket", "GKaccess", "5ec4e7", "garage");
    settings.timeouts = quick();
    store(settings)
}

/// Short enough for a test, long enough for a busy machine.
fn quick() -> S3Timeouts {
    S3Timeouts { request: Duration::from_secs(2), idle: Duration::from_secs(2), ..S3Timeouts::default() }
}

fn small() -> (Spooled, BlobKey) {
    let body = spooled(&noise(1, 1000), Place::Memory);
    let key = key_of(&body.info());
    (body, key)
}

fn large() -> (Spooled, BlobKey) {
    let body = spooled(&noise(2, 12 << 20), Place::File);
    let key = key_of(&body.info());
    (body, key)
}

/// Every call of the store; what they have in common must hold for each.
async fn every_call(store: &S3Store) -> Vec<(&'static str, Result<()>)> {
    let ((body, key), (parts, parts_key)) = (small(), large());
    vec![
        ("put", store.put(&key, &body.bytes, &body.info()).await),
        ("put in parts", store.put(&parts_key, &parts.bytes, &parts.info()).await),
        ("open", store.open(&key, None).await.map(drop)),
        ("open a range", store.open(&key, Some(0..1)).await.map(drop)),
        ("stat", store.stat(&key).await.map(drop)),
        ("delete", store.delete(&[key]).await),
        ("list", store.list(None, 10).await.map(drop)),
        ("probe", store.probe().await),
    ]
}

#[tokio::test]
async fn no_error_answer_is_a_success_or_an_absence() {
    for (status, code, kind) in [
        (400, "InvalidRequest", Kind::Unavailable),
        (403, "AccessDenied", Kind::Unavailable),
        (403, "SignatureDoesNotMatch", Kind::Unavailable),
        (404, "NoSuchBucket", Kind::Unavailable),
        (404, "", Kind::Unavailable),
        (301, "PermanentRedirect", Kind::Unavailable),
        (500, "InternalError", Kind::Unavailable),
        (503, "SlowDown", Kind::Unavailable),
        (507, "InsufficientStorage", Kind::NoSpace),
    ] {
        let server = FaultServer::start(move |_, _| error(status, code));
        let mut settings = S3Settings::new(&server.endpoint, "bucket", "GKaccess", "5ec4e7", "garage");
        settings.timeouts = S3Timeouts { tries: 1, ..quick() };
        let store = store(settings);
        for (call, outcome) in every_call(&store).await {
            let error = outcome.expect_err(&format!("{call} succeeded with {status} {code}"));
            assert_eq!(error.kind(), kind, "{call} with {status} {code}: {error}");
            let printed = format!("{error} {error:?} {}", error.context());
            assert!(!printed.contains("GKaccess") && !printed.contains("5ec4e7"), "{printed}");
        }
    }
}

#[tokio::test]
async fn a_page_of_some_web_server_is_not_s3() {
    let server = FaultServer::start(|_, _| answer(200, "<html><body>welcome</body></html>"));
    let store = on(&server);
    let (body, key) = small();
    assert_eq!(store.put(&key, &body.bytes, &body.info()).await.unwrap_err().kind(), Kind::Unavailable);
    let (body, key) = large();
    assert!(store.put(&key, &body.bytes, &body.info()).await.is_err());
    assert!(store.list(None, 10).await.is_err());
    assert!(store.probe().await.is_err());
    assert!(store.delete(&[key]).await.is_err());
    assert_eq!(store.stat(&key).await.unwrap_err().kind(), Kind::Corrupt);
    // Such a server may well have ETags, but not S3's status.
    let server = FaultServer::start(|_, _| Reply::Answer(202, "ETag: \"e\"\r\n", String::new()));
    let (body, key) = small();
    assert_eq!(on(&server).put(&key, &body.bytes, &body.info()).await.unwrap_err().kind(), Kind::Unavailable);
}

#[tokio::test]
async fn a_missing_key_is_absent_only_when_s3_names_it() {
    let server = FaultServer::start(|_, line| match line.split_whitespace().next() {
        Some("GET") if line.contains("list-type") => answer(200, EMPTY_LIST),
        _ => error(404, "NoSuchKey"),
    });
    let store = on(&server);
    let (body, key) = small();
    assert!(store.open(&key, None).await.unwrap().is_none());
    assert!(store.stat(&key).await.unwrap().is_none());
    assert!(store.put(&key, &body.bytes, &body.info()).await.is_err());
    assert!(store.list(None, 1).await.is_ok());
}

#[tokio::test]
async fn trouble_that_passes_is_not_seen() {
    for trouble in [error(500, "InternalError"), error(503, "SlowDown"), error(429, "SlowDown"), Reply::Close] {
        let server = FaultServer::start(move |n, line| match n {
            0 | 1 => trouble.clone(),
            _ if line.starts_with("GET") => answer(200, "contents"),
            _ => Reply::Answer(200, "ETag: \"e\"\r\n", String::new()),
        });
        let store = on(&server);
        let (body, key) = small();
        store.put(&key, &body.bytes, &body.info()).await.unwrap();
        assert_eq!(server.requests().len(), 3);
        assert_eq!(store.open(&key, None).await.unwrap().unwrap().size, 8);
    }
}

#[tokio::test]
async fn a_refusal_is_not_repeated() {
    let server = FaultServer::start(|_, _| error(403, "AccessDenied"));
    let store = on(&server);
    assert!(store.probe().await.is_err());
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn a_server_that_is_down_or_silent_is_told_within_the_limit() {
    let silent = FaultServer::start(|_, _| Reply::Hang);
    let down = format!("http://127.0.0.1:{}", unused_port());
    for endpoint in [silent.endpoint.clone(), down] {
        let store = store(S3Settings::new(&endpoint, "bucket", "a", "s", "garage"));
        let (body, key) = small();
        let put = async { store.put(&key, &body.bytes, &body.info()).await.unwrap_err() };
        let open = async { store.open(&key, None).await.map(drop).unwrap_err() };
        let stat = async { store.stat(&key).await.unwrap_err() };
        let probe = async { store.probe().await.unwrap_err() };
        let started = Instant::now();
        let (put, open, stat, probe) = tokio::join!(put, open, stat, probe);
        assert!(started.elapsed() < Duration::from_millis(4800), "{:?}", started.elapsed());
        for error in [put, open, stat, probe] {
            assert_eq!(error.kind(), Kind::Unavailable, "{error}");
        }
    }
}

/// A server that takes connections, reads nothing and answers nothing; the number of connections.
fn deaf() -> (String, Arc<AtomicUsize>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let taken = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&taken);
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for stream in listener.incoming().map_while(std::result::Result::ok) {
            count.fetch_add(1, Ordering::SeqCst);
            held.push(stream);
        }
    });
    (endpoint, taken)
}

#[tokio::test]
async fn a_large_upload_to_a_silent_server_is_told_as_soon_as_a_small_one() {
    let (deaf, taken) = deaf();
    let reads_all = FaultServer::start(|_, _| Reply::Hang);
    let fails_late = FaultServer::start(|_, _| {
        std::thread::sleep(Duration::from_millis(1500));
        error(500, "InternalError")
    });
    let content = noise(3, 8 << 20);
    let put = |endpoint: &str, place| {
        let pool = BlockingPool::start("blocking", 2, 64).expect("threads");
        let store = S3Store::new(S3Settings::new(endpoint, "bucket", "a", "s", "garage"), pool).expect("settings");
        let body = spooled(&content, place);
        async move { store.put(&key_of(&body.info()), &body.bytes, &body.info()).await.unwrap_err() }
    };
    let puts = [
        put(&deaf, Place::File),
        put(&deaf, Place::Memory),
        put(&deaf, Place::Pieces(100_000)),
        put(&reads_all.endpoint, Place::File),
        put(&fails_late.endpoint, Place::File),
    ];
    let started = Instant::now();
    let errors = futures_util::future::join_all(puts).await;
    // Four seconds of silence, and hashing and sending on a busy machine.
    assert!(started.elapsed() < Duration::from_secs(7), "{:?}", started.elapsed());
    for error in errors {
        assert_eq!(error.kind(), Kind::Unavailable, "{error}");
    }
    assert_eq!(taken.load(Ordering::SeqCst), 3);
    assert_eq!(reads_all.requests().len(), 1);
    assert!((2..=3).contains(&fails_late.requests().len()), "{:?}", fails_late.requests());
}

#[tokio::test]
async fn a_slow_upload_gets_its_time_as_long_as_it_moves() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let size = 24 << 20;
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let (mut buffer, mut taken) = (vec![0; 64 << 10], 0);
        while taken < size {
            std::thread::sleep(Duration::from_millis(15));
            stream.read_exact(&mut buffer).unwrap();
            taken += buffer.len();
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nETag: \"e\"\r\nContent-Length: 0\r\n\r\n").unwrap();
        // What is left of the request is its head's length.
        drop(std::io::copy(&mut stream, &mut std::io::sink()));
    });
    let mut settings = S3Settings::new(&endpoint, "bucket", "a", "s", "garage");
    settings.part_size = size as u64;
    settings.timeouts = S3Timeouts { request: Duration::from_secs(3), tries: 1, ..S3Timeouts::default() };
    let pool = BlockingPool::start("blocking", 2, 64).expect("threads");
    let body = spooled(&noise(4, size), Place::Memory);
    let started = Instant::now();
    let store = S3Store::new(settings, pool).expect("settings");
    store.put(&key_of(&body.info()), &body.bytes, &body.info()).await.unwrap();
    assert!(started.elapsed() > Duration::from_secs(5), "{:?}", started.elapsed());
}

fn unused_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn a_download_that_ends_early_or_stalls_is_an_error_in_the_stream() {
    for reply in [Reply::Short(100_000, 60_000), Reply::Stall(100_000, 60_000), Reply::Short(100_000, 0)] {
        let server = FaultServer::start(move |_, _| reply.clone());
        let store = on(&server);
        let reader = store.open(&small().1, None).await.unwrap().unwrap();
        assert_eq!(reader.size, 100_000);
        let pieces: Vec<_> = reader.stream.collect().await;
        let (last, good) = pieces.split_last().unwrap();
        assert!(good.iter().all(Result::is_ok));
        assert!(good.iter().flatten().map(|piece| piece.len()).sum::<usize>() <= 60_000);
        assert_eq!(last.as_ref().unwrap_err().kind(), Kind::Unavailable);
    }
}

#[tokio::test]
async fn a_server_that_ignores_or_shortens_a_range_is_found_out() {
    let ignores = FaultServer::start(|_, _| answer(200, "0123456789"));
    assert!(on(&ignores).open(&small().1, Some(2..4)).await.is_err());
    let shortens = FaultServer::start(|_, _| Reply::Answer(206, "Content-Range: bytes 2-2/3\r\n", "2".into()));
    assert_eq!(on(&shortens).open(&small().1, Some(2..4)).await.map(drop).unwrap_err().kind(), Kind::Corrupt);
    let shifts = FaultServer::start(|_, _| Reply::Answer(206, "Content-Range: bytes 0-1/3\r\n", "01".into()));
    assert!(on(&shifts).open(&small().1, Some(2..4)).await.is_err());
}

const BEGUN: &str = "<InitiateMultipartUploadResult><UploadId>id+1/2=</UploadId></InitiateMultipartUploadResult>";

/// A server that takes every part and ends an upload as `end` says.
fn assembling(end: impl Fn(usize) -> Reply + Send + Sync + 'static) -> FaultServer {
    FaultServer::start(move |n, line| {
        if line.starts_with("POST") && line.contains("?uploads") {
            answer(200, BEGUN)
        } else if line.starts_with("PUT") {
            Reply::Answer(200, "ETag: \"part\"\r\n", String::new())
        } else if line.starts_with("POST") {
            end(n)
        } else if line.contains("list-type") {
            answer(200, EMPTY_LIST)
        } else if line.starts_with("DELETE") {
            answer(204, "")
        } else {
            error(404, "NoSuchKey")
        }
    })
}

async fn aborts(server: &FaultServer) -> usize {
    let count = || server.requests().iter().filter(|line| line.starts_with("DELETE")).count();
    let deadline = Instant::now() + Duration::from_secs(5);
    while count() == 0 && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    count()
}

#[tokio::test]
async fn an_upload_whose_end_is_an_error_inside_a_200_fails_and_is_aborted() {
    for end in [
        Reply::Answer(200, "", "<Error><Code>InvalidPart</Code><Message>m</Message></Error>".into()),
        Reply::Answer(200, "", "<Error><Code>InternalError</Code><Message>m</Message></Error>".into()),
        answer(200, ""),
        error(400, "InvalidPart"),
        error(500, "InternalError"),
        Reply::Close,
    ] {
        let told = format!("{end:?}");
        let server = assembling(move |_| end.clone());
        let (body, key) = large();
        let outcome = on(&server).put(&key, &body.bytes, &body.info()).await;
        assert_eq!(outcome.expect_err(&told).kind(), Kind::Unavailable, "{told}");
        assert_eq!(aborts(&server).await, 1, "{told}");
    }
}

#[tokio::test]
async fn an_upload_that_ends_well_but_is_not_there_fails() {
    let done = "<CompleteMultipartUploadResult><ETag>\"e\"</ETag></CompleteMultipartUploadResult>";
    let server = assembling(move |_| answer(200, done));
    let (body, key) = large();
    assert!(on(&server).put(&key, &body.bytes, &body.info()).await.is_err());
}

#[tokio::test]
async fn a_dropped_or_failed_upload_is_aborted() {
    let refuses = FaultServer::start(|_, line| {
        if line.contains("?uploads") {
            answer(200, BEGUN)
        } else if line.contains("partNumber=2") {
            error(403, "AccessDenied")
        } else {
            Reply::Answer(200, "ETag: \"part\"\r\n", String::new())
        }
    });
    let (body, key) = large();
    assert!(on(&refuses).put(&key, &body.bytes, &body.info()).await.is_err());
    assert_eq!(aborts(&refuses).await, 1);

    let hangs = assembling(|_| Reply::Hang);
    let store = on(&hangs);
    let info = body.info();
    let put = store.put(&key, &body.bytes, &info);
    assert!(tokio::time::timeout(Duration::from_millis(1200), put).await.is_err());
    assert_eq!(aborts(&hangs).await, 1);
}

#[tokio::test]
async fn an_end_that_was_lost_but_happened_is_found_by_looking() {
    let (body, key) = large();
    let info = body.info();
    let described: &'static str = format!(
        "x-amz-meta-sha256: {}\r\nx-amz-meta-logical-size: {}\r\nx-amz-meta-encoding: gzip\r\nx-amz-meta-blake3: {}\r\n",
        info.digest, info.logical_size, info.stored_hash
    )
    .leak();
    let size = info.stored_size as usize;
    let ends = AtomicUsize::new(0);
    let server = FaultServer::start(move |_, line| {
        if line.contains("?uploads") {
            answer(200, BEGUN)
        } else if line.starts_with("PUT") {
            Reply::Answer(200, "ETag: \"part\"\r\n", String::new())
        } else if line.starts_with("HEAD") {
            Reply::Answer(200, described, "x".repeat(size))
        } else {
            match ends.fetch_add(1, Ordering::SeqCst) {
                0 => Reply::Close,
                _ => error(404, "NoSuchUpload"),
            }
        }
    });
    on(&server).put(&key, &body.bytes, &info).await.unwrap();
}

#[tokio::test]
async fn a_wrong_secret_is_told_with_what_to_check() {
    let server = S3Server::start();
    let wrong = S3Settings::new(&server.endpoint, s3_server::BUCKET, s3_server::ACCESS_KEY, "wrong", "us-east-1");
    for (call, outcome) in every_call(&store(wrong)).await {
        let error = outcome.expect_err(call);
        assert_eq!(error.kind(), Kind::Unavailable, "{call}");
        assert!(error.context().contains("S3_SECRET_KEY"), "{call}: {error}");
    }
}

/// A page of unfinished uploads.
fn uploads(rest: &str, uploads: &[(&str, &str)]) -> Reply {
    let listed = uploads.iter().map(|(key, id)| {
        let initiated = "<Initiated>2023-11-14T22:13:20.000Z</Initiated>";
        format!("<Upload><Key>{key}</Key><UploadId>{id}</UploadId>{initiated}</Upload>")
    });
    let listed: String = listed.collect();
    answer(200, &format!("<ListMultipartUploadsResult>{rest}{listed}</ListMultipartUploadsResult>"))
}

fn stale(begun_before: Stamp) -> StaleUploads<'static> {
    StaleUploads { begun_before, dry_run: false, concurrency: 3, is_stopped: &|| false }
}

#[tokio::test]
async fn abandoned_uploads_are_aborted_page_by_page() {
    let (_, key) = small();
    let name = key.to_string();
    let first = name.clone();
    let server = FaultServer::start(move |_, line| match line {
        line if line.starts_with("DELETE") && line.contains("uploadId=gone") => error(404, "NoSuchUpload"),
        line if line.starts_with("DELETE") => answer(204, ""),
        line if line.contains("key-marker") => uploads("<IsTruncated>false</IsTruncated>", &[(&first, "gone")]),
        _ => {
            let next = "<NextKeyMarker>k</NextKeyMarker><NextUploadIdMarker>i</NextUploadIdMarker>";
            uploads(&format!("<IsTruncated>true</IsTruncated>{next}"), &[(&first, "one"), ("a stranger", "two")])
        }
    });
    let store = on(&server);
    assert_eq!(store.abort_stale_uploads(stale(Stamp::from_seconds(1_600_000_000))).await.unwrap(), 0);
    let old = Stamp::from_seconds(1_700_000_000);
    let dry_run = StaleUploads { dry_run: true, ..stale(old) };
    assert_eq!(store.abort_stale_uploads(dry_run).await.unwrap(), 2);
    let is_stopped = StaleUploads { is_stopped: &|| true, ..stale(old) };
    assert_eq!(store.abort_stale_uploads(is_stopped).await.unwrap(), 0);
    assert!(!server.requests().iter().any(|line| line.starts_with("DELETE")));
    assert_eq!(store.abort_stale_uploads(stale(old)).await.unwrap(), 2);
    let deletions: Vec<_> = server.requests().into_iter().filter(|line| line.starts_with("DELETE")).collect();
    assert_eq!(deletions.len(), 2);
    assert!(deletions.iter().all(|line| line.contains(&name)), "{deletions:?}");
}

#[tokio::test]
async fn a_server_that_does_not_list_uploads_is_borne_and_one_that_fails_is_not() {
    let now = Stamp::now();
    let server = FaultServer::start(|_, _| error(501, "NotImplemented"));
    assert_eq!(on(&server).abort_stale_uploads(stale(now)).await.unwrap(), 0);
    let server = FaultServer::start(|_, _| error(403, "AccessDenied"));
    assert!(on(&server).abort_stale_uploads(stale(now)).await.is_err());
    let server = FaultServer::start(|_, _| answer(200, "<html/>"));
    assert!(on(&server).abort_stale_uploads(stale(now)).await.is_err());
}

#[tokio::test]
async fn an_object_that_is_held_is_told_and_keeps_no_other_one() {
    let (gone, held) = (key(1), key(2));
    let result = format!(
        "<DeleteResult><Deleted><Key>{gone}</Key></Deleted>\
         <Error><Key>{held}</Key><Code>AccessDenied</Code><Message>legal hold</Message></Error></DeleteResult>"
    );
    let server = FaultServer::start(move |_, _| answer(200, &result));
    let store = on(&server);
    let deletion = store.delete_each(&[gone, held]).await.unwrap();
    assert_eq!(deletion.kept, [held]);
    assert!(deletion.reason.unwrap().to_string().contains("AccessDenied"));
    assert!(store.delete(&[gone, held]).await.is_err());
}

fn key(byte: u8) -> BlobKey {
    format!("{byte:02x}").repeat(32).parse().unwrap()
}
