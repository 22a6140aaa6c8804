use crate::support::{Response, TestServer};

#[test]
fn version_is_told_under_every_spelling() {
    let server = TestServer::start();
    for target in ["/version", "/version/", "//version", "/version?x=y", "/%76ersion"] {
        let answer = server.request("GET", target).send();
        answer.assert_status(200);
        assert_eq!(answer.text(), r#"{"protocol_versions": [2]}"#, "{target}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
    }
}

#[test]
fn version_answers_head() {
    let server = TestServer::start();
    let Response { status, body, .. } = server.request("HEAD", "/version").send();
    assert_eq!((status, body.len()), (200, 0));
}

#[test]
fn any_prefix_and_none_serve() {
    for prefix in ["", "/ft", "/a/b"] {
        let server = TestServer::builder().prefix(prefix).start();
        server.request("GET", "/version").send().assert_status(200);
        server.raw_request("GET", &format!("{prefix}//version/")).send().assert_status(200);
        if !prefix.is_empty() {
            server.raw_request("GET", "/version").send().assert_refused(404);
        }
    }
}
