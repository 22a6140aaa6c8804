//! Refusing contents that are not those of the database, before any client is served.

use std::time::Duration;

use s3dedup_actors::store::blob::BlobStore;
use s3dedup_actors::store::instances::InstanceRegistry;
use s3dedup_actors::store::meta::MetaStore;
use s3dedup_actors::store::tie::{self, TiedStore, Untied};

use super::{StartError, membership};
use crate::config::Config;

/// What a rebuild does alone (see [`MetaStore::lead`]).
pub const REBUILD: &str = "rebuild";

/// Refuses a database that instances share when it is not that of these contents, or when it is being rebuilt. With
/// [`tie()`] all that `server` and the commands that write ask about before they touch anything.
pub async fn check_place(
    config: &Config,
    metadata: &dyn MetaStore,
    registry: &dyn InstanceRegistry,
) -> Result<(), StartError> {
    membership::check_contents(config, registry).await?;
    // To give up what one does not have changes nothing, and is refused while somebody else has it.
    let asked = metadata.lead(REBUILD, "(nobody)", Duration::ZERO).await;
    match asked.map_err(|error| StartError::new(format!("cannot read the database error=\"{error}\"")))? {
        true => Ok(()),
        false => {
            Err(StartError::new("the database is being rebuilt (s3dedup repair --rebuild): wait until that is done"))
        }
    }
}

/// Ties the stores. A content store that does not answer is let pass: clients are told 503 until it does, and it takes
/// nothing before it is known to belong to the database.
pub async fn tie(contents: &TiedStore) -> Result<(), StartError> {
    match contents.tie().await {
        Err(Untied::Contents(error)) => {
            log::warn!("cannot see whether the contents are those of the database error=\"{error}\"");
            Ok(())
        }
        tied => tied.map_err(|untied| StartError::new(untied.to_string())),
    }
}

/// The same for somebody who only looks; what an empty store means is left to him.
pub async fn look(metadata: &dyn MetaStore, contents: &dyn BlobStore) -> Result<Match, StartError> {
    match tie::look(metadata, contents).await {
        Ok(()) => Ok(Match::Good),
        Err(Untied::Emptied(why)) => Ok(Match::Emptied(why)),
        Err(untied) => Err(StartError::new(untied.to_string())),
    }
}

/// Whether a database and contents belong together, as far as can be seen.
pub enum Match {
    /// They do.
    Good,
    /// The content store is empty, though the database knows contents; says what to do.
    Emptied(String),
}
