//! Migrations into a real engine from sources that fail on command.
#![allow(missing_docs, reason = "a test")]
#![allow(clippy::expect_used, reason = "a test that cannot be set up fails")]

#[path = "engine/support.rs"]
#[allow(dead_code, reason = "shared")]
mod support;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use s3dedup_actors::filetracker::{ListedName, NameLines, OldDownload, OldFile};
use s3dedup_actors::migrator::source::Source;
use s3dedup_actors::migrator::{Copier, Ended, MigrationPhase, MigrationPlan};
use s3dedup_actors::model::{Digest, EntryKey, Error, Kind, Result, Stamp};
use s3dedup_actors::store::meta::{
    ClaimId, Claimed, MigrationJournal, MigrationState, MirrorJournal, SqliteSettings, SqliteStore,
};
use s3dedup_actors::{BesideSettings, BodyEncoding};

use support::{TestEngine, key};

/// Files by name: version and content.
#[derive(Default)]
struct Shelf {
    files: Mutex<BTreeMap<String, (i64, Vec<u8>)>>,
    /// Nothing answers.
    is_down: AtomicBool,
    /// This many more openings break off in the middle.
    breaks: AtomicUsize,
    opened: AtomicUsize,
    /// Names that are listed and always fail.
    broken: Vec<String>,
    /// This many more listings break off after the first name.
    cuts: AtomicUsize,
    listed: AtomicUsize,
}

impl Shelf {
    fn with(files: &[(&str, i64, &str)]) -> Self {
        let shelf = Self::default();
        for (name, stamp, content) in files {
            shelf.set(name, *stamp, content);
        }
        shelf
    }

    fn set(&self, name: &str, stamp: i64, content: &str) {
        self.files.lock().expect("files").insert(name.to_owned(), (stamp, content.as_bytes().to_vec()));
    }

    fn expect_up(&self) -> Result<()> {
        if self.is_down.load(Ordering::SeqCst) { Err(Error::new(Kind::Unavailable, "down")) } else { Ok(()) }
    }

    fn find(&self, name: &EntryKey) -> Option<(OldFile, Vec<u8>)> {
        let (stamp, content) = self.files.lock().expect("files").get(name.name())?.clone();
        let size = Some(content.len() as u64);
        let stamp = Stamp::from_seconds(stamp);
        let encoding = BodyEncoding::Plain;
        Some((OldFile { stamp, logical_size: size, length: size, encoding, tag: None, is_young: false }, content))
    }
}

#[async_trait]
impl Source for Shelf {
    fn kind(&self) -> &'static str {
        "shelf"
    }

    fn place(&self) -> String {
        "here".into()
    }

    async fn probe(&self) -> Result<()> {
        self.expect_up()
    }

    async fn list(&self) -> Result<NameLines> {
        self.expect_up()?;
        let names: Vec<_> = self.files.lock().expect("files").keys().cloned().chain(self.broken.clone()).collect();
        let names: Vec<_> = names.iter().map(|name| ListedName::Name(key(name))).collect();
        let cuts = |count: usize| count.checked_sub(1);
        self.listed.fetch_add(1, Ordering::SeqCst);
        if self.cuts.fetch_update(Ordering::SeqCst, Ordering::SeqCst, cuts).is_ok() {
            let first = Vec::from_iter(names.into_iter().take(1));
            return Ok(stream::iter([Ok(first), Err(Error::new(Kind::Unavailable, "broke off"))]).boxed());
        }
        let odd = ListedName::Odd { line: "odd\none".into(), why: "a reason".into() };
        Ok(stream::iter([Ok(names), Ok(vec![odd])]).boxed())
    }

    fn is_listed_in_haste(&self) -> bool {
        true
    }

    async fn head(&self, name: &EntryKey) -> Result<Option<OldFile>> {
        self.expect_up()?;
        Ok(self.find(name).map(|(file, _)| file))
    }

    async fn open(&self, name: &EntryKey) -> Result<Option<OldDownload>> {
        self.opened.fetch_add(1, Ordering::SeqCst);
        self.expect_up()?;
        if self.broken.iter().any(|broken| broken == name.name()) {
            return Err(Error::new(Kind::Unavailable, "answers 500"));
        }
        let Some((file, content)) = self.find(name) else { return Ok(None) };
        let breaks = |count: usize| count.checked_sub(1);
        let mut pieces = vec![Ok(Bytes::from(content))];
        if self.breaks.fetch_update(Ordering::SeqCst, Ordering::SeqCst, breaks).is_ok() {
            pieces.push(Err(Error::new(Kind::Unavailable, "cut off")));
        }
        Ok(Some(OldDownload { file, stream: stream::iter(pieces).boxed() }))
    }
}

