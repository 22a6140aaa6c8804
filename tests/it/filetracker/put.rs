use crate::support::content::shown;
use crate::support::{Noise, Request, Response, TestServer, date, gunzip, gzip, sha256, upload};

fn put(server: &TestServer, path: &str, offset: u32) -> Request {
    server.request("PUT", &format!("/files/{path}?last_modified={}", date(offset)))
}

#[track_caller]
fn assert_stored(answer: &Response, offset: u32) {
    answer.assert_status(200);
    assert_eq!(answer.body, b"");
    assert_eq!(answer.header("content-type"), Some("text/plain"));
    assert_eq!(answer.header("last-modified"), Some(shown(offset).as_str()));
}

#[track_caller]
fn assert_holds(server: &TestServer, path: &str, offset: u32, content: &[u8]) {
    let answer = server.request("GET", &format!("/files/{path}")).send();
    answer.assert_status(200);
    assert_eq!(answer.header("last-modified"), Some(shown(offset).as_str()));
    assert_eq!(answer.header("logical-size"), Some(content.len().to_string().as_str()));
    assert!(gunzip(&answer.body) == content, "{path} holds other bytes");
}

#[test]
fn gzip_with_hints_is_kept_byte_for_byte() {
    let server = TestServer::start();
    for level in [1, 9] {
        let path = format!("level{level}");
        // Different contents, so that deduplication does not hide what was kept.
        let content = format!("abc{level}").repeat(1000).into_bytes();
        let sent = gzip(&content, level);
        let answer = put(&server, &path, 0)
            .header("Content-Encoding", "gzip")
            .header("SHA256-Checksum", &sha256(&content))
            .header("Logical-Size", &content.len().to_string())
            .body(sent.clone())
            .send();
        assert_stored(&answer, 0);
        assert_holds(&server, &path, 0, &content);
        assert!(server.request("GET", &format!("/files/{path}")).send().body == sent);
    }
}

#[test]
fn every_framing_and_coding_stores_the_same() {
    let server = TestServer::start();
    for (number, len) in [0, 1, 70_000, 300_000].into_iter().enumerate() {
        let content = Noise::bytes(number as u64, len);
        let zipped = gzip(&content, 1);
        let requests = [
            ("plain", put(&server, "x", 0).body(content.clone())),
            ("chunked", put(&server, "x", 0).chunks(&content, 10_000)),
            ("identity", put(&server, "x", 0).header("Content-Encoding", "identity").body(content.clone())),
            ("gzip", put(&server, "x", 0).header("Content-Encoding", "gzip").body(zipped.clone())),
            ("x-gzip", put(&server, "x", 0).header("Content-Encoding", "X-GZip").body(zipped.clone())),
            ("chunked gzip", put(&server, "x", 0).header("Content-Encoding", "gzip").chunks(&zipped, 999)),
            ("plain with size", put(&server, "x", 0).header("Logical-Size", &len.to_string()).body(content.clone())),
            (
                "plain with digest",
                put(&server, "x", 0).header("SHA256-Checksum", &sha256(&content)).body(content.clone()),
            ),
            (
                "upper-case digest",
                put(&server, "x", 0)
                    .header("Content-Encoding", "gzip")
                    .header("SHA256-Checksum", &sha256(&content).to_uppercase())
                    .body(zipped.clone()),
            ),
        ];
        for (name, request) in requests {
            let answer = request.send();
            assert_eq!(answer.status, 200, "{name} of {len} bytes: {answer:?}");
            assert_stored(&answer, 0);
            assert_holds(&server, "x", 0, &content);
            let deletion = server.request("DELETE", &format!("/files/x?last_modified={}", date(0))).send();
            deletion.assert_status(200);
        }
    }
}

#[test]
fn gzip_of_several_members_is_one_content() {
    let server = TestServer::start();
    let body = [gzip(b"first ", 6), gzip(b"", 6), gzip(b"second", 6)].concat();
    let answer = put(&server, "x", 0).header("Content-Encoding", "gzip").body(body).send();
    assert_stored(&answer, 0);
    assert_holds(&server, "x", 0, b"first second");
}

#[test]
fn an_older_version_changes_nothing_and_is_told_the_newer() {
    let server = TestServer::start();
    upload(&server, "x", 10, b"new").send().assert_status(200);
    assert_stored(&upload(&server, "x", 9, b"old").send(), 10);
    assert_stored(&put(&server, "x", 9).chunks(b"old", 1).send(), 10);
    assert_holds(&server, "x", 10, b"new");
}

#[test]
fn a_large_older_upload_gets_its_answer_cleanly() {
    let server = TestServer::start();
    upload(&server, "x", 10, b"new").send().assert_status(200);
    let large = Noise::bytes(1, 16 << 20);
    assert_stored(&put(&server, "x", 9).body(large.clone()).send(), 10);
    assert_stored(&put(&server, "x", 9).chunks(&large, 1 << 20).send(), 10);
    assert_holds(&server, "x", 10, b"new");
}

#[test]
fn an_equal_or_newer_version_replaces() {
    let server = TestServer::start();
    for (offset, content) in [(10, "one"), (10, "two"), (11, "three")] {
        assert_stored(&upload(&server, "x", offset, content.as_bytes()).send(), offset);
        assert_holds(&server, "x", offset, content.as_bytes());
    }
}

