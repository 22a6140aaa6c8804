//! What every [`MirrorJournal`](crate::store::meta::MirrorJournal) must do. Each check gets an empty store.

use std::time::Duration;

use super::meta_contract::{Store, begin, commit, get, key, ok, plan, put};
use crate::model::{Digest, Namespace, Stamp};
use crate::store::meta::{
    ClaimId, Claimed, CommitPut, DeleteOutcome, KnownHere, Mark, Origin, PlanPut, PutCommit, PutPlan, Settled,
};

const LEASE: Duration = Duration::from_secs(600);
const US: ClaimId = ClaimId(1);
const THEM: ClaimId = ClaimId(2);

fn at(seconds: i64) -> Stamp {
    Stamp::from_seconds(seconds)
}

fn from(origin: Origin, name: &str, stamp: i64, byte: u8) -> PlanPut {
    PlanPut { origin, ..plan(name, stamp, byte, false) }
}

async fn claim(store: &Store, name: &str, claim: ClaimId) -> Claimed {
    ok(store.claim_mark(key(name), claim, LEASE).await)
}

async fn marked(store: &Store, name: &str) -> Mark {
    match claim(store, name, US).await {
        Claimed::Yes(mark) => mark,
        other => panic!("{name}: {other:?}"),
    }
}

pub(super) async fn a_mirrored_write_marks_its_name_and_others_do_not(store: Store) {
    put(&store, "client", 5, 1).await;
    assert_eq!(claim(&store, "client", US).await, Claimed::Absent);
    assert_eq!(ok(store.plan_put(from(Origin::Copied, "copy", 5, 1)).await), PutPlan::Committed);
    assert_eq!(claim(&store, "copy", US).await, Claimed::Absent);
    assert_eq!(ok(store.plan_put(from(Origin::Mirrored, "unknown", 5, 9)).await), PutPlan::Missing);
    assert_eq!(claim(&store, "unknown", US).await, Claimed::Absent);
    assert_eq!(ok(store.plan_put(from(Origin::Mirrored, "known", 5, 1)).await), PutPlan::Committed);
    assert_eq!(marked(&store, "known").await.key, key("known"));
    // Long names are kept in another way.
    let long = format!("long/{}", "ż/".repeat(1000));
    let upload = begin(&store, &long, 5, 2).await;
    let committed = CommitPut { origin: Origin::Mirrored, ..commit(&long, 5, 2, upload) };
    assert_eq!(ok(store.commit_put(committed).await), PutCommit::Committed);
    assert_eq!(marked(&store, &long).await.key, key(&long));
    assert_eq!(ok(store.plan_put(from(Origin::Mirrored, "client", 4, 1)).await), PutPlan::Stale { current: at(5) });
    assert_eq!(claim(&store, "client", US).await, Claimed::Absent);
    assert_eq!(ok(store.delete_beside(key("client"), at(4)).await), DeleteOutcome::Stale { current: at(5) });
    assert_eq!(claim(&store, "client", US).await, Claimed::Absent);
    let summary = ok(store.mark_summary().await);
    assert_eq!((summary.marks, summary.last_error), (2, None));
    assert!(summary.oldest.is_some());
}

