//! Repairs leave whole stores, and no object is ever removed.

use async_trait::async_trait;
use s3dedup_actors::backup::{export, import};
use s3dedup_actors::model::{BlobKey, Digest, EntryKey, KeyLayout, Kind, Result, Stamp};
use s3dedup_actors::repair::{
    ADOPTED_MAX, Action, Applied, Fallback, Plan, Rebuilt, Repairer, Source, apply, plan, rebuild,
};
use s3dedup_actors::store::blob::Spooled;
use s3dedup_actors::store::meta::{Origin, PlanPut, PutPlan};
use s3dedup_actors::testkit::noise;
use s3dedup_actors::verify::Progress;

use crate::world::{World, body, digest, examiner, key, object};

const BOTH: [&str; 2] = ["sqlite", "postgres"];

/// Has what it is given.
struct Shelf(Vec<(String, Vec<u8>)>);

#[async_trait(?Send)]
impl Fallback for Shelf {
    async fn sources(&self, _: Digest, names: &[EntryKey]) -> Result<Vec<Source>> {
        Ok(names.iter().cloned().map(Source::Name).collect())
    }

    async fn fetch(&self, source: &Source) -> Result<Option<Spooled>> {
        let Source::Name(name) = source else { return Ok(None) };
        let found = self.0.iter().find(|(known, _)| known == name.name());
        Ok(found.map(|(_, content)| body(content)))
    }
}

