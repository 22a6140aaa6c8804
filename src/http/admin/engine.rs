//! The engine as JSON: its actors, and its migration.

use s3dedup_actors::{ActorState, ActorTree, BesideReport, Engine};
use serde_json::{Map, Value, json};

use crate::migrate;

/// How far the migration is, and what goes on between this store and an old server.
pub fn migration(engine: &Engine) -> Value {
    let shown = engine.migration().map(|now| migrate::to_json(&now));
    let mut shown = shown.unwrap_or_else(|| json!({ "active": false }));
    if let (Some(beside), Value::Object(shown)) = (engine.beside_report(), &mut shown) {
        shown.insert("old_server".to_owned(), old_server(&beside));
    }
    shown
}

fn old_server(beside: &BesideReport) -> Value {
    let waiting = &beside.waiting;
    json!({
        "breaker": beside.breaker,
        "reads_answered": beside.fallbacks,
        "files_fetched": beside.fetched,
        "files_being_fetched": beside.fetching,
        "files_broken": beside.broken,
        "second_writes": {
            "done": beside.told,
            "failures": beside.failed,
            "waiting": waiting.marks,
            "under_way": beside.telling,
            "oldest_seconds": waiting.oldest_seconds(),
            "last_error": waiting.last_error,
        },
    })
}

/// The tree of actors.
pub fn actors(tree: &ActorTree) -> Value {
    let child = |child: &s3dedup_actors::ActorReport| {
        json!({
            "name": child.name,
            "state": state(child.state),
            "restarts": child.restarts,
            "panics": child.panics,
            "last_fault": child.last_fault,
            "load": child.load.iter().map(|(name, count)| ((*name).to_owned(), json!(count))).collect::<Map<_, _>>(),
        })
    };
    let guardian = if tree.is_guarded { ActorState::Up } else { ActorState::Dead };
    json!({
        "well": tree.is_well(),
        "requests": { "inside": tree.requests, "slots": tree.request_slots, "spool_bytes": tree.spool_bytes },
        "database": tree.connections.map(|it| json!({ "open": it.open, "idle": it.idle })),
        "breakers": tree.breakers.iter().map(|(name, state)| json!({ "name": name, "state": state })).collect::<Vec<_>>(),
        "actors": {
            "name": "guardian",
            "state": state(guardian),
            "children": tree.children.iter().map(child).collect::<Vec<_>>(),
        },
    })
}

fn state(state: ActorState) -> &'static str {
    match state {
        ActorState::Up => "up",
        ActorState::Restarting => "restarting",
        ActorState::Stuck => "stuck",
        ActorState::Dead => "dead",
    }
}

#[cfg(test)]
mod tests {
    use s3dedup_actors::ActorReport;
    use s3dedup_actors::store::meta::Connections;

    use super::*;

    #[test]
    fn the_tree_as_it_is_shown() {
        let report = |name, state, load| ActorReport {
            name,
            state,
            restarts: 2,
            panics: 3,
            last_fault: Some("index \"1\"".into()),
            load,
        };
        let mut tree = ActorTree {
            is_guarded: true,
            children: vec![report("uploads", ActorState::Up, vec![("waiting", 4), ("busy", 1)])],
            requests: 5,
            request_slots: 512,
            spool_bytes: 7,
            connections: Some(Connections { open: 4, idle: 3, breaker: "closed" }),
            breakers: vec![("the content store", "open")],
        };
        let uploads = json!({ "name": "uploads", "state": "up", "restarts": 2, "panics": 3,
            "last_fault": "index \"1\"", "load": { "waiting": 4, "busy": 1 } });
        let shown = json!({
            "well": true,
            "requests": { "inside": 5, "slots": 512, "spool_bytes": 7 },
            "database": { "open": 4, "idle": 3 },
            "breakers": [{ "name": "the content store", "state": "open" }],
            "actors": { "name": "guardian", "state": "up", "children": [uploads] },
        });
        assert_eq!(actors(&tree), shown);
        for state in [ActorState::Restarting, ActorState::Stuck, ActorState::Dead] {
            tree.children[0].state = state;
            assert_eq!(actors(&tree)["well"], false);
        }
    }
}
