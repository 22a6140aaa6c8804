//! The most shared contents. Finding them takes a look at all contents, part by part beside everything else, so the answer is
//! kept for a while.

use std::cmp::Reverse;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use s3dedup_actors::model::{Error, Kind, Result};
use s3dedup_actors::store::meta::{MetaBrowser, SharedContent, SharedPart};
use tokio::sync::Notify;

/// How many are shown.
const ROWS: usize = 50;
/// Rows that the store looks at together: some tens of milliseconds.
const PART: usize = 100_000;
/// How long an answer is good at least.
const AGE_MIN: Duration = Duration::from_secs(60);
/// An answer is good for so many times as long as it took.
const AGE_PER_TIME: u32 = 200;
/// How long a person waits for an answer that is being made.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// Asks for them, seldom.
pub struct Shared {
    browser: Arc<dyn MetaBrowser>,
    state: Arc<State>,
    wait_max: Duration,
}

#[derive(Default)]
struct State {
    now: Mutex<Now>,
    /// Woken when an answer is there, or will not be.
    changed: Notify,
}

#[derive(Default)]
struct Now {
    known: Option<Known>,
    is_asking: bool,
}

struct Known {
    asked: Instant,
    good_for: Duration,
    answer: Result<Arc<Vec<SharedContent>>, String>,
}

/// Held while the store is asked, so that the end of it is told however it ends.
struct Asking(Arc<State>);

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.lock().is_asking = false;
        self.0.changed.notify_waiters();
    }
}

impl State {
    fn lock(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// Nothing is asked yet.
    pub fn new(browser: Arc<dyn MetaBrowser>) -> Self {
        Self { browser, state: Arc::default(), wait_max: WAIT_MAX }
    }

    /// The contents that most names hold, and how old that answer is. However many ask, the store is asked once; who asks too
    /// early is told the answer before this one, if there is one. A failure is kept as long as an answer.
    pub async fn most(&self) -> Result<(Arc<Vec<SharedContent>>, Duration)> {
        let end = tokio::time::Instant::now() + self.wait_max;
        let mut is_late = false;
        loop {
            let mut changed = std::pin::pin!(self.state.changed.notified());
            changed.as_mut().enable();
            {
                let mut now = self.state.lock();
                match &now.known {
                    Some(known) if is_late || known.asked.elapsed() < known.good_for => return told(known),
                    None if is_late => {
                        return Err(Error::new(Kind::Unavailable, "the contents are still being counted"));
                    }
                    _ => {}
                }
                if !now.is_asking {
                    now.is_asking = true;
                    tokio::spawn(ask(Arc::clone(&self.browser), Asking(Arc::clone(&self.state))));
                }
            }
            is_late = tokio::time::timeout_at(end, changed).await.is_err();
        }
    }
}

fn told(known: &Known) -> Result<(Arc<Vec<SharedContent>>, Duration)> {
    let failed = |line: &String| Error::new(Kind::Unavailable, line.clone());
    known.answer.as_ref().map(|found| (Arc::clone(found), known.asked.elapsed())).map_err(failed)
}

async fn ask(browser: Arc<dyn MetaBrowser>, asking: Asking) {
    let asked = Instant::now();
    let answer = found(browser.as_ref()).await.map_err(|error| error.context().to_owned());
    let good_for = AGE_MIN.max(asked.elapsed() * AGE_PER_TIME);
    asking.0.lock().known = Some(Known { asked, good_for, answer: answer.map(Arc::new) });
}

async fn found(browser: &dyn MetaBrowser) -> Result<Vec<SharedContent>> {
    let mut best: Vec<SharedContent> = Vec::new();
    let mut part = SharedPart { after: None, looked_at: PART, rows: ROWS };
    loop {
        let begun = Instant::now();
        let page = browser.most_shared(part).await?;
        best.extend(page.contents);
        best.sort_unstable_by_key(|it| (Reverse(it.names), it.digest));
        best.truncate(ROWS);
        let Some(next) = page.next else { return Ok(best) };
        part.after = Some(next);
        // Half of the time of one reader at most.
        tokio::time::sleep(begun.elapsed()).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;
    use s3dedup_actors::model::{Digest, Namespace};
    use s3dedup_actors::store::meta::{FileRow, FilesPage, SharedPage};

    use super::*;

    /// Counts how often it is asked; fails the first time. It has two parts, and the second waits until it may go on.
    #[derive(Default)]
    struct Parts {
        asked: AtomicUsize,
        may_end: Arc<Notify>,
    }

    fn content(byte: u8, names: u64) -> SharedContent {
        SharedContent { digest: Digest::from_bytes([byte; 32]), names, logical_size: Some(1), stored_size: Some(1) }
    }

    #[async_trait]
    impl MetaBrowser for Parts {
        async fn files(&self, _: FilesPage) -> Result<Vec<FileRow>> {
            Ok(Vec::new())
        }

        async fn names_of(&self, _: Namespace, _: Digest, _: usize) -> Result<Vec<String>> {
            Ok(Vec::new())
        }

        async fn most_shared(&self, part: SharedPart) -> Result<SharedPage> {
            tokio::time::sleep(Duration::from_millis(5)).await;
            if self.asked.fetch_add(1, Ordering::SeqCst) == 0 {
                return Err(Error::new(Kind::Unavailable, "away"));
            }
            if part.after.is_none() {
                let contents = (0..ROWS as u8).map(|byte| content(byte, 5)).collect();
                return Ok(SharedPage { contents, next: Some(Digest::from_bytes([0x7f; 32])) });
            }
            self.may_end.notified().await;
            Ok(SharedPage { contents: vec![content(0xf0, 9), content(0xf1, 5)], next: None })
        }
    }

    fn is_old(shared: &Shared) {
        shared.state.lock().known.as_mut().unwrap().good_for = Duration::ZERO;
    }

    #[actix_rt::test]
    async fn however_many_look_the_store_is_asked_once_and_nobody_waits_for_long() {
        let store = Arc::new(Parts::default());
        let mut shared = Shared::new(Arc::clone(&store) as _);
        let all = futures_util::future::join_all((0..20).map(|_| shared.most())).await;
        assert!(all.iter().all(|answer| answer.as_ref().is_err_and(|error| error.context() == "away")));
        assert_eq!(store.asked.load(Ordering::SeqCst), 1);

        shared.state.lock().known = None;
        shared.wait_max = Duration::from_millis(50);
        assert_eq!(shared.most().await.unwrap_err().kind(), Kind::Unavailable, "the second part is not there yet");
        store.may_end.notify_one();
        shared.wait_max = Duration::from_secs(60);
        let (found, _) = shared.most().await.unwrap();
        assert_eq!((found.len(), found[0], found[1]), (ROWS, content(0xf0, 9), content(0, 5)), "the best of all parts");
        assert_eq!(store.asked.load(Ordering::SeqCst), 3, "the same question went on");

        is_old(&shared);
        shared.wait_max = Duration::from_millis(50);
        assert_eq!(shared.most().await.unwrap().0.len(), ROWS, "the answer before, until the next is there");
    }
}
