//! The marks of the databases that own the bucket.

use s3::command::Command;

use super::S3Store;
use super::retry::Patience;
use super::upload::stored_etag;
use crate::model::Result;
use crate::store::blob::{OWNERS_PREFIX, owner_note};

impl S3Store {
    /// Makes a mark.
    pub(super) async fn put_owner(&self, owner: &str) -> Result<()> {
        let (wire, path, note) = (self.wire(), format!("{OWNERS_PREFIX}{owner}"), owner_note(owner));
        let attempt = || async {
            let content = note.as_bytes();
            let command =
                Command::PutObject { content, content_type: "text/plain", custom_headers: None, multipart: None };
            stored_etag(&wire.send(&path, command).await?)
        };
        let made = Patience::small(&wire.settings().timeouts).run(attempt).await;
        made.map(drop).map_err(|fault| fault.into_error(&format!("put {path}")))
    }

    /// Removes a mark.
    pub(super) async fn delete_owner(&self, owner: &str) -> Result<()> {
        let (wire, path) = (self.wire(), format!("{OWNERS_PREFIX}{owner}"));
        let attempt = || wire.send(&path, Command::DeleteObject);
        match Patience::small(&wire.settings().timeouts).run(attempt).await {
            Ok(_) => Ok(()),
            Err(fault) if fault.refusal().is_some_and(|refusal| refusal.code == "NoSuchKey") => Ok(()),
            Err(fault) => Err(fault.into_error(&format!("delete {path}"))),
        }
    }
}
