//! Every content is stored once.

use crate::support::{Noise, TestServer, date, gunzip, gzip, sha256, upload};

#[test]
fn one_content_is_one_object_however_it_comes() {
    let server = TestServer::start();
    let content = b"the same logical bytes ".repeat(10_000);
    let put = |path: &str| server.request("PUT", &format!("/files/{path}?last_modified={}", date(0)));
    put("plain").body(content.clone()).send().assert_status(200);
    put("chunked").chunks(&content, 1000).send().assert_status(200);
    for level in 0..=9 {
        let body = gzip(&content, level);
        let path = format!("gzip{level}");
        put(&path).header("Content-Encoding", "gzip").body(body.clone()).send().assert_status(200);
        put(&format!("hinted/{path}"))
            .header("Content-Encoding", "gzip")
            .header("SHA256-Checksum", &sha256(&content))
            .header("Logical-Size", &content.len().to_string())
            .body(body)
            .send()
            .assert_status(200);
    }
    let halves = [gzip(&content[..100], 6), gzip(&content[100..], 6)].concat();
    put("members").header("Content-Encoding", "gzip").body(halves).send().assert_status(200);
    upload(&server, "plain", 1, &content).send().assert_status(200);

    let names = server.list("");
    assert_eq!(names.len(), 23);
    for name in names {
        let answer = server.request("GET", &format!("/files/{name}")).send();
        assert!(gunzip(&answer.assert_status(200).body) == content);
    }
    assert_eq!(server.objects().len(), 1);
}

#[test]
fn different_contents_are_different_objects() {
    let server = TestServer::start();
    for seed in 0..10 {
        upload(&server, &format!("f{seed}"), 0, &Noise::bytes(seed, 5000)).send().assert_status(200);
    }
    assert_eq!(server.objects().len(), 10);
}

#[test]
fn concurrent_uploads_of_one_new_content_share_one_object() {
    let server = TestServer::start();
    for (round, len) in [100, 100_000, 3_000_000].into_iter().enumerate() {
        let content = Noise::bytes(round as u64, len);
        std::thread::scope(|scope| {
            for number in 0..16 {
                let (server, content) = (&server, &content);
                scope.spawn(move || {
                    // Half of them race for one path, too.
                    let path = format!("round{round}/{}", number % 8);
                    upload(server, &path, 0, content).send().assert_status(200);
                });
            }
        });
        assert_eq!(server.objects().len(), round + 1);
        for number in 0..8 {
            let answer = server.request("GET", &format!("/files/round{round}/{number}")).send();
            assert!(gunzip(&answer.assert_status(200).body) == content);
        }
    }
}
