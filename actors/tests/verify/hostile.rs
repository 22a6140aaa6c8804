//! Repairs that are cut off, raced or lied to lose nothing.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use s3dedup_actors::SpoolLimits;
use s3dedup_actors::backup::{export, import};
use s3dedup_actors::model::{BlobKey, Digest, EntryKey, Error, KeyLayout, Kind, Result, Stamp};
use s3dedup_actors::repair::{Action, Applied, Fallback, GivenUp, OtherStore, Source, apply, give_up, plan, rebuild};
use s3dedup_actors::store::blob::{BlobStore, FolderSettings, FolderStore, Spooled};
use s3dedup_actors::testkit::faulty::{Fault, Faults, FaultyBlobs};
use s3dedup_actors::verify::Stores;

use crate::repairs::{flip, repair, with};
use crate::world::{World, body, digest, examiner, key, object, words};

const BOTH: [&str; 2] = ["sqlite", "postgres"];
const FAR_FUTURE: Stamp = Stamp::from_seconds(1 << 40);

#[tokio::test]
async fn a_repair_that_ends_before_it_counts_leaves_nothing_to_the_cleaner_that_has_names() {
    for kind in BOTH {
        let world = World::new(kind).await;
        let lost = world.content("a/3");
        world.sql("DELETE FROM @contents WHERE digest = {x}; DELETE FROM @representations WHERE digest = {x}", lost);
        with(&world, None, async |with| {
            let plan = plan(with, true).await.unwrap();
            let is_counting = |action: &Action| matches!(action, Action::Recount { .. } | Action::Totals);
            let first: Vec<_> = plan.actions.into_iter().filter(|action| !is_counting(action)).collect();
            assert_eq!(apply(with, &first).await.unwrap(), [Applied::Done]);
        })
        .await;
        // A name that comes and goes does not use its references up.
        let metadata = &world.stores.metadata;
        let unused = metadata.condemn(vec![lost], FAR_FUTURE).await.unwrap();
        assert!(unused.is_empty(), "{kind}: {unused:?}");
        world.assert_all_readable().await;
        repair(&world, None).await;
        assert!(world.verify(true).await.is_whole(), "{kind}");
        world.assert_all_readable().await;
    }
}

#[tokio::test]
async fn an_object_that_goes_between_plan_and_repair_becomes_nobodys() {
    for kind in BOTH {
        let world = World::new(kind).await;
        let content = b"an upload of another life".to_vec();
        world.store(object(digest(&content)), &body(&content)).await;
        with(&world, None, async |with| {
            let plan = plan(with, true).await.unwrap();
            std::fs::remove_file(world.object(digest(&content))).unwrap();
            let applied = apply(with, &plan.actions).await.unwrap();
            assert_eq!(applied[0], Applied::Skipped("the object is gone meanwhile"));
        })
        .await;
        let report = world.verify(true).await;
        assert!(report.is_whole() && report.contents == 21, "{kind} {:?}", report.damages);
    }
}

#[tokio::test]
async fn a_made_up_generation_does_not_use_the_numbers_up() {
    for kind in BOTH {
        let mut world = World::new(kind).await;
        let content = b"made up".to_vec();
        for generation in [(1 << 40) + 1, i64::MAX.cast_unsigned()] {
            world.store(BlobKey { generation, ..object(digest(&content)) }, &body(&content)).await;
        }
        let name = format!("{}.{}", object(digest(&content)), u64::MAX);
        std::fs::write(world.dir.path().join("blobs").join(name), b"x").unwrap();
        assert!(repair(&world, None).await.actions.is_empty());
        // No names of ours: no database could hold them.
        assert_eq!(world.verify(true).await.orphans.strangers, 3);
        world.lose_database().await;
        let rebuilt = with(&world, None, async |with| rebuild(with, false).await.unwrap()).await;
        assert_eq!((rebuilt.adopted, rebuilt.strangers), (21, 3), "{kind}");
        world.put("new", b"a new content").await;
        world.names.retain(|name, _| name == "new");
        world.assert_all_readable().await;
    }
}

/// Reads of one object fail; everything else goes through.
struct BadPlace {
    inner: Arc<dyn BlobStore>,
    bad: Vec<BlobKey>,
}

