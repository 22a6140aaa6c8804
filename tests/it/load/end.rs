//! What must hold once the faults are over and every client has what it wanted.

use std::collections::BTreeMap;
use std::time::Instant;

use super::Load;
use super::answer::listed_paths;
use super::paths::{PATHS, escaped, name};
use super::peer::Peer;
use super::stamp::{self, Stamp};
use crate::support::Request;

/// Reads and lists everything through every server: all must show the same, and nothing that the history rules out.
/// Returns what is there; tells what is wrong.
pub fn read_everything(load: &Load, wrong: &mut Vec<String>) -> BTreeMap<usize, Stamp> {
    let read_one = |peer: &Peer, path: usize| {
        let began = Instant::now();
        let target = format!("/ft/files/{}", escaped(&name(path)));
        let answer = Request::new(peer.address(), "GET", &target).send();
        let seen = if answer.complete { load.shown_by(path, &answer, false) } else { Err("it is cut off".into()) };
        let seen = seen.map_err(|why| format!("{} of {}: {why}: {}", name(path), peer.name, answer.status))?;
        load.history.saw(path, seen, began, format!("GET to {} at the end", peer.name));
        Ok(seen)
    };
    let mut seen_by_all: Vec<Vec<Option<Stamp>>> = Vec::new();
    std::thread::scope(|scope| {
        let read_all = |peer| scope.spawn(move || (0..PATHS).map(|path| read_one(peer, path)).collect::<Vec<_>>());
        let readers: Vec<_> = load.peers.iter().map(|peer| read_all(peer)).collect();
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
    let present: BTreeMap<_, _> =
        seen_by_all[0].iter().enumerate().filter_map(|(path, seen)| Some((path, (*seen)?))).collect();
    for peer in &load.peers {
        let target = format!("/ft/list/?last_modified={}", stamp::query(stamp::LAST));
        match listed_paths(&Request::new(peer.address(), "GET", &target).send()) {
            Ok(listed) if listed.iter().eq(present.keys()) => {}
            Ok(listed) => wrong.push(format!("{} lists {listed:?} and not {:?}", peer.name, present.keys())),
            Err(why) => wrong.push(format!("{}: {why}", peer.name)),
        }
    }
    wrong.extend(load.history.violations(name));
    present
}