pub(super) async fn a_deletion_is_remembered_and_no_copy_brings_the_name_back(store: Store) {
    put(&store, "a", 5, 1).await;
    put(&store, "keeps-the-content", 5, 1).await;
    assert_eq!(ok(store.delete_beside(key("a"), at(7)).await), DeleteOutcome::Deleted);
    assert_eq!(ok(store.delete_beside(key("a"), at(6)).await), DeleteOutcome::Absent);
    assert_eq!(ok(store.delete_beside(key("never"), at(7)).await), DeleteOutcome::Absent);
    for name in ["a", "never"] {
        marked(&store, name).await;
        for stamp in [5, 7] {
            assert_eq!(ok(store.plan_put(from(Origin::Copied, name, stamp, 1)).await), PutPlan::Deleted);
            let upload = begin(&store, name, stamp, 3).await;
            let copied = CommitPut { origin: Origin::Copied, ..commit(name, stamp, 3, upload) };
            assert_eq!(ok(store.commit_put(copied).await), PutCommit::Deleted);
        }
        assert!(ok(store.lookup(key(name)).await).is_none(), "{name}");
    }
    // Newer than the deletion, or by a client.
    assert_eq!(ok(store.plan_put(from(Origin::Copied, "a", 8, 1)).await), PutPlan::Committed);
    assert_eq!(ok(store.plan_put(from(Origin::Mirrored, "never", 3, 1)).await), PutPlan::Committed);
    assert_eq!(ok(store.plan_put(from(Origin::Copied, "never", 7, 1)).await), PutPlan::Deleted);
    assert!(!ok(store.forget_tombstones(100).await));
    assert_eq!(ok(store.plan_put(from(Origin::Copied, "never", 7, 1)).await), PutPlan::Committed);
}

pub(super) async fn a_copy_never_replaces_what_is_as_new(store: Store) {
    put(&store, "a", 5, 1).await;
    put(&store, "b", 5, 2).await;
    for stamp in [4, 5] {
        assert_eq!(ok(store.plan_put(from(Origin::Copied, "a", stamp, 2)).await), PutPlan::Stale { current: at(5) });
        let byte = 3 + stamp as u8;
        let upload = begin(&store, "other", stamp, byte).await;
        let copied = CommitPut { origin: Origin::Copied, ..commit("a", stamp, byte, upload) };
        assert_eq!(ok(store.commit_put(copied).await), PutCommit::Stale { current: at(5) });
    }
    assert_eq!(get(&store, "a").await, Some((5, 1)));
    assert_eq!(ok(store.plan_put(from(Origin::Copied, "a", 6, 2)).await), PutPlan::Committed);
    assert_eq!(get(&store, "a").await, Some((6, 2)));
}

pub(super) async fn a_mark_stays_until_its_last_write_is_settled(store: Store) {
    ok(store.mark(key("a")).await);
    let first = marked(&store, "a").await;
    ok(store.mark(key("a")).await);
    assert_eq!(ok(store.settle_mark(first.clone(), US).await), Settled::Changed);
    let second = marked(&store, "a").await;
    assert_ne!(second.seq, first.seq);
    assert_eq!(ok(store.settle_mark(second.clone(), THEM).await), Settled::Lost);
    assert_eq!(ok(store.settle_mark(second.clone(), US).await), Settled::Done);
    assert_eq!(ok(store.settle_mark(second, US).await), Settled::Lost);
    assert_eq!(claim(&store, "a", US).await, Claimed::Absent);
    assert_eq!(ok(store.mark_summary().await), Default::default());
}

pub(super) async fn a_claim_keeps_others_away_until_it_runs_out(store: Store) {
    for name in ["a", "b", "c"] {
        ok(store.mark(key(name)).await);
    }
    let mark = marked(&store, "a").await;
    assert_eq!(claim(&store, "a", THEM).await, Claimed::Held);
    for (name, is_claimed) in [("a", true), ("b", false), ("unmarked", false)] {
        assert_eq!(ok(store.is_claimed(key(name)).await), is_claimed, "{name}");
    }
    assert_eq!(claim(&store, "a", US).await, Claimed::Yes(mark), "a claim is prolonged");
    let due = ok(store.claim_due_marks(THEM, LEASE, 1).await);
    assert_eq!(due.len(), 1);
    let rest = ok(store.claim_due_marks(THEM, LEASE, 10).await);
    let mut names: Vec<&str> = due.iter().chain(&rest).map(|mark| mark.key.name()).collect();
    names.sort_unstable();
    assert_eq!(names, ["b", "c"]);
    assert!(ok(store.claim_due_marks(THEM, LEASE, 10).await).is_empty());
    // One that has run out is anybody's.
    assert!(matches!(ok(store.claim_mark(key("a"), US, Duration::ZERO).await), Claimed::Yes(_)));
    assert!(matches!(claim(&store, "a", THEM).await, Claimed::Yes(_)));
}

