//! Rows that are not what was written.

use super::{FAR_FUTURE, Factory, Spoil, Store, begin, commit, get, key, ok, plan, put, totals};
use crate::model::{BlobKey, KeyLayout, Recipe};
use crate::store::meta::{PlanPut, PutCommit, PutPlan};

/// What can become of the rows of a content so that they cannot be read. The content has a stored size of 1.
const SPOILT: [(&str, &str); 11] = [
    ("an encoding of nobody", "UPDATE representations SET encoding = 'rot13' WHERE stored_size = 1"),
    ("a kind of nobody", "UPDATE representations SET kind = 'chunks' WHERE stored_size = 1"),
    ("a negative stored size", "UPDATE representations SET stored_size = -7 WHERE stored_size = 1"),
    ("a stored size of nobody", "UPDATE representations SET stored_size = 9223372036854775807 WHERE stored_size = 1"),
    ("a negative size", "UPDATE contents SET logical_size = -9223372036854775807 WHERE logical_size = 10"),
    ("a size of nobody", "UPDATE contents SET logical_size = 9223372036854775807 WHERE logical_size = 10"),
    ("half a hash", "UPDATE representations SET stored_hash = substr(stored_hash, 1, 16) WHERE stored_size = 1"),
    ("a negative generation", "UPDATE representations SET generation = -3 WHERE stored_size = 1"),
    ("a generation of nobody", "UPDATE representations SET generation = 9223372036854775807 WHERE stored_size = 1"),
    ("a negative depth", "UPDATE representations SET key_depth = -1 WHERE stored_size = 1"),
    ("a depth of nobody", "UPDATE representations SET key_depth = 300 WHERE stored_size = 1"),
];

/// Each kind of damage on a store of its own.
pub(super) async fn run(factory: Factory<'_>) {
    for (what, sql) in SPOILT {
        let (store, spoil) = factory().await;
        eprintln!("meta contract: an upload heals a content with {what} on {}", store.kind());
        an_upload_heals_a_content_whose_rows_cannot_be_read(store, &spoil, what, sql).await;
    }
}

async fn an_upload_heals_a_content_whose_rows_cannot_be_read(store: Store, spoil: &Spoil<'_>, what: &str, sql: &str) {
    for (name, byte) in [("a", 1), ("b", 1), ("other", 2)] {
        put(&store, name, 5, byte).await;
    }
    spoil(sql);
    // Nothing is acknowledged on the strength of such a row.
    for name in ["a", "c", "other"] {
        let asked = PlanPut { intent: None, ..plan(name, 6, 1, false) };
        assert_eq!(ok(store.plan_put(asked).await), PutPlan::Missing, "{what}: {name}");
    }
    // The name of the former object is not given to the new one, also where it cannot be told.
    let former = BlobKey { digest: super::digest(1), generation: 0, layout: KeyLayout::new(2) };
    let (lost, upload) = (begin(&store, "c", 6, 1).await, begin(&store, "c", 6, 1).await);
    assert!(lost.1.generation > former.generation, "{what}: {}", lost.1);
    assert!(upload.1.generation < 10 && upload.1 != lost.1, "{what}: {}", upload.1);
    // An upload that was withdrawn heals nothing.
    assert_eq!(ok(store.condemn_intents(vec![lost.0], FAR_FUTURE).await), [lost.1]);
    assert_eq!(ok(store.commit_put(commit("c", 6, 1, lost)).await), PutCommit::IntentLost, "{what}");
    for _ in 0..2 {
        assert_eq!(ok(store.commit_put(commit("c", 6, 1, upload)).await), PutCommit::Committed, "{what}");
    }
    // All names read the new object.
    for (name, stamp) in [("a", 5), ("b", 5), ("c", 6)] {
        assert_eq!(get(&store, name).await, Some((stamp, 1)), "{what}");
        let entry = ok(store.lookup(key(name)).await);
        let entry = entry.unwrap_or_else(|| panic!("{what}: {name} is lost"));
        let Recipe::Whole(blob) = entry.recipe;
        assert_eq!(blob.key, upload.1, "{what}");
    }
    assert_eq!(get(&store, "other").await, Some((5, 2)));
    assert_eq!(totals(&store).await, [4, 2, 50, 3], "{what}");
    // The former object is in quarantine, or nothing is known of it; nobody deletes it.
    let quarantined = ok(store.list_quarantined(None, 10).await);
    let is_named = !(what.contains("generation") || what.contains("depth"));
    let want: Vec<_> = if is_named { vec![former] } else { Vec::new() };
    assert_eq!(quarantined.iter().map(|object| object.key).collect::<Vec<_>>(), want, "{what}");
    assert_eq!(ok(store.list_condemned(None, 10).await), [lost.1], "{what}");
    let audit = ok(store.audit(10).await);
    assert_eq!((audit.findings, audit.unreadable), (Vec::new(), Vec::new()), "{what}");
    assert_eq!(audit.noted, audit.counted, "{what}");
    put(&store, "d", 7, 1).await;
    assert_eq!(totals(&store).await, [5, 2, 60, 3], "{what}");
}
