//! Names and their spellings; the refused ones are in `bad_input`.

use crate::support::{TestServer, date, gunzip, upload};

#[test]
fn spellings_of_one_name_are_one_file() {
    let server = TestServer::start();
    upload(&server, "d/a", 0, b"content").send().assert_status(200);
    for target in ["//files/d/a", "/files///d//a", "/files/d/a/", "/files/d%2Fa", "/files/%64/%61", "/files/d%2F%2Fa//"]
    {
        let answer = server.request("GET", target).send();
        assert_eq!(gunzip(&answer.assert_status(200).body), b"content", "{target}");
    }
    upload(&server, "/d///a/", 1, b"other").send().assert_status(200);
    assert_eq!(server.list(""), ["d/a"]);
    assert_eq!(gunzip(&server.request("GET", "/files/d/a").send().body), b"other");
}

#[test]
fn odd_names_come_back_as_the_same_bytes() {
    let server = TestServer::start();
    let names = [
        "a..b",
        "...",
        "..;",
        ".hidden",
        "a+b",
        "a b",
        "%2e%2e",
        "100%",
        "ż ó/ł",
        "日本語",
        "a?b&c=d#e",
        "\"<>\\^`{|}",
        "name@1700000000",
        "~",
        "a:b;c,d",
        "e\u{301}",
        "é",
    ];
    for name in names {
        let encoded: String = name.bytes().map(|byte| format!("%{byte:02x}")).collect();
        upload(&server, &encoded, 0, name.as_bytes()).send().assert_status(200);
        let answer = server.request("GET", &format!("/files/{encoded}")).send();
        assert_eq!(gunzip(&answer.assert_status(200).body), name.as_bytes());
    }
    let mut expected = names.map(str::to_owned);
    expected.sort();
    assert_eq!(server.list(""), expected);
}

#[test]
fn names_of_4096_bytes_work() {
    let server = TestServer::start();
    for name in ["x".repeat(4096), format!("{}z", "y/".repeat(2047) + "y")] {
        upload(&server, &name, 0, b"content").send().assert_status(200);
        server.request("GET", &format!("/files/{name}")).send().assert_status(200);
        server.request("DELETE", &format!("/files/{name}?last_modified={}", date(0))).send().assert_status(200);
    }
}