pub(super) async fn marks_that_failed_come_back_after_their_pause(store: Store) {
    ok(store.mark(key("a")).await);
    marked(&store, "a").await;
    let none = Duration::ZERO;
    // Somebody else's does not count.
    ok(store.fail_mark(key("a"), THEM, "theirs".into(), none, none).await);
    assert_eq!(claim(&store, "a", THEM).await, Claimed::Held);
    ok(store.fail_mark(key("a"), US, "the old server does not answer".into(), LEASE, none).await);
    assert!(ok(store.claim_due_marks(THEM, LEASE, 10).await).is_empty());
    assert_eq!(ok(store.mark_summary().await).last_error.as_deref(), Some("the old server does not answer"));
    // Whoever writes the name again need not wait for the pause, but for the hold.
    let again = marked(&store, "a").await;
    assert_eq!(again.attempts, 1);
    ok(store.fail_mark(key("a"), US, "nobody knows".into(), none, LEASE).await);
    assert_eq!(claim(&store, "a", US).await, Claimed::Held);
    assert!(ok(store.claim_due_marks(THEM, LEASE, 10).await).is_empty());
}

pub(super) async fn what_is_here_and_what_was_deleted_is_told(store: Store) {
    put(&store, "here", 5, 1).await;
    ok(store.delete_beside(key("gone"), at(7)).await);
    let names = ["never", "here", "gone"].map(str::to_owned).to_vec();
    let known = ok(store.are_here(Namespace::FILETRACKER, names).await);
    let gone = KnownHere { is_here: false, deleted: Some(at(7)), telling: None };
    assert_eq!(known, [KnownHere::default(), KnownHere { is_here: true, ..KnownHere::default() }, gone]);
    put(&store, "gone", 3, 1).await;
    let again = ok(store.are_here(Namespace::FILETRACKER, vec!["gone".to_owned()]).await);
    assert_eq!(again, [KnownHere { is_here: true, deleted: Some(at(7)), telling: None }]);
    // What it is being told is known until it is known to be there.
    let (claim, minute, content) = (ClaimId(9), Duration::from_secs(60), Digest::from_bytes([5; 32]));
    let known = async || ok(store.are_here(Namespace::FILETRACKER, vec!["gone".to_owned()]).await);
    let claimed = ok(store.claim_mark(key("gone"), claim, minute).await);
    let Claimed::Yes(mark) = claimed else { panic!("{claimed:?}") };
    assert!(!ok(store.begin_telling(key("gone"), ClaimId(8), content, minute).await));
    assert!(ok(store.begin_telling(key("gone"), claim, content, minute).await));
    ok(store.fail_mark(key("gone"), claim, "down".into(), Duration::ZERO, Duration::ZERO).await);
    assert_eq!(known().await[0].telling, Some(content));
    assert!(matches!(ok(store.claim_mark(key("gone"), claim, minute).await), Claimed::Yes(_)));
    ok(store.mark(key("gone")).await);
    assert_eq!(ok(store.settle_mark(mark, claim).await), Settled::Changed);
    assert_eq!(known().await[0].telling, None);
}

pub(super) async fn marks_and_tombstones_are_given_up_bit_by_bit(store: Store) {
    for name in ["a", "b", "c"] {
        assert_eq!(ok(store.delete_beside(key(name), at(7)).await), DeleteOutcome::Absent);
    }
    marked(&store, "a").await;
    assert_eq!((ok(store.mark_summary().await).marks, ok(store.count_tombstones().await)), (3, 3));
    assert!(ok(store.forget_marks(2).await));
    assert_eq!(ok(store.mark_summary().await).marks, 1);
    assert!(!ok(store.forget_marks(2).await));
    assert_eq!((ok(store.mark_summary().await).marks, ok(store.count_tombstones().await)), (0, 3));
    while ok(store.forget_tombstones(2).await) {}
    assert_eq!(ok(store.count_tombstones().await), 0);
}
