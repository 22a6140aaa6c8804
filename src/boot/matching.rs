//! Refusing contents that are not those of the database, before any client is served.

use s3dedup_actors::store::blob::BlobStore;
use s3dedup_actors::store::meta::MetaStore;
use s3dedup_actors::store::tie::{self, TiedStore, Untied};

use super::StartError;

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

/// The same for somebody who only looks.
pub async fn look(metadata: &dyn MetaStore, contents: &dyn BlobStore) -> Result<(), StartError> {
    tie::look(metadata, contents).await.map_err(|untied| StartError::new(untied.to_string()))
}
