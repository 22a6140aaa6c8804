//! Wrong bytes in the content store are never served.

use std::fs;

use crate::support::{Noise, TestServer, gunzip, gzip, upload};

#[test]
fn a_corrupted_object_gives_a_short_body_or_none_never_wrong_bytes() {
    for len in [3000, 10 << 20] {
        let content = Noise::bytes(8, len);
        let stored = gzip(&content, 6);
        for place in [stored.len() / 2, 0, stored.len() - 1] {
            let mut server = TestServer::start();
            upload(&server, "x", 0, &content).send().assert_status(200);
            // Small contents may be cached in memory.
            server.stop();
            let object = server.objects().pop().unwrap();
            let mut bytes = fs::read(&object).unwrap();
            assert!(bytes == stored);
            bytes[place] ^= 1;
            fs::write(&object, bytes).unwrap();
            server.start_again();

            for (accept, good) in [("gzip", &stored), ("identity", &content)] {
                let request = server.request("GET", "/files/x").header("Accept-Encoding", accept);
                match request.try_send() {
                    Ok(answer) if answer.status == 200 => {
                        assert!(!answer.complete, "a whole body of {len} bytes, flipped at {place}, as {accept}");
                        assert!(answer.body.len() < good.len());
                    }
                    // Small ones are read before the answer begins.
                    Ok(answer) => assert_eq!((answer.status, len), (503, 3000)),
                    Err(error) => panic!("no answer at all: {error}"),
                }
            }
            server.request("GET", "/version").send().assert_status(200);
            assert!(server.log().contains("ERROR"), "corruption must be logged:\n{}", server.log());
        }
    }
}

#[test]
fn a_missing_object_is_a_server_error_not_a_missing_file() {
    let mut server = TestServer::start();
    upload(&server, "x", 0, b"content").send().assert_status(200);
    let lost = server.objects();
    upload(&server, "y", 0, b"another content").send().assert_status(200);
    server.stop();
    for object in lost {
        fs::remove_file(object).unwrap();
    }
    server.start_again();
    // 404 would tell clients that the file does not exist.
    if let Ok(answer) = server.request("GET", "/files/x").try_send() {
        assert!(answer.status >= 500 || !answer.complete, "{answer:?}");
    }
}

#[test]
fn whole_reads_survive_a_restart() {
    let mut server = TestServer::start();
    let contents: Vec<_> = [0, 1, 4096, 1 << 20].map(|len| Noise::bytes(len as u64, len)).into();
    for content in &contents {
        upload(&server, &format!("f{}", content.len()), 0, content).send().assert_status(200);
    }
    server.stop();
    server.start_again();
    for content in &contents {
        let answer = server.request("GET", &format!("/files/f{}", content.len())).send();
        assert!(gunzip(&answer.assert_status(200).body) == *content);
    }
}
