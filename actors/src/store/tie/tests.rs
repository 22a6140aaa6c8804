use super::*;
use crate::store::blob::{FolderSettings, FolderStore, MemoryStore};
use crate::store::meta::{SqliteSettings, SqliteStore};
use crate::testkit::faulty::{Fault, Faults, FaultyBlobs};
use crate::testkit::{Place, key_of, noise, spooled};

struct Databases(tempfile::TempDir);

impl Databases {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn open(&self, name: &str) -> Arc<dyn MetaStore> {
        let settings = SqliteSettings { path: self.0.path().join(name), connections: 2, backlog: 16 };
        Arc::new(SqliteStore::open(&settings).unwrap())
    }
}

fn refusal(outcome: Result<(), Untied>) -> String {
    match outcome {
        Err(Untied::Strangers(why) | Untied::Emptied(why)) => why,
        other => panic!("not refused: {other:?}"),
    }
}

async fn store_something(contents: &dyn BlobStore) -> Result<()> {
    let body = spooled(&noise(1, 100), Place::Memory);
    contents.put(&key_of(&body.info()), &body.bytes, &body.info()).await
}

#[actix_rt::test]
async fn a_database_keeps_its_number_and_has_it_alone() {
    let databases = Databases::new();
    let one = databases.open("one.db").identity().await.unwrap();
    let other = databases.open("other.db").identity().await.unwrap();
    assert_eq!(one.len(), 32);
    assert_ne!(one, other);
    assert_eq!(databases.open("one.db").identity().await.unwrap(), one);
}

#[actix_rt::test]
async fn new_contents_are_marked_and_then_refused_to_another_database() {
    let databases = Databases::new();
    let (one, other, contents) = (databases.open("one.db"), databases.open("other.db"), MemoryStore::new());
    look(other.as_ref(), &contents).await.unwrap();
    assert_eq!(contents.owners().await.unwrap(), [""; 0], "looking marks nothing");
    tie(one.as_ref(), &contents).await.unwrap();
    tie(one.as_ref(), &contents).await.unwrap();
    assert_eq!(contents.owners().await.unwrap(), [one.identity().await.unwrap()]);
    for outcome in [tie(other.as_ref(), &contents).await, look(other.as_ref(), &contents).await] {
        let why = refusal(outcome);
        assert!(why.contains(&one.identity().await.unwrap()) && why.contains("rebuild"), "{why}");
    }
    take_over(other.as_ref(), &contents).await.unwrap();
    tie(other.as_ref(), &contents).await.unwrap();
    refusal(tie(one.as_ref(), &contents).await);
}

#[actix_rt::test]
async fn of_many_databases_that_start_on_one_store_at_once_at_most_one_gets_it() {
    for round in 0..20 {
        let databases = Databases::new();
        let contents: Arc<dyn BlobStore> = Arc::new(MemoryStore::new());
        let tries = (0..4).map(|number| {
            let (metadata, contents) = (databases.open(&format!("{number}.db")), Arc::clone(&contents));
            async move {
                tokio::task::yield_now().await;
                tie(metadata.as_ref(), contents.as_ref()).await.is_ok()
            }
        });
        let won = futures_util::future::join_all(tries).await.into_iter().filter(|won| *won).count();
        assert!(won <= 1, "round {round}: {won} have it");
        assert_eq!(contents.owners().await.unwrap().len(), won, "who gives up leaves no mark");
    }
}

#[actix_rt::test]
async fn contents_of_an_unknown_database_are_refused_to_a_new_one() {
    let databases = Databases::new();
    let contents = MemoryStore::new();
    contents.insert_raw("ab/ab/somebody-elses", b"x");
    look(databases.open("one.db").as_ref(), &contents).await.unwrap();
    store_something(&contents).await.unwrap();
    let why = refusal(tie(databases.open("one.db").as_ref(), &contents).await);
    assert!(why.contains("the database is new"), "{why}");
    assert_eq!(contents.owners().await.unwrap(), [""; 0]);
}

#[actix_rt::test]
async fn a_store_that_did_not_answer_at_the_start_takes_nothing_of_a_stranger_later() {
    let databases = Databases::new();
    let (one, other) = (databases.open("one.db"), databases.open("other.db"));
    let (inner, faults) = (Arc::new(MemoryStore::new()), Faults::default());
    tie(one.as_ref(), inner.as_ref()).await.unwrap();
    let faulty = || Arc::new(FaultyBlobs { inner: inner.clone(), faults: faults.clone() });
    let (ours, theirs) = (TiedStore::new(faulty(), one), TiedStore::new(faulty(), other));
    faults.set(Fault::Down);
    for store in [&ours, &theirs] {
        assert!(matches!(store.tie().await, Err(Untied::Contents(_))));
        assert_eq!(store_something(store).await.unwrap_err().kind(), Kind::Unavailable);
    }
    faults.set(Fault::None);
    store_something(&ours).await.unwrap();
    let names = inner.names();
    assert_eq!(store_something(&theirs).await.unwrap_err().kind(), Kind::Unavailable);
    let key = key_of(&spooled(&noise(1, 100), Place::Memory).info());
    assert_eq!(theirs.delete(&[key]).await.unwrap_err().kind(), Kind::Unavailable);
    assert_eq!(inner.names(), names);
    assert!(theirs.stat(&key).await.unwrap().is_some(), "reading is free");
}

#[actix_rt::test]
async fn marks_of_a_folder_are_in_no_listing_and_a_lost_folder_is_no_unmarked_one() {
    let dir = tempfile::tempdir().unwrap();
    let settings = FolderSettings { root: dir.path().join("blobs"), write_threads: 1, read_threads: 1 };
    let folder = FolderStore::open(&settings).unwrap();
    let databases = Databases::new();
    tie(databases.open("one.db").as_ref(), &folder).await.unwrap();
    let page = folder.list(None, 10).await.unwrap();
    assert!(page.blobs.is_empty() && page.strangers.is_empty());
    std::fs::rename(dir.path().join("blobs"), dir.path().join("away")).unwrap();
    assert!(matches!(look(databases.open("one.db").as_ref(), &folder).await, Err(Untied::Contents(_))));
}

#[actix_rt::test]
async fn an_emptied_store_with_another_databases_mark_is_not_taken_over() {
    let databases = Databases::new();
    let (one, other, contents) = (databases.open("one.db"), databases.open("other.db"), MemoryStore::new());
    tie(one.as_ref(), &contents).await.unwrap();
    let before = contents.owners().await.unwrap();
    let why = refusal(mark_emptied(other.as_ref(), &contents).await);
    assert!(why.contains(&one.identity().await.unwrap()), "{why}");
    assert_eq!(contents.owners().await.unwrap(), before, "its mark stays and no other comes");
    mark_emptied(one.as_ref(), &contents).await.unwrap();
}
