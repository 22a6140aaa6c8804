//! Bad input: a telling answer, nothing stored, no temporary file left, service goes on.

use crate::support::{Noise, Request, TestServer, date, gzip, sha256, upload};

/// Asserts that nothing was stored and that the server still works.
#[track_caller]
fn assert_unharmed(server: &TestServer) {
    assert!(server.list("").is_empty());
    assert!(server.objects().is_empty(), "{:?}", server.objects());
    server.assert_no_temporary_files();
    upload(server, "after", 0, b"all is well").send().assert_status(200);
}

fn put(server: &TestServer) -> Request {
    server.request("PUT", &format!("/files/x?last_modified={}", date(0)))
}

#[test]
fn dates_that_are_none() {
    let server = TestServer::start();
    for query in [
        "",
        "?",
        "?last_modified",
        "?last_modified=",
        "?last_modified=1700000000",
        "?last_modified=2023-11-14T22:13:20Z",
        "?last_modified=2023-11-14+22:13:20",
        "?last_modified=Tue,+14+Nov+2023+22:13:20.5+-0000",
        "?last_modified=Tue,+14+Nov+12023+22:13:20+-0000",
        "?last_modified=Tue,+14+Foo+2023+22:13:20+-0000",
        "?last_modified=%ff%fe",
        "?last_modified=%",
        "?last-modified=Tue,+14+Nov+2023+22:13:20+-0000",
    ] {
        for method in ["PUT", "DELETE"] {
            server.request(method, &format!("/files/x{query}")).body("content").send().assert_refused(400);
        }
    }
    server.request("GET", "/list?last_modified=junk").send().assert_refused(400);
    assert_unharmed(&server);
}

#[test]
fn paths_that_are_none() {
    let server = TestServer::start();
    let too_long = "x".repeat(4097);
    let too_long_encoded = "%78".repeat(4097);
    let paths = [
        "",
        "/",
        "..",
        "../x",
        "x/..",
        "x/../y",
        "%2e%2e",
        "x/%2E./y",
        "x%2F..%2Fy",
        ".",
        "x/./y",
        "%2e",
        "x%00",
        "%00",
        "x%0Ay",
        "x%0d",
        "%1b",
        "%7f",
        "x%c2%85",
        "%ff",
        "%c3",
        "x%c0%afy",
        "%ed%a0%80",
        "%",
        "x%4",
        "x%zz",
        &too_long,
        &too_long_encoded,
    ];
    let query = format!("?last_modified={}", date(0));
    for path in paths {
        for method in ["PUT", "GET", "DELETE"] {
            server.request(method, &format!("/files/{path}{query}")).body("content").send().assert_refused(400);
        }
        assert_eq!(server.request("HEAD", &format!("/files/{path}")).send().status, 400);
        if !["", "/"].contains(&path) {
            server.request("GET", &format!("/list/{path}")).send().assert_refused(400);
        }
    }
    assert_unharmed(&server);
}

#[test]
fn hints_that_are_malformed() {
    let server = TestServer::start();
    for (name, value) in [
        ("SHA256-Checksum", "abc"),
        ("SHA256-Checksum", ""),
        ("SHA256-Checksum", "../../../../etc/passwd"),
        ("SHA256-Checksum", &"g".repeat(64)),
        ("SHA256-Checksum", &"a".repeat(65)),
        ("Logical-Size", "-1"),
        ("Logical-Size", "seven"),
        ("Logical-Size", "7.0"),
        ("Logical-Size", "99999999999999999999"),
    ] {
        let answer = put(&server).header(name, value).body("content").send();
        assert!(answer.assert_refused(400).text().contains(name), "{answer:?}");
    }
    assert_unharmed(&server);
}

#[test]
fn hints_that_lie() {
    let server = TestServer::start();
    let content = b"the true content";
    let (digest, size) = (sha256(content), content.len().to_string());
    for (name, value) in [("SHA256-Checksum", &sha256(b"another")), ("Logical-Size", &"15".to_owned())] {
        let other = if name == "Logical-Size" { ("SHA256-Checksum", &digest) } else { ("Logical-Size", &size) };
        for (coding, body) in [("identity", content.to_vec()), ("gzip", gzip(content, 6))] {
            let request = put(&server).header("Content-Encoding", coding).header(name, value).header(other.0, other.1);
            for request in [request.clone().body(body.clone()), request.chunks(&body, 5)] {
                let answer = request.send();
                assert!(answer.assert_refused(400).text().contains(name), "{answer:?}");
            }
        }
    }
    assert_unharmed(&server);
}

#[test]
fn a_false_digest_neither_poisons_nor_leaks_a_content() {
    let server = TestServer::start();
    let secret = b"the honest content";
    upload(&server, "honest", 0, secret).send().assert_status(200);
    let claim = |body: &[u8]| put(&server).header("SHA256-Checksum", &sha256(secret)).body(body).send();
    claim(b"x").assert_refused(400);
    claim(b"").assert_refused(400);
    server.request("GET", "/files/x").send().assert_refused(404);
    upload(&server, "again", 0, secret).send().assert_status(200);
    let answer = server.request("GET", "/files/again").header("Accept-Encoding", "identity").send();
    assert_eq!(answer.assert_status(200).body, secret);
}

