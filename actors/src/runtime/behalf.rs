//! On whose behalf something is done, so that every line of the log can name the request it belongs to.
//!
//! A front end sets it around the work for a request. It follows that work by itself as long as it stays in one task. Where
//! work changes threads it is taken along by hand: as a field of messages to actors, and by whatever queues jobs for threads
//! or spawns tasks. What no request asked for is nobody's.

use crate::model::RequestId;

tokio::task_local! {
    static CURRENT: Behalf;
}

/// The request that something is done for, or nobody's.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Behalf(Option<RequestId>);

impl Behalf {
    /// Of this request.
    pub fn of(id: RequestId) -> Self {
        Self(Some(id))
    }

    /// Of whatever the present work is done for.
    pub fn current() -> Self {
        CURRENT.try_with(Clone::clone).unwrap_or_default()
    }

    /// The request, if it is one.
    pub fn id(&self) -> Option<&RequestId> {
        self.0.as_ref()
    }

    /// Does `work` on its behalf, wherever it is polled.
    pub fn scope<F: Future>(self, work: F) -> impl Future<Output = F::Output> {
        CURRENT.scope(self, work)
    }

    /// Does `work` on its behalf, at once.
    pub fn enter<T>(self, work: impl FnOnce() -> T) -> T {
        CURRENT.sync_scope(self, work)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::blocking::BlockingPool;

    fn behalf(id: &str) -> Behalf {
        Behalf::of(RequestId::parse(id.as_bytes()).unwrap())
    }

    #[actix_rt::test]
    async fn work_keeps_it_over_waits_and_tasks_do_not_mix() {
        let work = |id| {
            behalf(id).scope(async move {
                for _ in 0..10 {
                    assert_eq!(Behalf::current(), behalf(id));
                    tokio::task::yield_now().await;
                }
            })
        };
        tokio::join!(work("a"), work("b"));
        assert_eq!(Behalf::current(), Behalf::default());
    }

    #[actix_rt::test]
    async fn a_job_on_another_thread_takes_it_along() {
        let pool = BlockingPool::start("test", 1, 4).unwrap();
        let seen = behalf("a").scope(pool.run(|_| Behalf::current())).await.unwrap();
        assert_eq!(seen, behalf("a"));
        assert_eq!(pool.run(|_| Behalf::current()).await.unwrap(), Behalf::default());
        let panicked: crate::model::Result<()> = behalf("b").scope(pool.run(|_| panic!("boom"))).await;
        assert!(panicked.is_err());
        assert_eq!(pool.run(|_| Behalf::current()).await.unwrap(), Behalf::default());
    }

    #[test]
    fn what_is_inside_counts_and_the_outer_one_comes_back() {
        behalf("a").enter(|| {
            Behalf::default().enter(|| assert_eq!(Behalf::current().id(), None));
            assert_eq!(Behalf::current(), behalf("a"));
        });
    }
}
