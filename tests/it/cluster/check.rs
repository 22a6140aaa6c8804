//! What must hold once the faults are over and every client has what it wanted.

use std::sync::atomic::Ordering::Relaxed;

use super::books::{self, Name};
use super::fixture::Cluster;
use crate::load::Load;
use crate::load::end::read_everything;
use crate::load::paths::name;
use crate::support::eventually;

/// Asserts that nothing was lost, nothing hung, and the books are right.
pub fn verify(cluster: &mut Cluster, load: &Load) {
    let (writes, acknowledged) = load.history.counts();
    let (refusals, untold) = (load.refusals.load(Relaxed), load.untold.load(Relaxed));
    println!("{writes} writes, {acknowledged} acknowledged, {refusals} refusals, {untold} tries that told nothing");
    restart_all(cluster);
    let mut wrong = Vec::new();
    let present = read_everything(load, &mut wrong);
    for member in cluster.members.iter().filter(|member| member.server.log().contains("panic")) {
        wrong.push(format!("{} panicked", member.peer.name));
    }
    if cluster.postgres.is_some() {
        let names = present.iter().map(|(path, version)| {
            let content = load.contents.get(load.history.content_of(*path, *version).unwrap());
            let (sha256, size) = (content.sha256.clone(), content.plain.len());
            Name { name: name(*path), version: *version, sha256, size }
        });
        wrong.extend(books::differences(cluster, names));
    }
    assert!(wrong.is_empty(), "{} things are wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(acknowledged > 100, "the clients hardly did anything");
}

/// Afterwards no server does anything for a client that has given up, and none has anything in memory.
fn restart_all(cluster: &mut Cluster) {
    if let Some(postgres) = &cluster.postgres {
        let locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'";
        eventually("no content is locked", || (postgres.sql(locks) == "0").then_some(()));
    }
    for member in &mut cluster.members {
        member.server.assert_no_temporary_files();
        // Asserts a clean end.
        member.server.stop();
    }
    for member in &mut cluster.members {
        member.server.start_again();
        member.peer.serves_at(member.server.address());
    }
}
