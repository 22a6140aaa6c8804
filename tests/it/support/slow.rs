//! Uploads that stop half-way until they are told to go on.

use super::http::{Connection, Response};
use super::{Noise, TestServer, date, eventually};

/// More than the server collects before it starts to spool.
const FIRST_BYTES: usize = 600_000;

/// Slow uploads, each of which holds a slot.
pub struct SlowUploads {
    connections: Vec<Connection>,
    content: Vec<u8>,
}

impl SlowUploads {
    /// Starts `count` uploads to `slow0`, `slow1`... and waits until all are being received, which
    /// the spool files tell. The server needs a `MAX_INMEMORY_SIZE` below 100,000 for that.
    pub fn begin(server: &TestServer, count: usize) -> Self {
        let content = Noise::bytes(77, FIRST_BYTES + 1000);
        let connections = (0..count).map(|number| {
            let target = format!("/files/slow{number}?last_modified={}", date(0));
            let mut connection = server.connect();
            connection.write(&server.request("PUT", &target).body(content.clone()).head());
            connection.write(&content[..FIRST_BYTES]);
            connection
        });
        let connections = connections.collect();
        eventually("all slow uploads are in", || (server.temporary_files().len() == count).then_some(()));
        Self { connections, content }
    }

    /// What is being sent.
    pub fn content(&self) -> &[u8] {
        &self.content
    }

    /// Sends the rest; the answers.
    pub fn finish(&mut self) -> Vec<Response> {
        for connection in &mut self.connections {
            connection.write(&self.content[FIRST_BYTES..]);
        }
        self.connections.iter_mut().map(|connection| connection.response(false).unwrap()).collect()
    }

    /// Asserts that no upload gets an answer any more.
    pub fn assert_cut(&mut self) {
        for connection in &mut self.connections {
            assert!(connection.response(false).is_err());
        }
    }
}