#[async_trait]
impl BlobStore for BadPlace {
    fn kind(&self) -> &'static str {
        self.inner.kind()
    }

    async fn put(
        &self,
        key: &BlobKey,
        body: &s3dedup_actors::store::blob::SpooledBytes,
        info: &s3dedup_actors::model::BlobInfo,
    ) -> Result<()> {
        self.inner.put(key, body, info).await
    }

    async fn open(
        &self,
        key: &BlobKey,
        range: Option<std::ops::Range<u64>>,
    ) -> Result<Option<s3dedup_actors::store::blob::BlobReader>> {
        if self.bad.contains(key) {
            return Err(Error::new(Kind::Unavailable, "input/output error"));
        }
        self.inner.open(key, range).await
    }

    async fn stat(&self, key: &BlobKey) -> Result<Option<s3dedup_actors::model::BlobInfo>> {
        self.inner.stat(key).await
    }

    async fn delete(&self, _: &[BlobKey]) -> Result<()> {
        panic!("a repair deletes nothing")
    }

    async fn list(&self, after: Option<&str>, limit: usize) -> Result<s3dedup_actors::store::blob::BlobPage> {
        self.inner.list(after, limit).await
    }

    async fn owners(&self) -> Result<Vec<String>> {
        self.inner.owners().await
    }

    async fn add_owner(&self, owner: &str) -> Result<()> {
        self.inner.add_owner(owner).await
    }

    async fn remove_owner(&self, owner: &str) -> Result<()> {
        self.inner.remove_owner(owner).await
    }

    async fn probe(&self) -> Result<()> {
        self.inner.probe().await
    }
}

#[tokio::test]
async fn an_object_that_cannot_be_read_is_damage_and_a_store_that_cannot_is_none() {
    let mut world = World::new("sqlite").await;
    let inner = Arc::clone(&world.stores.contents);
    let bad = vec![object(world.content("a/3")), object(world.content("a/8"))];
    world.stores.contents = Arc::new(BadPlace { inner: Arc::clone(&inner), bad: bad.clone() });
    let report = world.verify(true).await;
    let mut want: Vec<_> = bad.iter().map(|key| ("unreadable", key.digest)).collect();
    want.sort();
    assert_eq!(words(&report), want);
    // What it says of the rest is not held up.
    assert_eq!(report.contents, 21);
    let shelf = Has(world.names["a/3"].clone());
    let plan = repair(&world, Some(&shelf)).await;
    assert_eq!(plan.lost.iter().map(|damage| damage.digest).collect::<Vec<_>>(), [bad[1].digest]);
    assert_eq!(words(&world.verify(true).await), [("unreadable", bad[1].digest)]);

    let faults = Faults::default();
    world.stores.contents = Arc::new(FaultyBlobs { inner: Arc::clone(&inner), faults: faults.clone() });
    faults.set(Fault::Down);
    assert_eq!(world.try_verify(true).await.unwrap_err().kind(), Kind::Unavailable);
    // It lists and gives nothing out.
    let all = world.stores.metadata.survey(Vec::new(), 100).await.unwrap().contents;
    let all: Vec<_> = all.iter().map(|content| object(content.digest)).collect();
    world.stores.contents = Arc::new(BadPlace { inner, bad: all });
    assert_eq!(world.try_verify(true).await.unwrap_err().kind(), Kind::Unavailable);
}

/// Has one content, under whatever name.
struct Has(Vec<u8>);

#[async_trait(?Send)]
impl Fallback for Has {
    async fn sources(&self, _: Digest, names: &[EntryKey]) -> Result<Vec<Source>> {
        Ok(names.iter().cloned().map(Source::Name).collect())
    }

    async fn fetch(&self, _: &Source) -> Result<Option<Spooled>> {
        Ok(Some(body(&self.0)))
    }
}

/// Does not answer.
struct Down;

#[async_trait(?Send)]
impl Fallback for Down {
    async fn sources(&self, _: Digest, _: &[EntryKey]) -> Result<Vec<Source>> {
        Err(Error::new(Kind::Unavailable, "down"))
    }

    async fn fetch(&self, _: &Source) -> Result<Option<Spooled>> {
        Err(Error::new(Kind::Unavailable, "down"))
    }
}

#[tokio::test]
async fn a_fallback_that_fails_does_not_keep_the_rest_from_being_put_right() {
    let world = World::new("sqlite").await;
    let [broken, count] = ["a/3", "a/12"].map(|name| world.content(name));
    flip(&world, broken);
    world.sql("UPDATE @contents SET refs = 7 WHERE digest = {x}", count);
    let plan = repair(&world, Some(&Down)).await;
    assert_eq!(plan.lost.len(), 1);
    assert_eq!(words(&world.verify(true).await), [("wrong-content", broken)]);
    // Later it answers: quarantine did no harm.
    repair(&world, Some(&Has(world.names["a/3"].clone()))).await;
    assert!(world.verify(true).await.is_whole());
    world.assert_all_readable().await;
}

