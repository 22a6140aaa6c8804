//! Rows that were lost: what clients can still do, and that nothing is deleted that a name holds.

use s3dedup_actors::model::{Digest, Recipe, Stamp};
use s3dedup_actors::store::meta::{
    DeleteOutcome, NewIntent, Origin, PlanPut, PutPlan, SetBlob, SetOutcome, UnusedPage,
};

use crate::world::{World, body, digest, key, object};

const BOTH: [&str; 2] = ["sqlite", "postgres"];
const FAR: Stamp = Stamp::from_seconds(1 << 40);

fn lose(world: &World, table: &str, content: Digest) {
    world.sql(&format!("DELETE FROM @{table} WHERE digest = {{x}}"), content);
}

async fn unused(world: &World) -> Vec<Digest> {
    let page = UnusedPage { unused_since: FAR, after: None, rows: 100, settle: false };
    let page = world.stores.metadata.list_unused(page).await.unwrap();
    page.iter().map(|unused| unused.digest).collect()
}

async fn plan(world: &World, name: &str, content: &[u8], with_intent: bool) -> PutPlan {
    let intent = with_intent.then(|| NewIntent { instance: "test".into(), layout: object(digest(content)).layout });
    let logical_size = content.len() as u64;
    let (stamp, origin) = (Stamp::from_seconds(5), Origin::Client);
    let plan = PlanPut { key: key(name), stamp, digest: digest(content), logical_size, intent, origin };
    world.stores.metadata.plan_put(plan).await.unwrap()
}

async fn delete(world: &World, name: &str) -> DeleteOutcome {
    world.stores.metadata.delete(key(name), Stamp::from_seconds(9)).await.unwrap()
}

#[tokio::test]
async fn a_content_whose_rows_were_lost_is_stored_again_by_its_next_upload() {
    for kind in BOTH {
        for lost in [&["contents"][..], &["representations"], &["contents", "representations"]] {
            let mut world = World::empty(kind).await;
            let content = b"what a name holds";
            world.put("a", content).await;
            world.put("x", content).await;
            lost.iter().for_each(|table| lose(&world, table, digest(content)));
            world.stores.metadata.recount_totals().await.unwrap();
            assert!(world.get("a").await.is_err(), "{kind} {lost:?}");
            assert_eq!(plan(&world, "a", content, false).await, PutPlan::Missing, "{kind} {lost:?}");
            world.put("a", content).await;
            world.assert_all_readable().await;
            let report = world.verify(true).await;
            assert!(report.is_whole(), "{kind} {lost:?} {:?}", report.damages);
            // The object that was noted until then is neither written over nor deleted.
            let entry = world.stores.metadata.lookup(key("a")).await.unwrap().unwrap();
            let Recipe::Whole(blob) = entry.recipe else { unreachable!() };
            let has_stray = !lost.contains(&"representations");
            assert_eq!(blob.key.generation, u64::from(has_stray), "{kind} {lost:?}");
            let kept = world.stores.metadata.list_quarantined(None, 9).await.unwrap();
            let kept: Vec<_> = kept.iter().map(|object| object.key).collect();
            assert_eq!(kept, Vec::from_iter(has_stray.then(|| object(digest(content)))), "{kind} {lost:?}");
        }
    }
}

#[tokio::test]
async fn what_other_names_hold_is_not_cleaned_when_one_that_brought_it_back_goes() {
    for kind in BOTH {
        let mut world = World::empty(kind).await;
        let content = b"what two names hold";
        world.put("a", content).await;
        world.put("x", content).await;
        lose(&world, "contents", digest(content));
        lose(&world, "representations", digest(content));
        world.put("b", content).await;
        assert_eq!(delete(&world, "b").await, DeleteOutcome::Deleted);
        world.names.remove("b");
        assert_eq!(unused(&world).await, [], "{kind}");
        assert_eq!(world.stores.metadata.condemn(vec![digest(content)], FAR).await.unwrap(), [], "{kind}");
        world.assert_all_readable().await;
        for name in ["a", "x"] {
            assert_eq!(delete(&world, name).await, DeleteOutcome::Deleted);
        }
        assert_eq!(unused(&world).await, [digest(content)], "{kind}");
        assert_eq!(world.stores.metadata.condemn(vec![digest(content)], FAR).await.unwrap().len(), 1, "{kind}");
    }
}

