//! What every [`MigrationJournal`](crate::store::meta::MigrationJournal) must do. Each check gets an empty store.

use super::meta_contract::{Store, ok};
use crate::store::meta::{Fate, Migration, MigrationCounts, MigrationId, MigrationState};

const SOURCE: &str = "http://old:9999";

async fn begin(store: &Store) -> Migration {
    ok(store.begin_migration("v2", SOURCE.to_owned()).await)
}

async fn counts(store: &Store, id: MigrationId) -> MigrationCounts {
    ok(store.migration(id).await).map(|migration| migration.counts).unwrap_or_default()
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn failed(reason: &str) -> Fate {
    Fate::Failed { reason: reason.to_owned(), attempts: 5 }
}

async fn finish(store: &Store, id: MigrationId) {
    ok(store.end_listing(id).await);
    ok(store.end_migration(id).await);
}

pub(super) async fn an_unfinished_migration_goes_on_and_a_finished_one_begins_anew(store: Store) {
    let first = begin(&store).await;
    assert_eq!((first.state, first.listed_at, first.counts), (MigrationState::Listing, None, Default::default()));
    assert_eq!((first.kind.as_str(), first.source.as_str()), ("v2", SOURCE));
    assert_eq!(begin(&store).await, first);
    // The same text may be the name of another kind of source.
    let other = ok(store.begin_migration("v1", SOURCE.to_owned()).await);
    let long = ok(store.begin_migration("v1", "ż/".repeat(4000)).await);
    assert!(other.id != first.id && long.id != other.id);
    assert_eq!(ok(store.begin_migration("v1", "ż/".repeat(4000)).await), long);

    // It does not end before its listing.
    ok(store.end_migration(first.id).await);
    assert_eq!(begin(&store).await, first);
    for _ in 0..2 {
        ok(store.end_listing(first.id).await);
    }
    let copying = begin(&store).await;
    assert_eq!((copying.id, copying.state), (first.id, MigrationState::Copying));
    assert!(copying.listed_at.is_some());
    for _ in 0..2 {
        ok(store.end_migration(first.id).await);
    }
    assert_eq!(ok(store.migration(first.id).await).map(|old| old.state), Some(MigrationState::Done));
    let second = begin(&store).await;
    assert!(second.id > first.id);
    assert_eq!(second.state, MigrationState::Listing);
    assert_eq!(ok(store.migration(MigrationId(1 << 40)).await), None);
}

pub(super) async fn names_are_pending_once_however_often_they_are_listed(store: Store) {
    let id = begin(&store).await.id;
    let other = ok(store.begin_migration("v1", SOURCE.to_owned()).await).id;
    let long = format!("z/{}", "ż".repeat(2000));
    let longer = format!("{long}a");
    let all = names(&["a", "a/b", "a0", "b", &long, &longer]);
    ok(store.add_names(id, names(&["b", &longer, "a"]), Vec::new()).await);
    for _ in 0..2 {
        ok(store.add_names(id, all.clone(), Vec::new()).await);
    }
    ok(store.add_names(id, Vec::new(), Vec::new()).await);
    assert_eq!(counts(&store, id).await.total, 6);
    assert_eq!(counts(&store, other).await.total, 0);
    for rows in [1, 2, 5, 100] {
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = ok(store.pending_names(id, after, rows).await);
            assert!(page.len() <= rows);
            let Some(last) = page.last() else { break };
            after = Some(last.clone());
            seen.extend(page);
        }
        assert_eq!(seen, all, "{rows}");
    }
    assert!(ok(store.pending_names(other, None, 10).await).is_empty());
}

pub(super) async fn names_count_once_when_they_are_settled(store: Store) {
    let id = begin(&store).await.id;
    let all = names(&["a", "b", "c", "d", "e", "f"]);
    ok(store.add_names(id, all.clone(), Vec::new()).await);
    let fates = [
        Fate::Copied { bytes: 100, stored: Some(40) },
        Fate::Copied { bytes: 100, stored: None },
        Fate::Skipped,
        Fate::Gone,
        Fate::Refused,
        failed("no luck"),
    ];
    let settled: Vec<_> = all.into_iter().zip(fates).collect();
    ok(store.settle_names(id, settled[..2].to_vec()).await);
    assert_eq!(ok(store.pending_names(id, None, 10).await), names(&["c", "d", "e", "f"]));
    for _ in 0..2 {
        ok(store.settle_names(id, settled.clone()).await);
    }
    ok(store.settle_names(id, vec![("never listed".to_owned(), Fate::Skipped)]).await);
    let want = MigrationCounts {
        total: 6,
        copied: 2,
        copied_bytes: 200,
        contents: 1,
        stored_bytes: 40,
        skipped: 1,
        gone: 1,
        refused: 1,
        failed: 1,
    };
    assert_eq!(counts(&store, id).await, want);
    assert_eq!(want.settled(), 6);
    assert!(ok(store.pending_names(id, None, 10).await).is_empty());
}