#[test]
fn after_a_deletion_any_version_is_stored() {
    let server = TestServer::start();
    upload(&server, "x", 10, b"new").send().assert_status(200);
    server.request("DELETE", &format!("/files/x?last_modified={}", date(10))).send().assert_status(200);
    assert_stored(&upload(&server, "x", 1, b"old").send(), 1);
    assert_holds(&server, "x", 1, b"old");
}

#[test]
fn versions_come_back_as_the_date_they_were_given() {
    let server = TestServer::start();
    for (given, shown) in [
        ("Thu%2C+01+Jan+1970+00%3A00%3A00+-0000", "Thu, 01 Jan 1970 00:00:00 -0000"),
        ("Wed,+31+Dec+1969+23:59:59+GMT", "Wed, 31 Dec 1969 23:59:59 -0000"),
        ("Tue,+14+Nov+2023+22:13:20+%2B0200", "Tue, 14 Nov 2023 20:13:20 -0000"),
        ("Tue,+14+Nov+2023+22:13:20++0200", "Tue, 14 Nov 2023 20:13:20 -0000"),
        ("Tue,%2014%20Nov%202023%2022:13:20%20EST", "Wed, 15 Nov 2023 03:13:20 -0000"),
        ("Tuesday,+14-Nov-23+22:13:20+gmt", "Tue, 14 Nov 2023 22:13:20 -0000"),
        ("Tue+Nov+14+22:13:20+2023", "Tue, 14 Nov 2023 22:13:20 -0000"),
        ("14+nov+2023+22:13", "Tue, 14 Nov 2023 22:13:00 -0000"),
        ("Fri,+31+Dec+9999+23:59:59+GMT", "Fri, 31 Dec 9999 23:59:59 -0000"),
        ("Sat,+01+Jan+0100+00:00:00+GMT", "Fri, 01 Jan 0100 00:00:00 -0000"),
    ] {
        let target = format!("/files/x?a=b&last_modified={given}&last_modified=junk");
        let answer = server.request("PUT", &target).body("x").send();
        answer.assert_status(200);
        assert_eq!(answer.header("last-modified"), Some(shown), "{given}");
        let head = server.request("HEAD", "/files/x").send();
        assert_eq!(head.header("last-modified"), Some(shown), "{given}");
        let all = "last_modified=Fri,+31+Dec+9999+23:59:59+GMT";
        server.request("DELETE", &format!("/files/x?{all}")).send().assert_status(200);
    }
}

#[test]
fn one_path_can_be_a_file_and_a_directory() {
    let server = TestServer::start();
    for path in ["a/b", "a", "a/b/c", "a/b/c/d"] {
        assert_stored(&upload(&server, path, 0, path.as_bytes()).send(), 0);
    }
    for path in ["a/b", "a", "a/b/c", "a/b/c/d"] {
        assert_holds(&server, path, 0, path.as_bytes());
    }
}

#[test]
fn expect_100_continue_is_honoured() {
    let server = TestServer::start();
    let request = put(&server, "x", 0).header("Expect", "100-continue").body("content");
    let mut connection = server.connect();
    connection.write(&request.head());
    assert_eq!(connection.line(), "HTTP/1.1 100 Continue");
    assert_eq!(connection.line(), "");
    connection.write(b"content");
    assert_stored(&connection.response(false).unwrap(), 0);
    assert_holds(&server, "x", 0, b"content");
}

#[test]
fn bodies_beyond_the_memory_limit_pass_through_a_file_that_is_gone_after() {
    let server = TestServer::builder().env("MAX_INMEMORY_SIZE", 65_536).start();
    let content = Noise::bytes(7, 20 << 20);
    assert_stored(&put(&server, "plain", 0).body(content.clone()).send(), 0);
    server.assert_no_temporary_files();
    assert_stored(&upload(&server, "zipped", 0, &content).send(), 0);
    server.assert_no_temporary_files();
    assert_holds(&server, "plain", 0, &content);
    assert_holds(&server, "zipped", 0, &content);
}

#[test]
fn other_headers_and_parameters_are_ignored() {
    let server = TestServer::start();
    let answer = server
        .request("PUT", &format!("/files/x?v=1&last_modified={}&x", date(5)))
        .header("Content-Type", "application/x-www-form-urlencoded")
        .header("Last-Modified", "Thu, 01 Jan 2015 00:00:00 GMT")
        .header("If-Match", "\"nonsense\"")
        .body("last_modified=no")
        .send();
    assert_stored(&answer, 5);
    assert_holds(&server, "x", 5, b"last_modified=no");
}

#[test]
fn one_connection_serves_many_requests() {
    let server = TestServer::start();
    let mut connection = server.connect();
    for offset in 0..20 {
        let answer = upload(&server, "x", offset, format!("content {offset}").as_bytes()).send_on(&mut connection);
        assert_stored(&answer, offset);
        let answer = server.request("GET", "/files/x").send_on(&mut connection);
        assert_eq!(gunzip(&answer.body), format!("content {offset}").as_bytes());
    }
}