/// A journal of its own: the engine's store is behind a wrapper that fails on command.
fn journal() -> (Arc<dyn MigrationJournal>, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a folder");
    let settings = SqliteSettings { path: dir.path().join("journal.db"), connections: 2, backlog: 64 };
    (Arc::new(SqliteStore::open(&settings).expect("a database")), dir)
}

fn copier(test: &TestEngine, journal: &Arc<dyn MigrationJournal>, source: &Arc<Shelf>) -> Copier {
    let plan = MigrationPlan { source: Arc::clone(source) as _, concurrency: 3, holder: "test".into() };
    Copier::new(test.engine.clone(), Arc::clone(journal), plan)
}

async fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(30), wait).await.is_ok(), "waited in vain: {what}");
}

#[actix_rt::test]
async fn what_a_listing_named_before_it_broke_off_is_copied_before_it_is_whole() {
    let test = TestEngine::start();
    let (journal, _dir) = journal();
    let shelf = Arc::new(Shelf::with(&[("a", 5, "one"), ("b", 5, "two")]));
    shelf.cuts.store(usize::MAX, Ordering::SeqCst);
    let copier = copier(&test, &journal, &shelf);
    let run = {
        let copier = copier.clone();
        actix_rt::spawn(async move { copier.run().await })
    };
    eventually("the first is copied", || shelf.opened.load(Ordering::SeqCst) == 1).await;
    assert!(shelf.listed.load(Ordering::SeqCst) >= 3);
    eventually("it is listed again", || shelf.listed.load(Ordering::SeqCst) > 3).await;
    assert!(copier.progress().snapshot().is_active());
    shelf.cuts.store(0, Ordering::SeqCst);
    let Ended::Done(done) = run.await.expect("a task").expect("an end") else { panic!("not done") };
    assert_eq!((done.counts.copied, done.counts.failed), (2, 1));
    for (name, content) in [("a", "one"), ("b", "two")] {
        assert_eq!(test.get(name).await.expect("a read"), Some((5, content.as_bytes().to_vec())));
    }
}

#[actix_rt::test]
async fn files_are_copied_once_and_troubles_are_noted() {
    let test = TestEngine::start();
    let (journal, _dir) = journal();
    let mut shelf = Shelf::with(&[("a", 5, "one"), ("b", 5, "one"), ("c/d", -7, "two"), ("newer here", 5, "old")]);
    shelf.broken.push("broken".into());
    shelf.breaks.store(2, Ordering::SeqCst);
    let shelf = Arc::new(shelf);
    test.put("newer here", 6, b"new").await.expect("a put");
    let first = copier(&test, &journal, &shelf);
    let Ended::Done(done) = first.run().await.expect("an end") else { panic!("not done") };
    let counts = done.counts;
    assert_eq!((counts.total, counts.copied, counts.skipped, counts.failed), (6, 3, 1, 2));
    assert_eq!((counts.copied_bytes, counts.contents, done.state), (9, 2, MigrationState::Done));
    assert_eq!(test.get("b").await.expect("a read"), Some((5, b"one".to_vec())));
    assert_eq!(test.get("c/d").await.expect("a read"), Some((-7, b"two".to_vec())));
    assert_eq!(test.get("newer here").await.expect("a read"), Some((6, b"new".to_vec())));
    let troubles = journal.troubles(done.id, None, 10).await.expect("troubles");
    let troubles: Vec<_> = troubles.iter().map(|one| (one.name.as_str(), one.reason.as_str(), one.attempts)).collect();
    assert_eq!(troubles, [("broken", "answers 500", 5), ("odd one", "a reason", 1)]);
    // Three files, two that broke off, five attempts at what is broken.
    assert_eq!(shelf.opened.load(Ordering::SeqCst), 3 + 2 + 5);
    let now = first.progress().snapshot();
    assert_eq!((now.phase, now.counts, now.retries), (MigrationPhase::Done, counts, 6));

    shelf.set("a", 6, "three");
    let Ended::Done(again) = copier(&test, &journal, &shelf).run().await.expect("an end") else { panic!("not done") };
    assert_eq!((again.counts.copied, again.counts.skipped), (1, 3));
    assert_eq!(journal.migration(done.id).await.expect("a read"), None, "the former one is forgotten");
    drop(first);
    test.stop().await;
}

