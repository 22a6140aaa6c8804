//! `/health` and `/ready`, as those ask who run and balance servers.

use s3dedup_actors::testkit::postgres::{DATABASE, PostgresServer};
use serde_json::Value;

use crate::support::{TestServer, eventually};

fn ready(server: &TestServer) -> (u16, Value) {
    let answer = server.raw_request("GET", "/ready").send();
    (answer.status, serde_json::from_slice(&answer.body).expect("JSON"))
}

#[test]
fn a_server_is_alive_and_ready_whatever_its_prefix_is() {
    for prefix in ["/ft", ""] {
        let server = TestServer::builder().prefix(prefix).start();
        server.raw_request("GET", "/health").send().assert_status(200);
        server.raw_request("HEAD", "/ready").send().assert_status(200);
        server.raw_request("POST", "/ready").send().assert_status(405);
        let (status, told) = ready(&server);
        assert_eq!((status, &told["metadata"], &told["contents"]), (200, &"ok".into(), &"ok".into()));
    }
}

#[test]
fn a_server_without_its_database_is_alive_and_not_ready_until_it_is_back() {
    let mut postgres = PostgresServer::start();
    let server = TestServer::builder().postgres(&postgres, DATABASE).start();
    assert_eq!(ready(&server).0, 200);
    postgres.stop();
    let told = eventually("it is not ready", || Some(ready(&server)).filter(|(status, _)| *status == 503)).1;
    assert_eq!(told["ready"], false);
    assert_ne!(told["metadata"], "ok");
    assert_eq!(told["contents"], "ok");
    server.raw_request("GET", "/health").send().assert_status(200);
    postgres.start_again();
    eventually("it is ready again", || (ready(&server).0 == 200).then_some(()));
}
