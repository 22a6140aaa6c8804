//! What must hold once the faults are over and every client has what it wanted.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use super::answer::listed_paths;
use super::books::{self, Name};
use super::fixture::Cluster;
use super::load::Load;
use super::member::Member;
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
        let names = present.iter().map(|(path, version)| {
            let content = load.contents.get(load.history.content_of(*path, *version).unwrap());
            let (sha256, size) = (content.sha256.clone(), content.plain.len());
            Name { name: name(*path), version: *version, sha256, size }
        });
        wrong.extend(books::differences(cluster, names));
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
    let read_one = |member: &Member, path: usize| {
        let began = Instant::now();
        let answer = member.server.request("GET", &format!("/files/{}", escaped(&name(path)))).send();
        let seen = load.shown_by(path, &answer, false);
        let seen = seen.map_err(|why| format!("{} of {}: {why}: {answer:?}", name(path), member.peer.name))?;
        load.history.saw(path, seen, began, format!("GET to {} at the end", member.peer.name));
        Ok(seen)
    };
    let mut seen_by_all: Vec<Vec<Option<Stamp>>> = Vec::new();
    std::thread::scope(|scope| {
        let read_all = |member| scope.spawn(move || (0..PATHS).map(|path| read_one(member, path)).collect::<Vec<_>>());
        let readers: Vec<_> = cluster.members.iter().map(read_all).collect();
        for reader in readers {
            let seen =
                reader.join().unwrap().into_iter().map(|seen| seen.map_err(|why| wrong.push(why)).ok().flatten());
            seen_by_all.push(seen.collect());
        }
    });
    for path in 0..PATHS {
        let seen: Vec<Option<Stamp>> = seen_by_all.iter().map(|all| all[path]).collect();
        if seen.windows(2).any(|two| two[0] != two[1]) {
            wrong.push(format!("{}: the servers do not agree: {seen:?}", name(path)));
        }
    }
    seen_by_all[0].iter().enumerate().filter_map(|(path, seen)| Some((path, (*seen)?))).collect()
}
