//! This instance among those that share its metadata: heartbeats, and what is wrong between instances.

mod actor;
mod trouble;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::timeout;

pub(crate) use actor::ClusterActor;

use crate::model::{Error, Kind, Result};
use crate::store::instances::{Instance, InstanceRegistry, Peers};

/// How long a heartbeat may take. Shorter than the pause between two.
const BEAT_MAX: Duration = Duration::from_secs(4);

/// An instance that has said that it is there. Clones are the same one.
#[derive(Clone)]
pub struct Membership(Arc<Inner>);

struct Inner {
    registry: Arc<dyn InstanceRegistry>,
    me: Instance,
    /// Tells this process from another one under the same name.
    run: i64,
    /// Whether it has left. Locked while something is said, so that no heartbeat comes after the farewell.
    is_gone: Mutex<bool>,
}

impl Membership {
    /// Says for the first time that the instance is there. [`Kind::Invalid`] when others that are live have their
    /// contents in another place: names that one writes would lead nowhere at the other.
    pub async fn join(registry: Arc<dyn InstanceRegistry>, me: Instance) -> Result<Self> {
        let membership = Self(Arc::new(Inner { registry, me, run: rand::random(), is_gone: Mutex::new(false) }));
        let Some(peers) = membership.beat().await? else { return Ok(membership) };
        if let Some(trouble) = trouble::foreign_contents(&membership.0.me, &peers) {
            // Otherwise the others notice by themselves; the refusal is what matters here.
            let _ = membership.leave().await;
            return Err(Error::new(Kind::Invalid, trouble));
        }
        Ok(membership)
    }

    /// What this instance says of itself.
    pub fn me(&self) -> &Instance {
        &self.0.me
    }

    /// One heartbeat; `None` once the instance has left.
    async fn beat(&self) -> Result<Option<Peers>> {
        let inner = &self.0;
        let beat = async {
            let is_gone = inner.is_gone.lock().await;
            if *is_gone { Ok(None) } else { inner.registry.beat(&inner.me, inner.run).await.map(Some) }
        };
        timeout(BEAT_MAX, beat).await.map_err(|_| late())?
    }

    /// Says that the instance is going; to be called last. The others see it at once instead of after a while.
    pub async fn leave(&self) -> Result<()> {
        let inner = &self.0;
        let mut is_gone = inner.is_gone.lock().await;
        *is_gone = true;
        timeout(BEAT_MAX, inner.registry.leave(&inner.me.id, inner.run)).await.map_err(|_| late())?
    }
}

fn late() -> Error {
    Error::new(Kind::Unavailable, "the metadata store does not answer in time")
}
