//! A content store that lost everything.

use s3dedup_actors::model::{Digest, Stamp};
use s3dedup_actors::repair::note_emptied;
use s3dedup_actors::store::meta::{Origin, PlanPut, PutPlan};

use crate::world::{World, digest, key};

/// More than a report of damage holds.
const CONTENTS: u64 = 101_000;

#[tokio::test]
async fn every_content_of_an_emptied_store_is_noted_however_many_there_are() {
    let world = World::empty("sqlite").await;
    let some = digest(b"one of them");
    world.sql(
        &format!(
            "INSERT INTO contents (digest, logical_size, refs, unused_since)
                WITH RECURSIVE number(n) AS (VALUES (2) UNION ALL SELECT n + 1 FROM number WHERE n < {CONTENTS})
                SELECT randomblob(32), 10, 0, 1 FROM number;
            INSERT INTO contents VALUES ({{x}}, 11, 0, 1);
            INSERT INTO representations (digest, kind, generation, key_depth, encoding, stored_size, stored_hash)
                SELECT digest, 'whole', 0, 2, 'gzip', 5, digest FROM contents;"
        ),
        some,
    );
    let plan = |content: Digest| {
        let (key, stamp, origin) = (key("a"), Stamp::from_seconds(5), Origin::Client);
        PlanPut { key, stamp, digest: content, logical_size: 11, intent: None, origin }
    };
    assert_eq!(note_emptied(&world.stores, 500).await.unwrap(), CONTENTS);
    assert_eq!(world.stores.metadata.plan_put(plan(some)).await.unwrap(), PutPlan::Missing);
    let mut next = Some(Vec::new());
    while let Some(after) = next {
        let page = world.stores.metadata.survey(after, 10_000).await.unwrap();
        assert!(page.contents.iter().all(|content| content.is_suspect));
        next = page.next;
    }
    assert_eq!(note_emptied(&world.stores, 500).await.unwrap(), 0);
}

#[tokio::test]
async fn nothing_is_noted_of_a_store_that_has_an_object() {
    let mut world = World::empty("sqlite").await;
    world.put("a", b"it is there").await;
    assert_eq!(note_emptied(&world.stores, 4).await.unwrap(), 0);
}