#[actix_rt::test]
async fn an_outage_fails_no_file() {
    let test = TestEngine::start();
    let (journal, _dir) = journal();
    let shelf = Arc::new(Shelf::with(&[("a", 5, "one"), ("b", 5, "two")]));
    shelf.is_down.store(true, Ordering::SeqCst);
    let copier = copier(&test, &journal, &shelf);
    let progress = copier.progress().clone();
    let run = actix_rt::spawn(async move { copier.run().await });
    eventually("it waits for the source", || progress.snapshot().waits_for.is_some()).await;
    // Then this store is away.
    test.meta_faults.set(s3dedup_actors::testkit::faulty::Fault::Down);
    shelf.is_down.store(false, Ordering::SeqCst);
    eventually("it waits for this store", || {
        progress.snapshot().waits_for.is_some_and(|what| what.starts_with("this store"))
    })
    .await;
    test.meta_faults.set(s3dedup_actors::testkit::faulty::Fault::None);
    let Ended::Done(done) = run.await.expect("a task").expect("an end") else { panic!("not done") };
    assert_eq!((done.counts.copied, done.counts.failed), (2, 1));
    assert_eq!(progress.snapshot().waits_for, None);
    test.stop().await;
}

#[actix_rt::test]
async fn what_was_stopped_goes_on_and_settles_each_name_once() {
    let test = TestEngine::start();
    let (journal, _dir) = journal();
    let shelf = Shelf::default();
    for number in 0..500 {
        shelf.set(&format!("{number}"), 5, &format!("content {}", number % 300));
    }
    let shelf = Arc::new(shelf);
    let mut runs = 0;
    let done = loop {
        runs += 1;
        let copier = copier(&test, &journal, &shelf);
        let progress = copier.progress().clone();
        let running = copier.clone();
        let run = actix_rt::spawn(async move { running.run().await });
        if runs < 4 {
            let goal = runs * 100;
            eventually("some are copied", || progress.snapshot().counts.settled() > goal).await;
            copier.stop();
        }
        match run.await.expect("a task").expect("an end") {
            Ended::Done(done) => break done,
            ended => assert_eq!((ended, progress.snapshot().phase), (Ended::Stopped, MigrationPhase::Stopped)),
        }
    };
    assert!(runs > 1, "it was never stopped");
    let counts = done.counts;
    assert_eq!((counts.total, counts.settled(), counts.copied), (501, 501, 500));
    assert_eq!((counts.contents, shelf.opened.load(Ordering::SeqCst)), (300, 500));
    test.stop().await;
}

#[actix_rt::test]
async fn two_who_share_the_journal_do_not_copy_at_once() {
    use s3dedup_actors::store::meta::PostgresStore;
    use s3dedup_actors::testkit::postgres::PostgresServer;
    let server = PostgresServer::start();
    let test = TestEngine::start();
    let store = PostgresStore::open(&server.access(), 4, 64).await.expect("a database");
    let journal: Arc<dyn MigrationJournal> = Arc::new(store);
    let shelf = Arc::new(Shelf::with(&[("a", 5, "one")]));
    shelf.is_down.store(true, Ordering::SeqCst);
    let first = copier(&test, &journal, &shelf);
    let progress = first.progress().clone();
    let run = actix_rt::spawn(async move { first.run().await });
    eventually("the first is at it", || progress.snapshot().waits_for.is_some()).await;
    let plan = MigrationPlan { source: Arc::clone(&shelf) as _, concurrency: 1, holder: "another".into() };
    let second = Copier::new(test.engine.clone(), Arc::clone(&journal), plan);
    assert_eq!(second.run().await.expect("an end"), Ended::Busy);
    shelf.is_down.store(false, Ordering::SeqCst);
    assert!(matches!(run.await.expect("a task").expect("an end"), Ended::Done(_)));
    assert!(matches!(second.run().await.expect("an end"), Ended::Done(_)), "its turn was given up");
    drop(second);
    test.stop().await;
}