#[tokio::test]
async fn a_repair_that_ends_before_it_counts_leaves_nothing_to_clean_that_a_name_holds() {
    for kind in BOTH {
        let mut world = World::empty(kind).await;
        let content = b"what a repair finds";
        world.put("a", content).await;
        lose(&world, "contents", digest(content));
        lose(&world, "representations", digest(content));
        let blob = world.store(object(digest(content)), &body(content)).await;
        let (logical_size, reason) = (content.len() as u64, String::new());
        let set = SetBlob { blob, logical_size, expected: None, intent: None, references: 0, reason };
        assert_eq!(world.stores.metadata.set_blob(set).await.unwrap(), SetOutcome::Set);
        assert_eq!(unused(&world).await, [], "{kind}");
        assert_eq!(world.stores.metadata.condemn(vec![digest(content)], FAR).await.unwrap(), [], "{kind}");
        world.assert_all_readable().await;
    }
}

#[tokio::test]
async fn a_count_that_is_too_low_gives_up_no_content_and_holds_up_no_name() {
    let mut world = World::empty("sqlite").await;
    let content = b"what is counted wrong";
    for name in ["a", "b", "c"] {
        world.put(name, content).await;
    }
    world.sql("UPDATE contents SET refs = 0, unused_since = 1 WHERE digest = {x}", digest(content));
    assert_eq!(unused(&world).await, []);
    assert_eq!(world.stores.metadata.condemn(vec![digest(content)], FAR).await.unwrap(), []);
    assert_eq!(delete(&world, "a").await, DeleteOutcome::Deleted);
    world.put("b", b"something else").await;
    world.names.remove("a");
    world.assert_all_readable().await;
    assert_eq!(world.stores.metadata.condemn(vec![digest(content)], FAR).await.unwrap(), []);
    world.stores.metadata.recount(vec![digest(content)]).await.unwrap();
    let report = world.verify(false).await;
    assert!(report.is_whole(), "{:?}", report.damages);
}

#[tokio::test]
async fn a_name_whose_content_is_unknown_can_be_deleted_and_written_over() {
    for kind in BOTH {
        let mut world = World::empty(kind).await;
        let content = b"what is lost";
        world.put("a", content).await;
        world.put("b", content).await;
        lose(&world, "contents", digest(content));
        lose(&world, "representations", digest(content));
        world.stores.metadata.recount_totals().await.unwrap();
        assert_eq!(delete(&world, "a").await, DeleteOutcome::Deleted, "{kind}");
        world.names.remove("a");
        world.put("b", b"something else").await;
        world.assert_all_readable().await;
        let report = world.verify(true).await;
        assert!(report.is_whole(), "{kind} {:?}", report.damages);
    }
}

#[tokio::test]
async fn what_cannot_be_condemned_is_not_planned_and_keeps_no_other_from_it() {
    for kind in BOTH {
        let mut world = World::empty(kind).await;
        let contents: [&[u8]; 3] = [b"kept in quarantine", b"nobody knows where", b"garbage"];
        for (name, content) in ["a", "b", "c"].into_iter().zip(contents) {
            world.put(name, content).await;
            assert_eq!(delete(&world, name).await, DeleteOutcome::Deleted);
        }
        let [kept, nowhere, garbage] = contents.map(digest);
        world.stores.metadata.quarantine(object(kept), "broken".into()).await.unwrap();
        lose(&world, "representations", nowhere);
        assert_eq!(unused(&world).await, [garbage], "{kind}");
        let condemned = world.stores.metadata.condemn(vec![kept, nowhere, garbage], FAR).await.unwrap();
        assert_eq!(condemned.iter().map(|blob| blob.key).collect::<Vec<_>>(), [object(garbage)], "{kind}");
    }
}
