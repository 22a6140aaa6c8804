//! Names, versions, references and listings.

use super::{
    FAR_FUTURE, Store, begin, commit, condemn, condemn_intent, delete, digest, get, key, ok, plan, put, stored, totals,
};
use crate::model::{BlobKey, KeyLayout, Namespace, Recipe, Stamp};
use crate::store::meta::{DeleteOutcome, ListPage, PutCommit, PutPlan, Totals};

pub(super) async fn an_upload_becomes_an_entry(store: Store) {
    assert_eq!(ok(store.totals().await), Totals::default());
    assert_eq!(get(&store, "a").await, None);
    assert_eq!(ok(store.plan_put(plan("a", 5, 1, false)).await), PutPlan::Missing);
    let upload = begin(&store, "a", 5, 1).await;
    assert_eq!(upload.1, BlobKey { digest: digest(1), generation: 0, layout: KeyLayout::new(2) });
    assert_eq!(get(&store, "a").await, None, "an intent is not an entry");
    assert_eq!(ok(store.commit_put(commit("a", 5, 1, upload)).await), PutCommit::Committed);
    assert_eq!(get(&store, "a").await, Some((5, 1)));
    assert_eq!(totals(&store).await, [1, 1, 10, 1]);
    assert_eq!(ok(store.totals().await).uploads_begun, 1);
    ok(store.probe().await);
}

pub(super) async fn known_content_is_shared_without_an_upload(store: Store) {
    put(&store, "a", 5, 1).await;
    for with_intent in [false, true] {
        assert_eq!(ok(store.plan_put(plan("b/c", 7, 1, with_intent)).await), PutPlan::Committed);
    }
    assert_eq!(get(&store, "b/c").await, Some((7, 1)));
    assert_eq!(totals(&store).await, [2, 1, 20, 1]);
}

pub(super) async fn the_newest_version_wins(store: Store) {
    put(&store, "a", 5, 1).await;
    put(&store, "known", 5, 2).await;
    let stale = PutPlan::Stale { current: Stamp::from_seconds(5) };
    for byte in [1, 2, 3] {
        for with_intent in [false, true] {
            assert_eq!(ok(store.plan_put(plan("a", 4, byte, with_intent)).await), stale);
        }
    }
    assert_eq!(delete(&store, "a", 4).await, DeleteOutcome::Stale { current: Stamp::from_seconds(5) });
    assert_eq!(get(&store, "a").await, Some((5, 1)));
    assert_eq!(delete(&store, "a", 5).await, DeleteOutcome::Deleted);
    assert_eq!(get(&store, "a").await, None);
    put(&store, "a", -4, 1).await;
    assert_eq!(get(&store, "a").await, Some((-4, 1)), "a deletion leaves nothing that is newer");
}

pub(super) async fn equal_versions_replace(store: Store) {
    put(&store, "a", 5, 1).await;
    put(&store, "a", 5, 2).await;
    assert_eq!(get(&store, "a").await, Some((5, 2)));
}

pub(super) async fn overwriting_moves_the_references(store: Store) {
    put(&store, "a", 1, 1).await;
    put(&store, "b", 1, 1).await;
    put(&store, "a", 2, 2).await;
    assert_eq!(totals(&store).await, [2, 2, 30, 3]);
    put(&store, "a", 3, 2).await;
    assert_eq!(totals(&store).await, [2, 2, 30, 3], "the same content in a newer version");
    put(&store, "b", 2, 2).await;
    assert_eq!(totals(&store).await, [2, 2, 40, 3]);
    assert!(condemn(&store, 1, FAR_FUTURE).await.is_some());
    assert_eq!(totals(&store).await, [2, 1, 40, 2]);
    assert!(condemn(&store, 2, FAR_FUTURE).await.is_none());
}

pub(super) async fn repeated_writes_change_nothing(store: Store) {
    let upload = begin(&store, "a", 5, 1).await;
    for _ in 0..3 {
        assert_eq!(ok(store.commit_put(commit("a", 5, 1, upload)).await), PutCommit::Committed);
        assert_eq!(totals(&store).await, [1, 1, 10, 1]);
    }
    for _ in 0..3 {
        assert_eq!(ok(store.plan_put(plan("b", 5, 1, false)).await), PutPlan::Committed);
        assert_eq!(totals(&store).await, [2, 1, 20, 1]);
    }
    assert_eq!(delete(&store, "a", 5).await, DeleteOutcome::Deleted);
    assert_eq!(delete(&store, "a", 5).await, DeleteOutcome::Absent);
    assert_eq!(totals(&store).await, [1, 1, 10, 1]);
}

pub(super) async fn of_two_uploads_the_first_commit_stays(store: Store) {
    let first = begin(&store, "a", 5, 1).await;
    let second = begin(&store, "b", 5, 1).await;
    assert_ne!(first.1, second.1, "two uploads under one name");
    assert_eq!(ok(store.commit_put(commit("b", 5, 1, second)).await), PutCommit::Committed);
    assert_eq!(ok(store.commit_put(commit("a", 5, 1, first)).await), PutCommit::Committed);
    let entry = ok(store.lookup(key("a")).await);
    assert_eq!(entry.map(|entry| entry.recipe), Some(Recipe::Whole(stored(second.1, 1))));
    assert_eq!(totals(&store).await, [2, 1, 20, 1]);
    // The losing upload's object is found by its intent.
    assert_eq!(condemn_intent(&store, first.0, FAR_FUTURE).await, Some(first.1));
    assert_eq!(condemn_intent(&store, second.0, FAR_FUTURE).await, None);
}

