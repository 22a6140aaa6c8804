//! What must hold once the faults are over and every client has what it wanted.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use super::answer::listed_paths;
use super::books;
use super::fixture::Cluster;
use super::load::Load;
use super::paths::{PATHS, escaped, name};
use super::stamp::{self, Stamp};
use crate::support::eventually;

/// Asserts that nothing was lost, nothing hung, and the books are right.
pub fn verify(cluster: &mut Cluster, load: &Load) {
    let (writes, acknowledged) = load.history.counts();
    let (refusals, untold) = (load.refusals.load(Relaxed), load.untold.load(Relaxed));
    println!("{writes} writes, {acknowledged} acknowledged, {refusals} refusals, {untold} tries that told nothing");
    restart_all(cluster);
    let mut wrong = Vec::new();
    let present = read_everything(cluster, load, &mut wrong);
    for member in &cluster.members {
        let target = format!("/list/?last_modified={}", stamp::query(stamp::LAST));
        match listed_paths(&member.server.request("GET", &target).send()) {
            Ok(listed) if listed.iter().eq(present.keys()) => {}
            Ok(listed) => wrong.push(format!("{} lists {listed:?} and not {:?}", member.peer.name, present.keys())),
            Err(why) => wrong.push(format!("{}: {why}", member.peer.name)),
        }
        if member.server.log().contains("panic") {
            wrong.push(format!("{} panicked", member.peer.name));
        }
    }
    if cluster.postgres.is_some() {
        wrong.extend(books::differences(cluster, load, &present));
    }
    wrong.extend(load.history.violations(name));
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

/// Reads every path through every server: all must show the same, and nothing that the history rules out.
fn read_everything(cluster: &Cluster, load: &Load, wrong: &mut Vec<String>) -> BTreeMap<usize, Stamp> {
    let mut present = BTreeMap::new();
    for path in 0..PATHS {
        let target = format!("/files/{}", escaped(&name(path)));
        let mut all_seen = Vec::new();
        for member in &cluster.members {
            for method in ["GET", "HEAD"] {
                let began = Instant::now();
                let answer = member.server.request(method, &target).send();
                match load.shown_by(path, &answer, method == "HEAD") {
                    Ok(seen) => {
                        load.history.saw(path, seen, began, format!("{method} to {} at the end", member.peer.name));
                        all_seen.push(seen);
                    }
                    Err(why) => {
                        wrong.push(format!("{method} {} of {}: {why}: {answer:?}", name(path), member.peer.name))
                    }
                }
            }
        }
        if all_seen.windows(2).any(|two| two[0] != two[1]) {
            wrong.push(format!("{}: the servers do not agree: {all_seen:?}", name(path)));
        }
        if let Some(Some(seen)) = all_seen.first() {
            present.insert(path, *seen);
        }
    }
    present
}
