//! Locks do their work: a content that many bring at once through several servers is stored once.

use std::sync::Barrier;

use s3dedup_actors::testkit::noise;

use super::fixture::Cluster;
use crate::support::{date, gzip};

const CLIENTS: usize = 12;
const CONTENT_BYTES: usize = 8 << 20;

#[test]
fn a_content_that_comes_through_two_servers_at_once_is_stored_once() {
    let cluster = Cluster::start(2, super::in_process());
    let content = noise(3, CONTENT_BYTES);
    let body = gzip(&content, 6);
    let request = |client: usize| {
        let target = format!("/files/f{client}?last_modified={}", date(0));
        let request = cluster.members[client % 2].server.request("PUT", &target);
        request.header("Content-Encoding", "gzip").body(body.clone())
    };
    let (requests, together) = ((0..CLIENTS).map(request).collect::<Vec<_>>(), Barrier::new(CLIENTS));
    std::thread::scope(|scope| {
        for request in &requests {
            let together = &together;
            scope.spawn(move || {
                together.wait();
                request.send().assert_status(200);
            });
        }
    });
    assert_eq!(cluster.bucket.objects().len(), 1);
    for client in 0..CLIENTS {
        let server = &cluster.members[(client + 1) % 2].server;
        let answer = server.request("GET", &format!("/files/f{client}")).send();
        assert!(answer.assert_status(200).body == body);
    }
    let intents = "SELECT count(*) FROM s3dedup.intents";
    assert_eq!(cluster.postgres().sql(intents), "0");
}