pub(super) async fn a_stale_commit_keeps_the_content_for_others(store: Store) {
    let upload = begin(&store, "a", 5, 1).await;
    put(&store, "a", 6, 2).await;
    let outcome = ok(store.commit_put(commit("a", 5, 1, upload)).await);
    assert_eq!(outcome, PutCommit::Stale { current: Stamp::from_seconds(6) });
    assert_eq!(get(&store, "a").await, Some((6, 2)));
    assert_eq!(totals(&store).await, [1, 2, 20, 3]);
    assert_eq!(ok(store.plan_put(plan("b", 1, 1, false)).await), PutPlan::Committed);
    assert_eq!(get(&store, "b").await, Some((1, 1)));
}

/// All names below a directory, read in pages of `rows`.
pub(super) async fn list(store: &Store, directory: &str, not_after: i64, rows: usize) -> (Vec<String>, bool) {
    let (mut names, mut any, mut after) = (Vec::new(), false, None);
    loop {
        let page = ListPage {
            namespace: Namespace::FILETRACKER,
            directory: directory.to_owned(),
            after,
            not_after: Stamp::from_seconds(not_after),
            rows,
        };
        let page = ok(store.list(page).await);
        assert!(page.names.len() <= rows);
        names.extend(page.names);
        any |= page.any;
        after = page.next;
        if after.is_none() {
            return (names, any);
        }
    }
}

pub(super) async fn listings_are_ordered_paged_and_bounded_by_directory(store: Store) {
    let inside = ["d/a", "d/a/b", "d/a.b", "d/ź", "d/%41", "d/~", "d/\u{10ffff}"];
    let outside = ["d", "d.", "d0", "d-/x", "D/a", "e/d/a", "dd/a"];
    for name in inside.iter().chain(&outside) {
        put(&store, name, 1, 1).await;
    }
    let mut expected: Vec<String> = inside.iter().map(|name| name["d/".len()..].to_owned()).collect();
    expected.sort();
    let mut everything: Vec<String> = inside.iter().chain(&outside).map(|name| (*name).to_owned()).collect();
    everything.sort();
    for rows in [1, 2, 3, 7, 100] {
        assert_eq!(list(&store, "d", 1, rows).await, (expected.clone(), true));
        assert_eq!(list(&store, "", 1, rows).await, (everything.clone(), true));
    }
    assert_eq!(list(&store, "d/a", 1, 10).await, (vec!["b".to_owned()], true));
    assert_eq!(list(&store, "dd/a", 1, 10).await, (vec![], false), "a name is no directory");
    assert_eq!(list(&store, "nowhere", 1, 10).await, (vec![], false));
}

pub(super) async fn listings_hide_newer_versions(store: Store) {
    for number in 0..20 {
        put(&store, &format!("d/{number:02}"), number, 1).await;
    }
    for rows in [1, 3, 100] {
        assert_eq!(list(&store, "d", 4, rows).await.0, ["00", "01", "02", "03", "04"]);
        assert_eq!(list(&store, "d", -1, rows).await, (vec![], true));
    }
}

pub(super) async fn the_longest_names_are_kept_and_listed_in_order(store: Store) {
    use crate::model::NAME_BYTES_MAX;
    // The same 3,990 bytes at the beginning, ends that differ late; letters of one to four bytes.
    let mut expected = Vec::new();
    for letter in ["a", "ź", "\u{10ffff}"] {
        let start = format!("d/{}", letter.repeat(3988 / letter.len()));
        for end in ["", "a", "b", "ź", "źz", "\u{10ffff}", "/x", "/y/z"] {
            expected.push(format!("{start}{end}"));
        }
        expected.push(format!("{start}{}", "z".repeat(NAME_BYTES_MAX - start.len())));
    }
    for (number, name) in (1..).zip(&expected) {
        put(&store, name, number, 1).await;
    }
    for (number, name) in (1..).zip(&expected) {
        assert_eq!(get(&store, name).await, Some((number, 1)));
    }
    expected.sort();
    for rows in [1, 4, 100] {
        assert_eq!(list(&store, "", 99, rows).await.0, expected);
    }
    let directory = format!("d/{}", "ź".repeat(1994));
    assert_eq!(list(&store, &directory, 99, 10).await.0, ["x", "y/z"]);
    for name in &expected {
        assert_eq!(delete(&store, name, 99).await, DeleteOutcome::Deleted);
    }
    assert_eq!(totals(&store).await[0], 0);
}

pub(super) async fn a_local_reader_sees_what_was_committed(store: Store) {
    let Some(reader) = ok(store.local_reader()) else { return };
    assert_eq!(ok(reader.lookup(&key("a"))), None);
    put(&store, "a", 5, 1).await;
    assert_eq!(ok(reader.lookup(&key("a"))), ok(store.lookup(key("a")).await));
    assert_eq!(delete(&store, "a", 5).await, DeleteOutcome::Deleted);
    assert_eq!(ok(reader.lookup(&key("a"))), None);
}
