//! The most shared contents. Finding them takes a look at all contents, so the answer is kept for a while.

use std::sync::Arc;
use std::time::{Duration, Instant};

use s3dedup_actors::model::{Error, Kind, Result};
use s3dedup_actors::store::meta::{MetaBrowser, SharedContent};
use tokio::sync::Mutex;
use tokio::time::timeout;

/// How many are shown.
const ROWS: usize = 50;
/// How long an answer is good at least.
const AGE_MIN: Duration = Duration::from_secs(60);
/// An answer is good for so many times as long as it took: the store is busy with it for half a percent of the time at most.
const AGE_PER_TIME: u32 = 200;
/// How long the store may take.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// Asks for them, seldom.
pub struct Shared {
    browser: Arc<dyn MetaBrowser>,
    /// Locked while the store is asked: others wait for the same answer.
    known: Mutex<Option<Known>>,
}

struct Known {
    asked: Instant,
    good_for: Duration,
    answer: Result<Arc<Vec<SharedContent>>, String>,
}

impl Shared {
    /// Nothing is asked yet.
    pub fn new(browser: Arc<dyn MetaBrowser>) -> Self {
        Self { browser, known: Mutex::default() }
    }

    /// The contents that most names hold, and how old that answer is. A failure is kept as long as an answer.
    pub async fn most(&self) -> Result<(Arc<Vec<SharedContent>>, Duration)> {
        let mut known = self.known.lock().await;
        let fresh = known.take().filter(|known| known.asked.elapsed() < known.good_for);
        let now = match fresh {
            Some(now) => now,
            None => self.ask().await,
        };
        let now = known.insert(now);
        let failed = |line: &String| Error::new(Kind::Unavailable, line.clone());
        now.answer.as_ref().map(|found| (Arc::clone(found), now.asked.elapsed())).map_err(failed)
    }

    async fn ask(&self) -> Known {
        let asked = Instant::now();
        let answer = timeout(WAIT_MAX, self.browser.most_shared(ROWS)).await;
        let late = |_| "finding the most shared contents takes too long".to_owned();
        let answer = answer.map_err(late).and_then(|found| found.map_err(|error| error.context().to_owned()));
        let good_for = AGE_MIN.max(asked.elapsed() * AGE_PER_TIME);
        Known { asked, good_for, answer: answer.map(Arc::new) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;
    use s3dedup_actors::model::{Digest, Namespace};
    use s3dedup_actors::store::meta::{FileRow, FilesPage};

    use super::*;

    /// Counts how often it is asked; fails the first time.
    #[derive(Default)]
    struct Counting(AtomicUsize);

    #[async_trait]
    impl MetaBrowser for Counting {
        async fn files(&self, _: FilesPage) -> Result<Vec<FileRow>> {
            Ok(Vec::new())
        }

        async fn names_of(&self, _: Namespace, _: Digest, _: usize) -> Result<Vec<String>> {
            Ok(Vec::new())
        }

        async fn most_shared(&self, _: usize) -> Result<Vec<SharedContent>> {
            tokio::time::sleep(Duration::from_millis(5)).await;
            match self.0.fetch_add(1, Ordering::SeqCst) {
                0 => Err(Error::new(Kind::Unavailable, "away")),
                _ => Ok(Vec::new()),
            }
        }
    }

    #[actix_rt::test]
    async fn however_many_look_the_store_is_asked_once() {
        let store = Arc::new(Counting::default());
        let shared = Shared::new(Arc::clone(&store) as _);
        let all = futures_util::future::join_all((0..20).map(|_| shared.most())).await;
        assert!(all.iter().all(|answer| answer.as_ref().is_err_and(|error| error.context() == "away")));
        assert_eq!(store.0.load(Ordering::SeqCst), 1);
        shared.known.lock().await.as_mut().unwrap().good_for = Duration::ZERO;
        assert!(shared.most().await.is_ok() && shared.most().await.is_ok());
        assert_eq!(store.0.load(Ordering::SeqCst), 2);
    }
}