#[test]
fn gzip_that_is_broken() {
    for (len, memory) in [(1000, 65_536), (1 << 20, 65_536)] {
        let server = TestServer::builder().env("MAX_INMEMORY_SIZE", memory).start();
        let good = gzip(&Noise::bytes(5, len), 6);
        let mut flipped_middle = good.clone();
        flipped_middle[good.len() / 2] ^= 0x10;
        let mut flipped_crc = good.clone();
        flipped_crc[good.len() - 6] ^= 1;
        let mut flipped_size = good.clone();
        flipped_size[good.len() - 1] ^= 1;
        for (what, body) in [
            ("empty", vec![]),
            ("no gzip", b"this is no gzip at all".to_vec()),
            ("head only", good[..10].to_vec()),
            ("without trailer", good[..good.len() - 8].to_vec()),
            ("without its last byte", good[..good.len() - 1].to_vec()),
            ("half", good[..good.len() / 2].to_vec()),
            ("flipped in the middle", flipped_middle),
            ("flipped check sum", flipped_crc),
            ("flipped size", flipped_size),
            ("with a tail", [&good[..], b"tail"].concat()),
            ("with a zero tail", [&good[..], &[0; 100]].concat()),
            ("with a broken second member", [&good[..], &good[..20]].concat()),
        ] {
            let request = put(&server).header("Content-Encoding", "gzip");
            for request in [request.clone().body(body.clone()), request.chunks(&body, 70_000)] {
                let answer = request.send();
                assert_eq!(answer.status, 400, "{what}: {answer:?}");
                answer.assert_refused(400);
            }
        }
        assert_unharmed(&server);
    }
}

#[test]
fn gzip_bombs() {
    let server = TestServer::builder().env("MAX_LOGICAL_SIZE", 1 << 20).start();
    let bomb = gzip(&vec![0; 64 << 20], 9);
    assert!(bomb.len() < 1 << 20);
    let request = put(&server).header("Content-Encoding", "gzip");
    request.clone().body(bomb.clone()).send().assert_refused(413);
    request.clone().chunks(&bomb, 1000).send().assert_refused(413);
    request.header("Logical-Size", "10").body(bomb).send().assert_refused(413);
    put(&server).body(vec![0; (1 << 20) + 1]).send().assert_refused(413);
    put(&server).body(Noise::bytes(1, 16 << 20)).send().assert_refused(413);
    assert_unharmed(&server);
    put(&server).body(vec![0; 1 << 20]).send().assert_status(200);
}

#[test]
fn codings_that_are_unknown() {
    let server = TestServer::start();
    for coding in ["br", "deflate", "zstd", "compress", "gzip, gzip", "gzip, br"] {
        put(&server).header("Content-Encoding", coding).body("content").send().assert_refused(415);
    }
    assert_unharmed(&server);
}

#[test]
fn bodies_that_end_early() {
    let server = TestServer::builder().env("MAX_INMEMORY_SIZE", 65_536).start();
    let content = Noise::bytes(6, 500_000);
    for (coding, body) in [("identity", content.clone()), ("gzip", gzip(&content, 6))] {
        let request = put(&server).header("Content-Encoding", coding);
        for sent in [0, 1, body.len() / 2, body.len() - 1] {
            for half_close in [true, false] {
                let mut connection = server.connect();
                connection.write(&request.clone().body(body.clone()).head());
                connection.write(&body[..sent]);
                if half_close {
                    connection.finish_writing();
                    if let Ok(answer) = connection.response(false) {
                        assert_eq!(answer.status, 400, "{answer:?}");
                    }
                }
            }
            let mut connection = server.connect();
            connection.write(&request.clone().chunks(&body, 1).head());
            connection.write(format!("{:x}\r\n", body.len()).as_bytes());
            connection.write(&body[..sent]);
            connection.finish_writing();
            if let Ok(answer) = connection.response(false) {
                assert_eq!(answer.status, 400, "{answer:?}");
            }
        }
    }
    // All chunks are there, only the end mark is missing.
    let mut connection = server.connect();
    connection.write(&put(&server).chunks(b"x", 1).head());
    connection.write(b"7\r\ncontent\r\n");
    connection.finish_writing();
    if let Ok(answer) = connection.response(false) {
        assert_eq!(answer.status, 400, "{answer:?}");
    }
    assert_unharmed(&server);
}

#[test]
fn a_cut_upload_leaves_the_previous_version() {
    let server = TestServer::start();
    upload(&server, "x", 0, b"previous").send().assert_status(200);
    let mut connection = server.connect();
    connection.write(&upload(&server, "x", 1, &Noise::bytes(1, 100_000)).head());
    connection.write(b"some bytes");
    connection.finish_writing();
    assert!(connection.response(false).map_or(true, |answer| answer.status == 400));
    let answer = server.request("GET", "/files/x").header("Accept-Encoding", "identity").send();
    assert_eq!(answer.assert_status(200).body, b"previous");
}

