//! What every store must tell people who look around; see [`meta_contract`](super::meta_contract).

use super::meta_contract::{Store, digest, ok, put};
use crate::model::Namespace;
use crate::store::meta::{FilesPage, SharedPart};

const NAMESPACE: Namespace = Namespace::FILETRACKER;

async fn names(store: &Store, prefix: &str, after: Option<&str>, rows: usize) -> Vec<String> {
    let after = after.map(str::to_owned);
    let page = FilesPage { namespace: NAMESPACE, prefix: prefix.to_owned(), after, rows };
    ok(store.files(page).await).into_iter().map(|file| file.name).collect()
}

pub(super) async fn names_are_shown_by_prefix_in_pages(store: Store) {
    let long = format!("long/{}", "x".repeat(3000));
    let longer = format!("{long}y");
    let all = ["a", "a/1", "a/2", "a/ż<b>", "ab", "b", long.as_str(), &longer, "ż", "\u{10ffff}", "\u{10ffff}z"];
    for name in all {
        put(&store, name, 5, 1).await;
    }
    let mut sorted = all.map(str::to_owned).to_vec();
    sorted.sort();
    assert_eq!(names(&store, "", None, 100).await, sorted);
    assert_eq!(names(&store, "a", None, 100).await, ["a", "a/1", "a/2", "a/ż<b>", "ab"]);
    assert_eq!(names(&store, "a/", None, 2).await, ["a/1", "a/2"]);
    assert_eq!(names(&store, "a/", Some("a/2"), 2).await, ["a/ż<b>"]);
    assert_eq!(names(&store, "a/", Some(""), 1).await, ["a/1"], "a cursor from before the prefix is none");
    assert_eq!(names(&store, "\u{10ffff}", None, 9).await, ["\u{10ffff}", "\u{10ffff}z"]);
    assert_eq!(names(&store, &long, None, 9).await, [long.as_str(), &longer]);
    assert_eq!(names(&store, &longer, None, 9).await, [longer.as_str()]);
    assert_eq!(names(&store, "nothing", None, 9).await, [""; 0]);
    let mut paged: Vec<String> = Vec::new();
    loop {
        let page = names(&store, "", paged.last().map(String::as_str), 3).await;
        if page.is_empty() {
            break;
        }
        paged.extend(page);
    }
    assert_eq!(paged, sorted);
}

pub(super) async fn a_shown_name_tells_what_it_holds_and_who_shares_it(store: Store) {
    for (name, byte) in [("a", 1), ("b", 2), ("c", 2), ("d", 3), ("e", 3), ("f", 3)] {
        put(&store, name, 7, byte).await;
    }
    let page = FilesPage { namespace: NAMESPACE, prefix: "b".into(), after: None, rows: 9 };
    let shown = ok(store.files(page).await);
    let shown: Vec<_> = shown.iter().map(|it| (it.stamp.seconds(), it.digest, it.logical_size)).collect();
    assert_eq!(shown, [(7, digest(2), Some(20))]);
    assert_eq!(ok(store.names_of(NAMESPACE, digest(3), 9).await), ["d", "e", "f"]);
    assert_eq!(ok(store.names_of(NAMESPACE, digest(3), 2).await).len(), 2);
    assert!(ok(store.names_of(NAMESPACE, digest(9), 2).await).is_empty());
    let part = SharedPart { after: None, looked_at: 9, rows: 9 };
    let shared = ok(store.most_shared(part).await);
    assert_eq!(shared.next, None);
    let counts: Vec<_> = shared.contents.iter().map(|it| (it.digest, it.names)).collect();
    assert_eq!(counts, [(digest(3), 3), (digest(2), 2)], "what only one name holds is not shared");
    assert_eq!((shared.contents[0].logical_size, shared.contents[0].stored_size), (Some(30), Some(3)));
    assert_eq!(ok(store.most_shared(SharedPart { rows: 1, ..part }).await).contents.len(), 1);
    let mut part = SharedPart { looked_at: 1, ..part };
    let mut told = Vec::new();
    loop {
        let page = ok(store.most_shared(part).await);
        told.extend(page.contents.iter().map(|it| (it.digest, it.names)));
        let Some(next) = page.next else { break };
        assert!(part.after.is_none_or(|before| before < next), "each part is after the one before");
        part.after = Some(next);
    }
    assert_eq!(told, [(digest(2), 2), (digest(3), 3)], "parts together are the whole, each content is in one");
}
