use crate::support::content::shown;
use crate::support::{Response, TestServer, date, upload};

fn delete(server: &TestServer, path: &str, offset: u32) -> Response {
    server.request("DELETE", &format!("/files/{path}?last_modified={}", date(offset))).send()
}

#[test]
fn an_equal_or_newer_date_removes() {
    let server = TestServer::start();
    for offset in [10, 11] {
        upload(&server, "x", 10, b"content").send().assert_status(200);
        let answer = delete(&server, "x", offset);
        answer.assert_status(200);
        assert_eq!(answer.body, b"");
        server.request("GET", "/files/x").send().assert_refused(404);
        delete(&server, "x", offset).assert_refused(404);
    }
}

#[test]
fn an_older_date_changes_nothing() {
    let server = TestServer::start();
    upload(&server, "x", 10, b"content").send().assert_status(200);
    let answer = delete(&server, "x", 9);
    answer.assert_status(200);
    assert_eq!(answer.body, b"");
    let head = server.request("HEAD", "/files/x").send();
    assert_eq!((head.status, head.header("last-modified")), (200, Some(shown(10).as_str())));
}

#[test]
fn what_was_never_there_is_404() {
    let server = TestServer::start();
    upload(&server, "d/x", 0, b"content").send().assert_status(200);
    for path in ["nothing", "d", "d/x/y"] {
        delete(&server, path, 50).assert_refused(404);
    }
    server.request("GET", "/files/d/x").send().assert_status(200);
}

#[test]
fn other_names_of_the_same_content_stay() {
    let server = TestServer::start();
    for path in ["a", "b"] {
        upload(&server, path, 0, b"shared").send().assert_status(200);
    }
    delete(&server, "a", 0).assert_status(200);
    server.request("GET", "/files/a").send().assert_refused(404);
    server.request("GET", "/files/b").send().assert_status(200);
}