pub async fn with<T>(world: &World, fallback: Option<&dyn Fallback>, work: impl AsyncFnOnce(&Repairer<'_>) -> T) -> T {
    let (examiner, progress) = (examiner(), Progress::default());
    let (instance, layout) = ("test".to_owned(), KeyLayout::new(2));
    let stores = &world.stores;
    let fallbacks: Vec<&dyn Fallback> = fallback.into_iter().collect();
    let fallbacks = fallbacks.as_slice();
    let (concurrency, adopted_max, examiner, progress) = (4, ADOPTED_MAX, &examiner, &progress);
    let with = Repairer { stores, examiner, progress, fallbacks, instance, layout, concurrency, adopted_max };
    work(&with).await
}

/// Plans, applies all of it, and checks that nothing was removed.
pub async fn repair(world: &World, fallback: Option<&dyn Fallback>) -> Plan {
    let before = world.files();
    let plan = with(world, fallback, async |with| {
        let plan = plan(with, true).await.unwrap();
        assert_eq!(world.files(), before, "a plan changes nothing");
        let applied = apply(with, &plan.actions).await.unwrap();
        assert!(applied.iter().all(|applied| *applied == Applied::Done), "{applied:?}");
        plan
    });
    let plan = plan.await;
    let after = world.files();
    for (file, size) in &before {
        assert_eq!(after.get(file), Some(size), "{file:?} was changed");
    }
    plan
}

pub fn flip(world: &World, digest: Digest) {
    let file = world.object(digest);
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
}

#[tokio::test]
async fn a_whole_store_needs_nothing() {
    for kind in BOTH {
        let plan = repair(&World::new(kind).await, None).await;
        assert!(plan.actions.is_empty() && plan.lost.is_empty() && plan.found.is_whole());
    }
}

#[tokio::test]
async fn wrong_rows_are_made_right() {
    for kind in BOTH {
        let world = World::new(kind).await;
        let [lost, bare, stray, count, other] = ["a/3", "a/15", "a/17", "a/2", "a/9"].map(|name| world.content(name));
        world.sql("DELETE FROM @contents WHERE digest = {x}; DELETE FROM @representations WHERE digest = {x}", lost);
        world.sql("DELETE FROM @representations WHERE digest = {x}", bare);
        world.sql("DELETE FROM @contents WHERE digest = {x}", stray);
        world.sql("UPDATE @representations SET stored_hash = {x}, stored_size = 5 WHERE digest = {x}", other);
        if world.is_sqlite() {
            world.sql("UPDATE @contents SET refs = 7, unused_since = NULL WHERE digest = {x}", count);
            world.sql("UPDATE @state SET entries = 1000, logical_bytes = -4", count);
        } else {
            world.sql("UPDATE @totals SET entries = 1000, logical_bytes = -4 WHERE shard = 7", count);
        }
        let plan = repair(&world, None).await;
        assert!(plan.lost.is_empty(), "{kind} {:?}", plan.lost);
        let report = world.verify(true).await;
        assert!(report.is_whole(), "{kind} {:?}", report.damages);
        world.assert_all_readable().await;
        assert!(repair(&world, None).await.actions.is_empty());
    }
}

#[tokio::test]
async fn a_repair_that_is_cut_off_leaves_nothing_that_a_cleaner_would_take() {
    for kind in BOTH {
        let world = World::new(kind).await;
        let lost = world.content("a/3");
        world.sql("DELETE FROM @contents WHERE digest = {x}; DELETE FROM @representations WHERE digest = {x}", lost);
        let switched = with(&world, None, async |with| {
            let plan = plan(with, true).await.unwrap();
            apply(with, &plan.actions[..1]).await.unwrap()
        });
        assert_eq!(switched.await, [Applied::Done]);
        let metadata = &world.stores.metadata;
        let far = Stamp::from_seconds(i64::MAX / 2);
        assert!(metadata.condemn(vec![lost], far).await.unwrap().is_empty(), "{kind}: a name holds it");
        world.assert_all_readable().await;
        repair(&world, None).await;
        assert!(world.verify(true).await.is_whole(), "{kind}");
    }
}

#[tokio::test]
async fn an_object_that_nothing_knows_of_is_adopted_when_it_is_what_it_says() {
    for kind in BOTH {
        let world = World::new(kind).await;
        let content = b"an upload of another life".to_vec();
        world.store(object(digest(&content)), &body(&content)).await;
        let wrong = object(digest(b"something else"));
        world.store(wrong, &body(&content)).await;
        repair(&world, None).await;
        let report = world.verify(true).await;
        assert!(report.is_whole());
        assert_eq!(report.orphans.first, [wrong], "{kind}");
        assert_eq!(report.contents, 22);
    }
}

#[tokio::test]
async fn what_a_plan_has_no_room_for_is_told_and_taken_up_by_the_next() {
    for kind in BOTH {
        let world = World::new(kind).await;
        for number in 0..10_u64 {
            let content = noise(number + 500, 300);
            world.store(object(digest(&content)), &body(&content)).await;
        }
        let wrong = object(digest(b"something else"));
        world.store(wrong, &body(b"another thing")).await;
        // An object of a content that is known is not for adopting, however much room there is.
        let known = BlobKey { generation: 5, ..object(world.content("a/7")) };
        world.store(known, &body(&world.names["a/7"])).await;
        let (mut rounds, mut adopted) = (0, 0);
        loop {
            let plan = with(&world, None, async |with| {
                let with = Repairer { adopted_max: 4, instance: "test".to_owned(), ..*with };
                let plan = plan(&with, true).await.unwrap();
                apply(&with, &plan.actions).await.unwrap();
                plan
            });
            let plan = plan.await;
            let here = plan.actions.iter().filter(|action| matches!(action, Action::Adopt { .. })).count();
            assert!(here <= 4, "{kind}");
            adopted += here;
            rounds += 1;
            assert_eq!(plan.is_partial(), plan.left_off > 0);
            assert!(plan.left_off as usize >= 10 - adopted, "{kind} {} {adopted}", plan.left_off);
            if plan.left_off == 0 {
                break;
            }
        }
        assert_eq!((rounds, adopted), (3, 10), "{kind}");
        let report = world.verify(true).await;
        assert!(report.is_whole());
        assert_eq!(report.orphans.objects, 2, "{kind}");
    }
}

/// Rows of a content that cannot be read.
const UNREADABLE: [&str; 5] = [
    "UPDATE @representations SET encoding = 'lzma' WHERE digest = {x}",
    "UPDATE @representations SET stored_hash = substr(stored_hash, 3) WHERE digest = {x}",
    "UPDATE @representations SET stored_size = -5 WHERE digest = {x}",
    "UPDATE @representations SET generation = -7 WHERE digest = {x}",
    "UPDATE @contents SET logical_size = -5 WHERE digest = {x}",
];

#[tokio::test]
async fn a_row_that_cannot_be_read_is_made_anew_from_a_whole_object() {
    for kind in BOTH {
        let mut world = World::new(kind).await;
        let mut lost = Vec::new();
        for (number, spoil) in UNREADABLE.iter().enumerate() {
            // The object of another upload, and no other; the content's own one; none at all.
            for (place, has_own, has_other) in [(1, false, true), (2, true, false), (3, false, false)] {
                let name = format!("c/{number}/{place}");
                let content = noise(1000 + 10 * number as u64 + place, 700);
                world.put(&name, &content).await;
                let own = object(digest(&content));
                if has_other {
                    world.store(BlobKey { generation: 7, ..own }, &body(&content)).await;
                }
                if !has_own {
                    std::fs::remove_file(world.object(own.digest)).unwrap();
                }
                if !has_own && !has_other {
                    lost.push((name, content));
                }
                world.unchecked_sql(spoil, own.digest);
            }
        }
        let first = repair(&world, None).await;
        assert!(first.lost.len() >= lost.len(), "{kind} {:?}", first.lost);
        for (name, _) in &lost {
            assert!(world.get(name).await.is_err(), "{kind} {name}");
        }
        let second = repair(&world, None).await;
        let told: Vec<_> = second.lost.iter().map(|damage| damage.row.clone().unwrap().place).collect();
        let contents = told.iter().filter(|place| place.starts_with("contents ")).count();
        assert_eq!(contents, lost.len(), "{kind} {told:?}");
        // What no object is left of comes back with its next upload.
        for (name, content) in &lost {
            world.put(name, content).await;
        }
        world.assert_all_readable().await;
        repair(&world, None).await;
        let report = world.verify(true).await;
        assert!(report.is_whole(), "{kind} {:?}", report.damages);
    }
}

#[tokio::test]
async fn a_damaged_content_is_switched_to_another_whole_object() {
    for kind in BOTH {
        let world = World::new(kind).await;
        let [missing, flipped] = ["a/3", "a/7"].map(|name| world.content(name));
        for (number, damaged) in [missing, flipped].into_iter().enumerate() {
            let spare = BlobKey { generation: 3 + number as u64, ..object(damaged) };
            let content = world.names.values().find(|content| digest(content) == damaged).unwrap();
            world.store(spare, &body(content)).await;
        }
        // A copy that is no better.
        let bad = BlobKey { generation: 1, ..object(flipped) };
        world.store(bad, &body(b"no better")).await;
        std::fs::remove_file(world.object(missing)).unwrap();
        flip(&world, flipped);
        let plan = repair(&world, None).await;
        assert!(plan.lost.is_empty());
        assert!(world.verify(true).await.is_whole(), "{kind}");
        world.assert_all_readable().await;
        let kept = world.stores.metadata.list_quarantined(None, 10).await.unwrap();
        assert_eq!(kept.len(), 2);
        assert_eq!(world.stores.metadata.are_known(vec![object(flipped)]).await.unwrap(), [true]);
    }
}

#[tokio::test]
async fn a_damaged_content_is_fetched_from_the_fallback() {
    for kind in BOTH {
        let world = World::new(kind).await;
        let [missing, flipped, hopeless] = ["a/3", "a/7", "a/11"].map(|name| world.content(name));
        std::fs::remove_file(world.object(missing)).unwrap();
        flip(&world, flipped);
        flip(&world, hopeless);
        let shelf = Shelf(vec![
            ("a/3".into(), b"another version".to_vec()),
            ("b/3".into(), world.names["b/3"].clone()),
            ("a/7".into(), world.names["a/7"].clone()),
            ("a/11".into(), b"long overwritten".to_vec()),
        ]);
        let plan = repair(&world, Some(&shelf)).await;
        assert_eq!(plan.lost.iter().map(|damage| damage.digest).collect::<Vec<_>>(), [hopeless]);
        let report = world.verify(true).await;
        assert_eq!(report.damages.iter().map(|damage| damage.digest).collect::<Vec<_>>(), [hopeless], "{kind}");
        for name in ["a/3", "b/3", "a/7"] {
            assert!(world.get(name).await.unwrap().as_ref() == Some(&world.names[name]));
        }
        // The hopeless one is kept, even when nobody needs it any more.
        world.stores.metadata.delete(key("a/11"), Stamp::from_seconds(99)).await.unwrap();
        let far = Stamp::from_seconds(1 << 40);
        assert!(world.stores.metadata.condemn(vec![hopeless], far).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_lost_database_is_rebuilt_and_its_names_imported() {
    for kind in BOTH {
        for deep in [false, true] {
            let mut world = World::new(kind).await;
            // A description was not on the disk yet, an object is broken, a content has two.
            std::fs::remove_file(world.object(world.content("a/4")).with_extension("json")).unwrap();
            let broken = body(b"broken");
            world.store(object(digest(b"not this")), &broken).await;
            let spare = BlobKey { generation: 6, ..object(world.content("a/5")) };
            world.store(spare, &body(&world.names["a/5"])).await;
            let mut lines = Vec::new();
            assert_eq!(export(world.stores.metadata.as_ref(), &mut lines).await.unwrap(), 30);
            let files = world.files();
            world.lose_database().await;
            for _ in 0..2 {
                let Rebuilt { objects, adopted, superfluous, refused, .. } =
                    with(&world, None, async |with| rebuild(with, deep).await.unwrap()).await;
                assert_eq!((objects, adopted + superfluous, refused), (23, 22, 1), "{kind}");
            }
            let imported = import(world.stores.metadata.as_ref(), &mut lines.as_slice()).await.unwrap();
            assert_eq!((imported.restored, imported.newer, imported.missing), (30, 0, 0));
            let report = world.verify(true).await;
            assert!(report.is_whole(), "{:?}", report.damages);
            assert_eq!((report.contents, report.names), (21, 30));
            world.assert_all_readable().await;
            assert_eq!(world.files(), files);
            // Names of objects are not used again.
            world.put("new", b"a new content").await;
            let contents = world.stores.metadata.survey(Vec::new(), 100).await.unwrap().contents;
            let new = contents.iter().find(|content| content.digest == digest(b"a new content")).unwrap();
            let s3dedup_actors::model::Recipe::Whole(blob) = &new.recipe else { unreachable!() };
            assert_eq!(blob.key.generation, 7);
            // Not a second time.
            let refused = with(&world, None, async |with| rebuild(with, deep).await.unwrap_err()).await;
            assert_eq!(refused.kind(), Kind::Invalid);
        }
    }
}

#[tokio::test]
async fn a_rebuild_tells_what_was_given_up_before_from_what_is_in_quarantine() {
    for kind in BOTH {
        let mut world = World::new(kind).await;
        let names: Vec<String> = world.names.keys().cloned().collect();
        for name in names {
            world.stores.metadata.delete(key(&name), Stamp::from_seconds(99)).await.unwrap();
        }
        let far = Stamp::from_seconds(1 << 40);
        let given_up = vec![world.content("a/1"), world.content("a/2")];
        assert_eq!(world.stores.metadata.condemn(given_up, far).await.unwrap().len(), 2);
        let rebuilt = with(&world, None, async |with| rebuild(with, false).await.unwrap()).await;
        assert_eq!((rebuilt.objects, rebuilt.adopted, rebuilt.given_up, rebuilt.refused), (21, 19, 2, 0), "{kind}");
        world.names.clear();
    }
}

#[tokio::test]
async fn a_rebuild_takes_the_whole_one_of_several_objects_of_a_content() {
    for kind in BOTH {
        let mut world = World::new(kind).await;
        let (damaged, healed) = (world.content("a/7"), BlobKey { generation: 3, ..object(world.content("a/7")) });
        world.store(healed, &body(&world.names["a/7"].clone())).await;
        // It still describes itself well.
        flip(&world, damaged);
        world.lose_database().await;
        let rebuilt = with(&world, None, async |with| rebuild(with, false).await.unwrap()).await;
        assert_eq!((rebuilt.objects, rebuilt.refused), (22, 0), "{kind}");
        assert!(world.verify(true).await.is_whole(), "{kind}");
        let plan = PlanPut {
            key: key("a/7"),
            stamp: Stamp::from_seconds(1),
            digest: damaged,
            logical_size: world.names["a/7"].len() as u64,
            intent: None,
            origin: Origin::Client,
        };
        assert_eq!(world.stores.metadata.plan_put(plan).await.unwrap(), PutPlan::Committed);
        assert_eq!(world.get("a/7").await.unwrap().as_ref(), Some(&world.names["a/7"]), "{kind}");
    }
}

#[tokio::test]
async fn an_import_keeps_newer_names_and_tells_what_is_missing() {
    let mut world = World::new("sqlite").await;
    let mut lines = Vec::new();
    export(world.stores.metadata.as_ref(), &mut lines).await.unwrap();
    world.lose_database().await;
    std::fs::remove_file(world.object(world.content("a/3"))).unwrap();
    with(&world, None, async |with| rebuild(with, false).await.unwrap()).await;
    world.put("a/1", b"newer").await;
    world.stores.metadata.delete(key("a/1"), Stamp::from_seconds(9)).await.unwrap();
    world.put("a/1", b"newer").await;
    let text = String::from_utf8(lines).unwrap();
    let older = text.replace("\"version\":5", "\"version\":4");
    let imported = import(world.stores.metadata.as_ref(), &mut older.as_bytes()).await.unwrap();
    assert_eq!((imported.restored, imported.newer, imported.missing), (27, 1, 2));
    let missing: Vec<_> = imported.first_missing.iter().map(|(key, _)| key.name()).collect();
    assert_eq!(missing, ["a/3", "b/3"]);
    assert_eq!(world.get("a/1").await.unwrap().unwrap(), b"newer");
    for cut in [text.len() - 12, text.len() / 2, 20, 0] {
        let refused = import(world.stores.metadata.as_ref(), &mut &text.as_bytes()[..cut]).await.unwrap_err();
        assert_eq!(refused.kind(), Kind::Invalid, "{cut}");
    }
}

#[tokio::test]
async fn an_object_in_quarantine_that_is_whole_after_all_comes_back_when_nothing_else_is_left() {
    for kind in BOTH {
        let mut world = World::new(kind).await;
        let (content, former) = (world.names["a/7"].clone(), object(world.content("a/7")));
        // One wrong look, and an upload that healed what was whole.
        world.stores.metadata.quarantine(former, "found damaged".into()).await.unwrap();
        world.put("a/7", &content).await;
        let newer = BlobKey { generation: 1, ..former };
        let healed = world.stores.metadata.list_quarantined(None, 9).await.unwrap();
        assert_eq!(healed.iter().map(|object| object.key).collect::<Vec<_>>(), [former], "{kind}");
        assert!(repair(&world, None).await.actions.is_empty(), "{kind}: the content has another one");
        world.stores.contents.delete(&[newer]).await.unwrap();
        let plan = repair(&world, None).await;
        assert!(plan.lost.is_empty(), "{kind} {:?}", plan.lost);
        world.assert_all_readable().await;
        assert!(world.verify(true).await.is_whole(), "{kind}");
        let kept = world.stores.metadata.list_quarantined(None, 9).await.unwrap();
        assert_eq!(kept.iter().map(|object| object.key).collect::<Vec<_>>(), [newer], "{kind}");
        // A damaged one does not.
        flip(&world, former.digest);
        world.stores.metadata.quarantine(former, "damaged".into()).await.unwrap();
        assert_eq!(repair(&world, None).await.lost.len(), 1, "{kind}");
    }
}

#[tokio::test]
async fn an_import_restores_names_of_damaged_contents_and_leaves_out_those_without_a_row() {
    for kind in BOTH {
        let mut world = World::new(kind).await;
        let mut lines = Vec::new();
        export(world.stores.metadata.as_ref(), &mut lines).await.unwrap();
        let damaged = ["a/3", "a/5", "b/7"].map(|name| world.content(name));
        world.stores.metadata.note_damaged(object(damaged[0])).await.unwrap();
        world.stores.metadata.quarantine(object(damaged[1]), "damaged".into()).await.unwrap();
        world.sql("UPDATE @representations SET encoding = 'rot13' WHERE digest = {x}", damaged[2]);
        let lost = world.content("a/2");
        world.sql("DELETE FROM @contents WHERE digest = {x}", lost);
        world.sql("DELETE FROM @entries", lost);
        let all: Vec<_> = world.stores.metadata.survey(Vec::new(), 100).await.unwrap().contents;
        world.stores.metadata.recount(all.iter().map(|content| content.digest).collect()).await.unwrap();
        world.stores.metadata.recount(damaged.to_vec()).await.unwrap();
        world.stores.metadata.recount_totals().await.unwrap();
        for _ in 0..2 {
            let imported = import(world.stores.metadata.as_ref(), &mut lines.as_slice()).await.unwrap();
            assert_eq!((imported.restored, imported.newer, imported.missing), (28, 0, 2), "{kind}");
            let missing: Vec<_> = imported.first_missing.iter().map(|(key, _)| key.name()).collect();
            assert_eq!(missing, ["a/2", "b/2"], "{kind}");
        }
        let names = world.stores.metadata.names(None, 100).await.unwrap();
        assert_eq!(names.len(), 28, "{kind}");
        // Uploads bring the contents back for all their names.
        for name in ["a/3", "a/5", "a/7", "a/2", "b/2"] {
            let content = world.names[name].clone();
            world.put(name, &content).await;
        }
        world.assert_all_readable().await;
        let found = world.verify(true).await;
        assert!(found.is_whole(), "{kind} {:?}", found.damages);
    }
}