#[test]
fn chunks_that_are_broken() {
    let server = TestServer::start();
    for framing in ["zz\r\ncontent\r\n0\r\n\r\n", "7\r\ncontent!!\r\n0\r\n\r\n", "-7\r\ncontent\r\n0\r\n\r\n"] {
        let mut connection = server.connect();
        connection.write(&put(&server).chunks(b"x", 1).head());
        connection.write(framing.as_bytes());
        if let Ok(answer) = connection.response(false) {
            assert_eq!(answer.status, 400, "{framing:?}: {answer:?}");
        }
    }
    assert_unharmed(&server);
}

#[test]
fn bodies_that_stall_are_given_up() {
    let server = TestServer::builder().env("BODY_IDLE_SECONDS", 1).start();
    std::thread::scope(|scope| {
        for request in [put(&server).body("content"), put(&server).chunks(b"content", 7)] {
            let mut connection = server.connect();
            scope.spawn(move || {
                connection.write(&request.head());
                let answer = connection.response(false).unwrap();
                answer.assert_refused(408);
                assert_eq!(answer.header("connection"), Some("close"));
                assert!(connection.is_closed());
            });
        }
    });
    assert_unharmed(&server);
}

#[test]
fn bodies_that_trickle_are_given_up() {
    let server = TestServer::builder().env("BODY_IDLE_SECONDS", 1).env("BODY_MIN_RATE", 10_000).start();
    let mut connection = server.connect();
    connection.write(&put(&server).body(vec![0; 1 << 20]).head());
    // Never idle for long, but far below the rate.
    while !connection.has_answer() {
        let _ = connection.try_write(b"x");
    }
    let answer = connection.response(false).unwrap();
    answer.assert_refused(408);
    assert_unharmed(&server);
}

#[test]
fn refused_uploads_get_their_answer_cleanly_however_large() {
    let server = TestServer::start();
    let large = Noise::bytes(1, 16 << 20);
    for request in [
        server.request("PUT", "/files/x"),
        server.request("PUT", "/files/../x?last_modified=junk"),
        put(&server).header("Logical-Size", "x"),
        server.request("PUT", "/other"),
    ] {
        request.clone().body(large.clone()).send().assert_refused(400);
        request.chunks(&large, 100_000).send().assert_refused(400);
    }
    put(&server).header("Content-Encoding", "gzip").body(large.clone()).send().assert_refused(400);
    put(&server).header("Content-Encoding", "br").body(large.clone()).send().assert_refused(415);
    server.request("POST", "/files/x").body(large).send().assert_refused(405);
    assert_unharmed(&server);
}

#[test]
fn a_refusal_does_not_wait_for_the_body() {
    let server = TestServer::start();
    let mut connection = server.connect();
    connection.write(&server.request("PUT", "/files/x").body(vec![0; 1 << 20]).head());
    connection.response(false).unwrap().assert_refused(400);
}

#[test]
fn endpoints_that_are_unknown() {
    let server = TestServer::start();
    for target in ["", "/", "/other", "/Files/x", "/file", "/version/x", "/../files/x", "/status"] {
        for method in ["GET", "PUT", "DELETE", "POST"] {
            server.request(method, target).send().assert_refused(400);
        }
    }
    for target in ["/", "/version", "/files/x", "/ftp/version", "/favicon.ico"] {
        for method in ["GET", "PUT", "POST"] {
            server.raw_request(method, target).send().assert_refused(404);
        }
    }
    server.raw_request("OPTIONS", "*").send().assert_refused(404);
    assert_unharmed(&server);
}

#[test]
fn methods_that_are_wrong() {
    let server = TestServer::start();
    for (target, wrong, right) in [
        ("/version", &["PUT", "DELETE", "POST", "PATCH", "OPTIONS", "TRACE", "BREW"][..], "GET, HEAD"),
        ("/list/d", &["PUT", "DELETE", "POST", "PATCH", "OPTIONS"], "GET, HEAD"),
        ("/files/x", &["POST", "PATCH", "OPTIONS", "BREW"], "GET, HEAD, PUT, DELETE"),
    ] {
        for method in wrong {
            let answer = server.request(method, target).send();
            answer.assert_refused(405);
            assert_eq!(answer.header("allow"), Some(right), "{method} {target}");
        }
    }
    assert_unharmed(&server);
}

#[test]
fn requests_that_are_no_http() {
    let server = TestServer::start();
    for bytes in ["\r\n\r\n\0\0\0", "GET\r\n\r\n", "GET /\u{17c} HTTP/1.1\r\nHost: x\r\n\r\n", "GET / HTTP/1.1\r\n\r\n"]
    {
        let mut connection = server.connect();
        connection.write(bytes.as_bytes());
        connection.finish_writing();
        if let Ok(answer) = connection.response(false) {
            assert_eq!(answer.status, 400);
        }
    }
    assert_unharmed(&server);
}
