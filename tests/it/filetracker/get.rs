use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::content::shown;
use crate::support::{Noise, Response, TestServer, gunzip, upload};

fn with_file(content: &[u8]) -> TestServer {
    let server = TestServer::start();
    upload(&server, "dir/x", 0, content).send().assert_status(200);
    server
}

/// All headers but those that belong to the connection or to one request.
fn described(answer: &Response) -> Vec<(String, String)> {
    let mut headers = answer.headers.clone();
    headers.retain(|(name, _)| !["date", "connection", "keep-alive", "x-request-id"].contains(&name.as_str()));
    headers.sort();
    headers
}

#[test]
fn get_sends_the_gzip_form_with_everything_a_client_reads() {
    let content = b"some content ".repeat(100);
    let server = with_file(&content);
    for accept in [None, Some(""), Some("gzip, deflate"), Some("*"), Some("identity;q=1, gzip;q=0.1")] {
        let mut request = server.request("GET", "/files/dir/x");
        if let Some(value) = accept {
            request = request.header("Accept-Encoding", value);
        }
        let answer = request.send();
        answer.assert_status(200);
        assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
        assert_eq!(answer.header("content-encoding"), Some("gzip"), "{accept:?}");
        assert_eq!(answer.header("last-modified"), Some(shown(0).as_str()));
        assert_eq!(answer.header("logical-size"), Some("1300"));
        assert_eq!(answer.header("vary"), Some("Accept-Encoding"));
        assert_eq!(answer.content_length(), Some(answer.body.len() as u64));
        assert_eq!(gunzip(&answer.body), content);
    }
}

#[test]
fn a_client_that_rules_gzip_out_gets_the_plain_bytes() {
    for content in [&b""[..], b"short", &Noise::bytes(3, 3 << 20)] {
        let server = with_file(content);
        for accept in ["identity", "br", "gzip;q=0", "*;q=0", "deflate, gzip;q=0.0"] {
            let request = |method| server.request(method, "/files/dir/x").header("Accept-Encoding", accept);
            let answer = request("GET").send();
            answer.assert_status(200);
            assert_eq!(answer.header("content-encoding"), None, "{accept}");
            assert_eq!(answer.header("logical-size"), Some(content.len().to_string().as_str()));
            assert_eq!(answer.header("vary"), Some("Accept-Encoding"));
            assert_eq!(answer.content_length(), Some(content.len() as u64));
            assert!(answer.body == content);
            assert_eq!(described(&request("HEAD").send()), described(&answer));
        }
    }
}

#[test]
fn head_says_what_get_says_without_a_body() {
    for content in [&b""[..], b"short", &Noise::bytes(4, 1 << 20)] {
        let server = with_file(content);
        let get = server.request("GET", "/files/dir/x").send();
        // On one connection: a body that should not be there would break the second answer.
        let mut connection = server.connect();
        for _ in 0..2 {
            let head = server.request("HEAD", "/files/dir/x").send_on(&mut connection);
            assert_eq!(head.status, 200);
            assert_eq!(described(&head), described(&get));
        }
    }
}

#[test]
fn missing_files_and_directories_are_404() {
    let server = with_file(b"x");
    for path in ["nothing", "dir", "dir/", "dir/x/y", "Dir/x"] {
        server.request("GET", &format!("/files/{path}")).send().assert_refused(404);
        let head = server.request("HEAD", &format!("/files/{path}")).send();
        assert_eq!(head.status, 404);
        assert!(head.header("x-exception").is_some());
    }
}

#[test]
fn queries_ranges_and_conditions_are_ignored() {
    let content = b"0123456789".repeat(10);
    let server = with_file(&content);
    let answer = server
        .request("GET", "/files/dir/x?last_modified=junk&x=y")
        .header("Range", "bytes=0-1")
        .header("If-Modified-Since", "Fri, 01 Jan 2100 00:00:00 GMT")
        .header("If-None-Match", "*")
        .send();
    answer.assert_status(200);
    assert_eq!(gunzip(&answer.body), content);
    assert_eq!(answer.header("accept-ranges"), None);
}

#[test]
fn http_1_0_works() {
    let server = with_file(b"content");
    for (target, body) in [("/ft/files/dir/x", None), ("/ft/list", Some("dir/x\n"))] {
        let mut connection = server.connect();
        connection.write(format!("GET {target} HTTP/1.0\r\n\r\n").as_bytes());
        let answer = connection.response(false).unwrap();
        answer.assert_status(200);
        assert_eq!(answer.header("transfer-encoding"), None);
        match body {
            Some(text) => assert_eq!(answer.text(), text),
            None => assert_eq!(gunzip(&answer.body), b"content"),
        }
        assert!(connection.is_closed());
    }
}

#[test]
fn readers_of_a_path_that_is_being_replaced_see_one_version_or_the_other() {
    let server = TestServer::start();
    let contents: Vec<Vec<u8>> = (0..2).map(|seed| Noise::bytes(seed, 200_000)).collect();
    upload(&server, "x", 0, &contents[0]).send().assert_status(200);
    let written = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for offset in 1..40 {
                upload(&server, "x", offset, &contents[offset as usize % 2]).send().assert_status(200);
            }
            written.store(true, Ordering::Relaxed);
        });
        for _ in 0..3 {
            scope.spawn(|| {
                while !written.load(Ordering::Relaxed) {
                    let answer = server.request("GET", "/files/x").send();
                    answer.assert_status(200);
                    let version = (0..40).find(|offset| answer.header("last-modified") == Some(&shown(*offset)));
                    let expected = &contents[version.expect("a known version") as usize % 2];
                    assert!(gunzip(&answer.body) == *expected, "headers of one version, bytes of another");
                }
            });
        }
    });
}
