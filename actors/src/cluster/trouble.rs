//! What can be wrong between instances, and saying so without drowning the log.

use std::time::{Duration, Instant};

use crate::store::instances::{Instance, KnownInstance, Peers};

/// A trouble that lasts is told again after this long.
const TELL_EVERY: Duration = Duration::from_secs(60);
/// The word for locks that the others do not see.
const LOCKS_IN_MEMORY: &str = "memory";

/// What is wrong now: one line for each kind of trouble, in a fixed order.
pub(super) fn find(me: &Instance, peers: &Peers) -> [Option<String>; 3] {
    [foreign_contents(me, peers), lonely_locks(me, peers), taken_name(me, peers)]
}

/// Others have their contents elsewhere.
pub(super) fn foreign_contents(me: &Instance, peers: &Peers) -> Option<String> {
    let other = peers.live.iter().find(|other| other.instance.contents != me.contents)?;
    Some(format!(
        "instance {} at {} shares the database but keeps its contents in {}, this one in {}: what one stores the \
         other would not find; give all instances the same bucket, or stop one of them",
        other.instance.id, other.instance.address, other.instance.contents, me.contents
    ))
}

/// Several instances, and not all of them share their locks.
fn lonely_locks(me: &Instance, peers: &Peers) -> Option<String> {
    let lonely = |instance: &Instance| instance.locks == LOCKS_IN_MEMORY;
    let where_to = if lonely(me) {
        "here".to_owned()
    } else {
        let other = peers.live.iter().find(|other| lonely(&other.instance))?;
        format!("at instance {}", other.instance.id)
    };
    let others = match peers.live.len() {
        0 => return None,
        1 => "1 other instance serves".to_owned(),
        count => format!("{count} other instances serve"),
    };
    Some(format!(
        "{others} the same database, but locks are in memory {where_to}: set LOCKS_TYPE=postgres on all; uploads of \
         the same content are done twice until then"
    ))
}

/// Two processes under one name.
fn taken_name(me: &Instance, peers: &Peers) -> Option<String> {
    peers.is_name_taken.then(|| {
        format!(
            "another process serves under this instance's name {}: set INSTANCE_ID to another one here or there{}",
            me.id,
            if me.locks == LOCKS_IN_MEMORY { ", and LOCKS_TYPE=postgres" } else { "" }
        )
    })
}

/// When each kind of trouble was told.
#[derive(Default)]
pub(super) struct Told([Option<(Instant, String)>; 3]);

impl Told {
    /// The lines to log now: errors, and what is over.
    pub(super) fn changes(&mut self, now: Instant, troubles: [Option<String>; 3]) -> (Vec<String>, Vec<String>) {
        let (mut errors, mut over) = (Vec::new(), Vec::new());
        for (told, trouble) in self.0.iter_mut().zip(troubles) {
            match (&told, trouble) {
                (Some((at, before)), Some(trouble)) if now.duration_since(*at) < TELL_EVERY && *before == trouble => {}
                (_, Some(trouble)) => {
                    errors.push(trouble.clone());
                    *told = Some((now, trouble));
                }
                (Some((_, before)), None) => {
                    over.push(before.clone());
                    *told = None;
                }
                (None, None) => {}
            }
        }
        (errors, over)
    }
}

/// The others in a few words.
pub(super) fn names(live: &[KnownInstance]) -> String {
    let names: Vec<_> = live.iter().map(|other| other.instance.id.as_str()).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(",") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Stamp;

    fn instance(id: &str, locks: &str, contents: &str) -> Instance {
        let [id, locks, contents] = [id, locks, contents].map(str::to_owned);
        Instance { address: format!("{id}:80"), version: "1".into(), id, locks, contents }
    }

    fn peers(others: &[Instance]) -> Peers {
        let known = |instance: &Instance| KnownInstance {
            instance: instance.clone(),
            started_at: Stamp::from_seconds(0),
            silent_for: Duration::ZERO,
        };
        Peers { live: others.iter().map(known).collect(), is_name_taken: false }
    }

    #[test]
    fn alone_or_alike_nothing_is_wrong() {
        let me = instance("a", "memory", "s3 bucket x");
        assert_eq!(find(&me, &peers(&[])), [None, None, None]);
        let me = instance("a", "postgres", "s3 bucket x");
        assert_eq!(find(&me, &peers(&[instance("b", "postgres", "s3 bucket x")])), [None, None, None]);
    }

    #[test]
    fn memory_locks_on_either_side_are_told() {
        let (lonely, sharing) = (instance("a", "memory", "x"), instance("b", "postgres", "x"));
        for (me, other, wanted) in [(&lonely, &sharing, "in memory here"), (&sharing, &lonely, "at instance a")] {
            let [_, line, _] = find(me, &peers(std::slice::from_ref(other)));
            let line = line.unwrap();
            assert!(line.contains(wanted) && line.contains("LOCKS_TYPE=postgres"), "{line}");
        }
    }

    #[test]
    fn other_contents_and_a_taken_name_are_told() {
        let me = instance("a", "postgres", "s3 bucket x");
        let found = find(&me, &Peers { is_name_taken: true, ..peers(&[instance("b", "postgres", "s3 bucket y")]) });
        assert!(found[0].as_ref().unwrap().contains("s3 bucket y"));
        assert!(found[2].as_ref().unwrap().contains("INSTANCE_ID"));
    }

    #[test]
    fn what_lasts_is_told_once_a_minute_and_its_end_once() {
        let (mut told, start) = (Told::default(), Instant::now());
        let wrong = || [None, Some("wrong".to_owned()), None];
        let counts = |(errors, over): (Vec<_>, Vec<_>)| (errors.len(), over.len());
        assert_eq!(counts(told.changes(start, wrong())), (1, 0));
        assert_eq!(counts(told.changes(start + Duration::from_secs(5), wrong())), (0, 0));
        let worse = [None, Some("worse".to_owned()), None];
        assert_eq!(counts(told.changes(start + Duration::from_secs(10), worse)), (1, 0));
        assert_eq!(counts(told.changes(start + Duration::from_secs(15), wrong())), (1, 0));
        assert_eq!(counts(told.changes(start + Duration::from_secs(75), wrong())), (1, 0));
        assert_eq!(counts(told.changes(start + Duration::from_secs(80), Default::default())), (0, 1));
        assert_eq!(counts(told.changes(start + Duration::from_secs(85), Default::default())), (0, 0));
    }
}
