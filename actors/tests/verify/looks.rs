//! What a look finds.

use std::sync::Arc;

use s3dedup_actors::model::{Digest, Kind};
use s3dedup_actors::testkit::faulty::{Fault, Faults, FaultyBlobs};
use s3dedup_actors::verify::{Progress, Tools, VerifyState, verify};

use crate::world::{World, examiner, settings, words};

const BOTH: [&str; 2] = ["sqlite", "postgres"];
const TOTAL: (&str, Digest) = ("wrong-total", Digest::from_bytes([0; 32]));

#[tokio::test]
async fn a_whole_store_is_whole() {
    for kind in BOTH {
        let world = World::new(kind).await;
        for deep in [false, true] {
            let report = world.verify(deep).await;
            assert!(report.is_whole(), "{kind} {:?}", report.damages);
            assert_eq!((report.contents, report.names, report.orphans.objects), (21, 30, 0));
            let json = report.to_json();
            assert_eq!((&json["status"], &json["deep"]), (&"whole".into(), &deep.into()));
        }
        world.assert_all_readable().await;
    }
}

#[tokio::test]
async fn an_empty_store_is_whole() {
    for kind in BOTH {
        assert!(World::empty(kind).await.verify(true).await.is_whole());
    }
}

#[tokio::test]
async fn each_kind_of_damaged_object_is_found_and_named() {
    for kind in BOTH {
        let world = World::new(kind).await;
        let [missing, short, flipped, other] = ["a/3", "a/5", "a/7", "a/9"].map(|name| world.content(name));
        std::fs::remove_file(world.object(missing)).unwrap();
        let bytes = std::fs::read(world.object(short)).unwrap();
        std::fs::write(world.object(short), &bytes[..bytes.len() - 1]).unwrap();
        let mut bytes = std::fs::read(world.object(flipped)).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(world.object(flipped), &bytes).unwrap();
        world.sql("UPDATE @representations SET stored_hash = {x} WHERE digest = {x}", other);
        let mut want = vec![("missing-object", missing), ("wrong-size", short)];
        assert_eq!(words(&world.verify(false).await), want, "{kind}");
        want.extend([("wrong-content", flipped), ("wrong-description", other)]);
        want.sort();
        let report = world.verify(true).await;
        assert_eq!(words(&report), want, "{kind}");
        let damage = report.damages.iter().find(|damage| damage.digest == missing).unwrap();
        assert_eq!(damage.names.iter().map(|name| name.name()).collect::<Vec<_>>(), ["a/3", "b/3"]);
        let json = damage.to_json();
        assert_eq!((&json["kind"], &json["names"][0]), (&"missing-object".into(), &"a/3".into()));
        assert_eq!(json["digest"], missing.to_string());
    }
}

#[tokio::test]
async fn each_kind_of_wrong_row_is_found() {
    for kind in BOTH {
        let world = World::new(kind).await;
        let [lost, bare, stray, count] = ["a/3", "a/15", "a/17", "a/2"].map(|name| world.content(name));
        world.sql("DELETE FROM @contents WHERE digest = {x}; DELETE FROM @representations WHERE digest = {x}", lost);
        world.sql("DELETE FROM @representations WHERE digest = {x}", bare);
        world.sql("DELETE FROM @entries WHERE digest = {x}; DELETE FROM @contents WHERE digest = {x}", stray);
        let mut want =
            vec![TOTAL, ("unknown-content", lost), ("no-representation", bare), ("stray-representation", stray)];
        if world.is_sqlite() {
            world.sql("UPDATE @contents SET refs = 7, unused_since = NULL WHERE digest = {x}", count);
            want.push(("wrong-count", count));
        } else {
            world.sql("DELETE FROM @entries WHERE digest = {x}", count);
            want.push(("not-marked-unused", count));
        }
        want.sort();
        let report = world.verify(false).await;
        assert_eq!(words(&report), want, "{kind}");
        // The lost one's object is one that nothing knows of; so is the bare one's.
        assert_eq!(report.orphans.objects, 2);
    }
}

#[tokio::test]
async fn objects_that_nothing_knows_of_are_no_damage() {
    let world = World::new("sqlite").await;
    let body = crate::world::body(b"an upload of another life");
    world.store(crate::world::object(body.digest), &body).await;
    let report = world.verify(true).await;
    assert!(report.is_whole());
    assert_eq!((report.orphans.objects, report.orphans.bytes), (1, body.bytes.len()));
    assert_eq!(report.orphans.first, [crate::world::object(body.digest)]);
}

#[tokio::test]
async fn an_outage_is_an_error_and_never_damage() {
    for deep in [false, true] {
        let mut world = World::new("sqlite").await;
        std::fs::remove_file(world.object(world.content("a/3"))).unwrap();
        let faults = Faults::default();
        world.stores.contents =
            Arc::new(FaultyBlobs { inner: Arc::clone(&world.stores.contents), faults: faults.clone() });
        faults.set(Fault::Down);
        assert_eq!(world.try_verify(deep).await.unwrap_err().kind(), Kind::Unavailable);
        faults.set(Fault::None);
        assert_eq!(world.verify(deep).await.damages.len(), 1);
    }
}

#[tokio::test]
async fn an_interrupted_run_goes_on_and_remembers_what_it_found() {
    let world = World::new("sqlite").await;
    let mut contents = world.stores.metadata.survey(Vec::new(), 100).await.unwrap().contents;
    let early = contents.remove(2).digest;
    let late = contents.pop().unwrap().digest;
    std::fs::remove_file(world.object(early)).unwrap();
    std::fs::remove_file(world.object(late)).unwrap();
    let (examiner, progress) = (examiner(), Progress::default());
    // As far as the tenth content, with the damage that was seen.
    let (after, damaged) = (Some(contents[8].digest), vec![early]);
    let state = VerifyState { after, contents: 10, stored_bytes: 1, damaged, unreadable: Vec::new() };
    let run = async |state: VerifyState| {
        let mut save = |_: &VerifyState| Ok(());
        let tools = Tools { examiner: &examiner, progress: &progress, save: &mut save };
        verify(&world.stores, &settings(true), state, tools).await.unwrap()
    };
    let report = run(state.clone()).await;
    assert!(report.resumed);
    assert_eq!(report.contents, 21);
    let mut want = vec![("missing-object", early), ("missing-object", late)];
    want.sort();
    assert_eq!(words(&report), want);
    // What was found then and is whole now is no damage.
    let body = crate::world::body(
        world.names.values().find(|content| crate::world::digest(content) == early).unwrap_or(&Vec::new()),
    );
    if body.digest == early {
        world.store(crate::world::object(early), &body).await;
        assert_eq!(words(&run(state).await), [("missing-object", late)]);
    }
}
