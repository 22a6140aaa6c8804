//! Who serves: instances that share a metadata store tell each other that they are there.

use std::time::Duration;

use async_trait::async_trait;

use crate::model::{Result, Stamp};

/// An instance that was not heard of for this long counts as gone.
pub const LIVE_MAX: Duration = Duration::from_secs(15);

/// What an instance says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Instance {
    /// Its name among the instances. Stays the same when it is started again.
    pub id: String,
    /// Where clients reach it: host and port.
    pub address: String,
    /// The version of the program.
    pub version: String,
    /// Where its contents are, in words that are the same for all instances that share them.
    pub contents: String,
    /// Where its locks live: "memory" or "postgres".
    pub locks: String,
}

/// What is known of an instance.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KnownInstance {
    /// What it said last.
    pub instance: Instance,
    /// When it started.
    pub started_at: Stamp,
    /// How long ago it was last heard of, by the clock of the store.
    pub silent_for: Duration,
}

impl KnownInstance {
    /// Whether it is thought to serve.
    pub fn is_live(&self) -> bool {
        self.silent_for <= LIVE_MAX
    }
}

/// What a heartbeat learns.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Peers {
    /// The other instances that are live.
    pub live: Vec<KnownInstance>,
    /// Somebody else uses this instance's name: two configurations have the same one.
    pub is_name_taken: bool,
}

/// The list of instances, kept in the metadata store.
#[async_trait]
pub trait InstanceRegistry: Send + Sync + 'static {
    /// Says that the instance is there, and hears of the others. `run` is a number that this process has
    /// drawn by lot: it tells it from another one under the same name.
    async fn beat(&self, me: &Instance, run: i64) -> Result<Peers>;

    /// Says that the instance is going; does nothing when its name was taken by another one.
    async fn leave(&self, id: &str, run: i64) -> Result<()>;

    /// All that are known, by name; those that were not heard of for a week are forgotten.
    async fn instances(&self) -> Result<Vec<KnownInstance>>;

    /// Ties the metadata to the place of their contents, for ever: returns the place they are tied to,
    /// which is `contents` if they were tied to none.
    async fn tie_to_contents(&self, contents: &str) -> Result<String>;
}