#[actix_rt::test]
async fn the_actor_migrates_survives_a_panic_and_is_shown() {
    let mut test = TestEngine::start();
    let (journal, _dir) = journal();
    let shelf = Shelf::default();
    for number in 0..200 {
        shelf.set(&format!("{number}"), 5, &format!("content {number}"));
    }
    let shelf = Arc::new(shelf);
    assert!(test.engine.migration().is_none());
    let plan = MigrationPlan { source: Arc::clone(&shelf) as _, concurrency: 2, holder: "test".into() };
    test.migrate(journal, plan);
    let settled = |test: &TestEngine| test.engine.migration().expect("a migration").counts.settled();
    eventually("it copies", || settled(&test) > 20).await;
    test.strike("migrator");
    eventually("it is done", || test.engine.migration().expect("a migration").phase == MigrationPhase::Done).await;
    let now = test.engine.migration().expect("a migration");
    assert_eq!((now.counts.total, now.counts.settled()), (201, 201));
    let tree = test.engine.actors();
    let migrator = tree.children.iter().find(|child| child.name == "migrator").expect("an actor");
    assert_eq!(migrator.load, [("pending", 0)]);
    assert_eq!(test.list("").await.len(), 200);
    test.stop().await;
}

#[actix_rt::test]
async fn an_engine_ends_in_the_middle_of_a_migration() {
    let mut test = TestEngine::start();
    let (journal, _dir) = journal();
    let shelf = Shelf::default();
    for number in 0..5000 {
        shelf.set(&format!("{number}"), 5, &format!("content {number}"));
    }
    let plan = MigrationPlan { source: Arc::new(shelf), concurrency: 2, holder: "test".into() };
    test.migrate(Arc::clone(&journal), plan);
    eventually("it copies", || test.engine.migration().expect("a migration").counts.settled() > 20).await;
    test.end().await;
    let noted = journal.begin_migration("shelf", "here".into()).await.expect("a migration");
    assert_eq!(noted.state, MigrationState::Copying);
    assert!(noted.counts.settled() > 20, "what was done is noted");
}

/// A source that is being told of each file, by somebody who writes it here, while it hands it out.
struct Told {
    shelf: Shelf,
    journal: Arc<SqliteStore>,
}

#[async_trait]
impl Source for Told {
    fn kind(&self) -> &'static str {
        self.shelf.kind()
    }

    fn place(&self) -> String {
        self.shelf.place()
    }

    async fn probe(&self) -> Result<()> {
        self.shelf.probe().await
    }

    async fn list(&self) -> Result<NameLines> {
        self.shelf.list().await
    }

    async fn head(&self, name: &EntryKey) -> Result<Option<OldFile>> {
        self.shelf.head(name).await
    }

    async fn open(&self, name: &EntryKey) -> Result<Option<OldDownload>> {
        let (claim, lease) = (ClaimId(7), Duration::from_secs(600));
        self.journal.mark(name.clone()).await?;
        assert!(matches!(self.journal.claim_mark(name.clone(), claim, lease).await?, Claimed::Yes(_)));
        let digest = Digest::from_bytes([7; 32]);
        assert!(self.journal.begin_telling(name.clone(), claim, digest, lease).await?);
        self.shelf.open(name).await
    }
}

#[actix_rt::test]
async fn what_the_old_server_is_being_told_while_it_is_read_is_not_copied() {
    let mut test = TestEngine::start();
    let dir = tempfile::tempdir().expect("a folder");
    let settings = SqliteSettings { path: dir.path().join("journal.db"), connections: 2, backlog: 64 };
    let journal = Arc::new(SqliteStore::open(&settings).expect("a database"));
    let shelf = Shelf::with(&[("a", 2_000_000_000, "told, in a version of its own")]);
    let source = Arc::new(Told { shelf, journal: Arc::clone(&journal) });
    let sources = vec![Arc::clone(&source) as _];
    test.stand_beside(BesideSettings { sources, server: None, journal: Arc::clone(&journal) as _, concurrency: 1 });
    let plan = MigrationPlan { source, concurrency: 1, holder: "test".into() };
    let Ended::Done(done) = Copier::new(test.engine.clone(), journal, plan).run().await.expect("an end") else {
        panic!("not done")
    };
    assert_eq!((done.counts.copied, done.counts.skipped), (0, 1));
    assert_eq!(test.get("a").await.expect("a read"), None);
}