#[tokio::test]
async fn another_store_gives_any_object_that_verifies() {
    let dir = tempfile::tempdir().unwrap();
    let settings = FolderSettings { root: dir.path().join("copy"), write_threads: 1, read_threads: 1 };
    let copy: Arc<dyn BlobStore> = Arc::new(FolderStore::open(&settings).unwrap());
    let limits = SpoolLimits {
        memory_bytes_max: 1000,
        temp_dir: PathBuf::from(dir.path()),
        files_are_kept: false,
        logical_bytes_max: 1 << 30,
        compression_level: 1,
    };
    for kind in BOTH {
        let world = World::new(kind).await;
        let [third, seventh, lying, absent] = ["a/3", "a/7", "a/11", "a/13"].map(|name| world.content(name));
        for damaged in [third, seventh, lying, absent] {
            flip(&world, damaged);
        }
        let put = async |generation, depth, digest, content: &[u8]| {
            let key = BlobKey { digest, generation, layout: KeyLayout::new(depth) };
            let body = body(content);
            let info = s3dedup_actors::model::BlobInfo { digest, ..body.info() };
            copy.put(&key, &body.bytes, &info).await.unwrap();
            settings.root.join(key.to_string())
        };
        // Of another upload and another layout, beside one that is broken.
        put(0, 2, third, b"not this").await;
        put(9, 0, third, &world.names["a/3"]).await;
        let bare = put(2, 1, seventh, &world.names["a/7"]).await;
        std::fs::remove_file(format!("{}.json", bare.display())).unwrap();
        // It holds the content, and says something else of itself.
        let file = put(0, 2, lying, &world.names["a/11"]).await;
        let file = format!("{}.json", file.display());
        let description = std::fs::read_to_string(&file).unwrap();
        let (before, after) = description.split_once("blake3\":\"").unwrap();
        std::fs::write(&file, format!("{before}blake3\":\"{}\"}}", "5".repeat(after.len() - 2))).unwrap();
        let before = world.names.len();
        let other = OtherStore::new(Arc::clone(&copy), limits.clone(), 1).unwrap();
        let plan = repair(&world, Some(&other)).await;
        let mut lost: Vec<_> = plan.lost.iter().map(|damage| damage.digest).collect();
        lost.sort();
        let mut want = vec![lying, absent];
        want.sort();
        assert_eq!((lost, before), (want, world.names.len()), "{kind}");
        for name in ["a/3", "a/7"] {
            assert!(world.get(name).await.unwrap().as_ref() == Some(&world.names[name]));
        }
    }
}

#[tokio::test]
async fn quarantine_is_left_only_while_another_object_is_whole() {
    for kind in BOTH {
        let world = World::new(kind).await;
        let [broken, hopeless] = ["a/3", "a/7"].map(|name| world.content(name));
        flip(&world, broken);
        flip(&world, hopeless);
        repair(&world, Some(&Has(world.names["a/3"].clone()))).await;
        let (stores, examiner): (&Stores, _) = (&world.stores, examiner());
        let give_up = async |digest| give_up(stores, &examiner, object(digest)).await.unwrap();
        assert!(matches!(give_up(hopeless).await, GivenUp::Kept(why) if why.contains("only known object")));
        assert!(matches!(give_up(digest(b"unknown")).await, GivenUp::Kept(why) if why.contains("unknown")));
        // The good one goes bad: the other one may be what there is to learn from.
        let now = stores.metadata.lookup(key("a/3")).await.unwrap().unwrap();
        let s3dedup_actors::model::Recipe::Whole(blob) = &now.recipe else { unreachable!() };
        let file = world.dir.path().join("blobs").join(blob.key.to_string());
        let bytes = std::fs::read(&file).unwrap();
        std::fs::write(&file, &bytes[1..]).unwrap();
        assert!(matches!(give_up(broken).await, GivenUp::Kept(why) if why.contains("damaged, too")));
        std::fs::write(&file, &bytes).unwrap();
        assert_eq!(give_up(broken).await, GivenUp::Condemned);
        assert!(matches!(give_up(broken).await, GivenUp::Kept(_)));
        assert_eq!(stores.metadata.list_condemned(None, 10).await.unwrap(), [object(broken)]);
        assert_eq!(words(&world.verify(true).await), [("wrong-content", hopeless)], "{kind}");
    }
}

#[tokio::test]
async fn an_import_does_not_undo_what_came_in_the_same_second() {
    for kind in BOTH {
        let mut world = World::new(kind).await;
        let mut lines = Vec::new();
        export(world.stores.metadata.as_ref(), &mut lines).await.unwrap();
        // Every version of this world is the same.
        world.put("a/1", b"stored after the export").await;
        let imported = import(world.stores.metadata.as_ref(), &mut lines.as_slice()).await.unwrap();
        assert_eq!((imported.restored, imported.newer, imported.missing), (29, 1, 0), "{kind}");
        world.assert_all_readable().await;
        assert!(world.verify(true).await.is_whole());
    }
}