pub(super) async fn names_that_cannot_be_copied_are_kept_with_the_reason(store: Store) {
    let id = begin(&store).await.id;
    let unfit = vec![("bad\\xff".to_owned(), "not valid UTF-8".to_owned()), ("z".repeat(9000), "too long".to_owned())];
    for _ in 0..2 {
        ok(store.add_names(id, names(&["a", "b", "c"]), unfit.clone()).await);
    }
    assert_eq!((counts(&store, id).await.total, counts(&store, id).await.failed), (5, 2));
    let settled = [("a", Fate::Gone), ("b", failed("broken")), ("c", Fate::Skipped)];
    ok(store.settle_names(id, settled.map(|(name, fate)| (name.to_owned(), fate)).to_vec()).await);
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = ok(store.troubles(id, after, 2).await);
        let Some(last) = page.last() else { break };
        after = Some(last.name.clone());
        seen.extend(page);
    }
    let seen: Vec<_> = seen
        .iter()
        .map(|trouble| (&trouble.name[..1], trouble.fate.as_str(), trouble.reason.as_str(), trouble.attempts))
        .collect();
    let gone = "the source does not have it";
    let want = [
        ("a", "gone", gone, 1),
        ("b", "failed", "broken", 5),
        ("b", "failed", "not valid UTF-8", 1),
        ("z", "failed", "too long", 1),
    ];
    assert_eq!(seen, want);
}

pub(super) async fn what_was_deleted_during_a_migration_is_not_copied_again(store: Store) {
    use super::meta_contract::{delete, digest, get, key, put};
    use crate::model::Stamp;
    use crate::store::meta::{DeleteOutcome, Origin, PlanPut, PutPlan};
    let copy = async |name: &str, stamp| {
        let (key, stamp) = (key(name), Stamp::from_seconds(stamp));
        let plan = PlanPut { key, stamp, digest: digest(1), logical_size: 10, intent: None, origin: Origin::Copied };
        ok(store.plan_put(plan).await)
    };
    put(&store, "keeps the content", 1, 1).await;
    put(&store, "before", 5, 1).await;
    assert_eq!(delete(&store, "before", 6).await, DeleteOutcome::Deleted);
    let id = begin(&store).await.id;
    for name in ["a", "b"] {
        put(&store, name, 5, 1).await;
        assert_eq!(delete(&store, name, 6).await, DeleteOutcome::Deleted);
        assert_eq!(copy(name, 5).await, PutPlan::Deleted);
        assert_eq!(copy(name, 6).await, PutPlan::Deleted);
    }
    assert!(!ok(store.forget_tombstones(10).await));
    finish(&store, id).await;
    assert!(!ok(store.forget_tombstones(10).await));
    assert_eq!(copy("a", 5).await, PutPlan::Deleted);
    assert_eq!(get(&store, "a").await, None);
    // Something newer came to be there since; and before the migration nobody had to remember.
    assert_eq!(copy("a", 7).await, PutPlan::Committed);
    assert_eq!(copy("before", 5).await, PutPlan::Committed);
}

pub(super) async fn former_migrations_are_forgotten_bit_by_bit(store: Store) {
    let unfit = |count: u32| (0..count).map(|number| (format!("{number}"), "odd".to_owned())).collect();
    let first = begin(&store).await.id;
    ok(store.add_names(first, Vec::new(), unfit(2500)).await);
    assert!(!ok(store.forget_former(first).await));
    finish(&store, first).await;
    let second = begin(&store).await.id;
    ok(store.add_names(second, Vec::new(), unfit(3)).await);
    let mut rounds = 0;
    while ok(store.forget_former(second).await) {
        rounds += 1;
    }
    assert!((3..10).contains(&rounds), "{rounds}");
    assert_eq!(ok(store.migration(first).await), None);
    assert!(ok(store.troubles(first, None, 10).await).is_empty());
    assert_eq!(ok(store.troubles(second, None, 10).await).len(), 3);
}

pub(super) async fn unfinished_migrations_are_abandoned_with_what_is_remembered_for_them(store: Store) {
    use super::meta_contract::{delete, put};
    let done = begin(&store).await.id;
    ok(store.add_names(done, Vec::new(), vec![("odd".into(), "a reason".into())]).await);
    finish(&store, done).await;
    let listing = begin(&store).await.id;
    ok(store.add_names(listing, names(&["a", "b", "c"]), vec![("odd".into(), "a reason".into())]).await);
    let copying = ok(store.begin_migration("v1", "/srv".to_owned()).await).id;
    ok(store.add_names(copying, names(&["a"]), Vec::new()).await);
    ok(store.end_listing(copying).await);
    let unfinished = ok(store.unfinished_migrations().await);
    let shown: Vec<_> = unfinished.iter().map(|one| (one.id, one.state, one.counts.total)).collect();
    assert_eq!(shown, [(listing, MigrationState::Listing, 4), (copying, MigrationState::Copying, 1)]);
    // While they are there, and for a while after their end, deletions are remembered.
    put(&store, "deleted", 5, 1).await;
    delete(&store, "deleted", 5).await;
    ok(store.forget_tombstones(10).await);
    assert_eq!(ok(store.count_tombstones().await), 1);
    let mut rounds = 1;
    while ok(store.abandon_migrations(2).await) {
        rounds += 1;
    }
    assert!(rounds > 2, "{rounds}");
    assert!(ok(store.unfinished_migrations().await).is_empty());
    assert_eq!((ok(store.migration(listing).await), ok(store.migration(copying).await)), (None, None));
    assert!(ok(store.pending_names(listing, None, 10).await).is_empty());
    assert!(ok(store.troubles(listing, None, 10).await).is_empty());
    assert_eq!(ok(store.troubles(done, None, 10).await).len(), 1, "what is done stays to be looked at");
    ok(store.forget_tombstones(10).await);
    assert_eq!(ok(store.count_tombstones().await), 0);
}
