//! Many objects at once: a page of names, a batch of deletions.

use s3::command::Command;
use s3::serde_types::{DeleteObjectsRequest, ObjectIdentifier};
use serde::Deserialize;

use super::S3Store;
use super::fault::Fault;
use super::retry::Patience;
use super::wire::answer;
use crate::model::{BlobKey, Result};
use crate::store::blob::{BlobPage, OWNERS_PREFIX, owner_of};

/// The most that S3 lists or deletes per request.
pub(super) const BATCH_MAX: usize = 1000;

#[derive(Deserialize)]
struct ListBody {
    // Required, so that some other document is not read as an empty bucket.
    #[serde(rename = "IsTruncated")]
    is_truncated: bool,
    #[serde(rename = "Contents", default)]
    contents: Vec<ListedObject>,
}

#[derive(Deserialize)]
struct ListedObject {
    #[serde(rename = "Key")]
    key: String,
    #[serde(rename = "Size")]
    size: u64,
}

/// Deletions and errors come in any order, which a field per element name could not take.
#[derive(Deserialize)]
struct DeleteBody {
    #[serde(rename = "$value", default)]
    results: Vec<DeleteResult>,
}

#[derive(Deserialize)]
enum DeleteResult {
    Deleted,
    Error {
        #[serde(rename = "Key", default)]
        key: String,
        #[serde(rename = "Code", default)]
        code: String,
    },
    #[serde(other)]
    Other,
}

impl S3Store {
    /// One page of at most [`BATCH_MAX`] names after `after`.
    pub(super) async fn list_names(&self, after: Option<&str>, limit: usize) -> Result<BlobPage> {
        let listed = self.list_page("", after, limit).await;
        listed.and_then(|body| page(&body, after)).map_err(|fault| fault.into_error("list"))
    }

    /// The databases whose marks are here; more than one page of them is no state to be in.
    pub(super) async fn list_owners(&self) -> Result<Vec<String>> {
        let listed = self.list_page(OWNERS_PREFIX, None, BATCH_MAX).await;
        let read = |body: String| {
            let keys = listed_objects(&body)?.contents.into_iter().map(|object| object.key);
            Ok(keys.filter_map(|key| owner_of(&key).map(str::to_owned)).collect())
        };
        listed.and_then(read).map_err(|fault: Fault| fault.into_error("list the owners"))
    }

    async fn list_page(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<String, Fault> {
        let wire = self.wire();
        let attempt = || async {
            let command = Command::ListObjectsV2 {
                prefix: prefix.to_owned(),
                delimiter: None,
                continuation_token: None,
                start_after: after.map(str::to_owned),
                max_keys: Some(limit.clamp(1, BATCH_MAX)),
            };
            answer(wire.send("/", command).await?).await
        };
        Patience::small(&wire.settings().timeouts).run(attempt).await
    }

    /// Deletes at most [`BATCH_MAX`] objects.
    pub(super) async fn delete_batch(&self, keys: &[BlobKey]) -> Result<()> {
        let wire = self.wire();
        let attempt = || async {
            let objects = keys.iter().map(|key| ObjectIdentifier::new(key.to_string())).collect();
            let data = DeleteObjectsRequest { objects, quiet: false };
            answer(wire.send("/", Command::DeleteObjects { data }).await?).await
        };
        let deleted = Patience::patient(&wire.settings().timeouts).run(attempt).await;
        deleted.and_then(|body| all_deleted(&body)).map_err(|fault| fault.into_error("delete"))
    }
}

fn listed_objects(body: &str) -> Result<ListBody, Fault> {
    quick_xml::de::from_str(body).map_err(|error| Fault::Nonsense(format!("a listing cannot be read: {error}")))
}

fn page(body: &str, after: Option<&str>) -> Result<BlobPage, Fault> {
    let listed = listed_objects(body)?;
    let mut page = BlobPage { blobs: Vec::new(), strangers: Vec::new(), next: None };
    let mut last = after.map(str::to_owned);
    for object in listed.contents {
        // A server that does not sort or that ignores the start would be listed for ever.
        if last.as_ref().is_some_and(|last| object.key <= *last) {
            return Err(Fault::Nonsense("a listing is out of order".to_owned()));
        }
        match object.key.parse() {
            Ok(key) => page.blobs.push((key, object.size)),
            Err(_) if owner_of(&object.key).is_some() => {}
            Err(_) => page.strangers.push(object.key.clone()),
        }
        last = Some(object.key);
    }
    if listed.is_truncated {
        if last.as_deref() == after {
            return Err(Fault::Nonsense("a listing is empty and yet goes on".to_owned()));
        }
        page.next = last;
    }
    Ok(page)
}

fn all_deleted(body: &str) -> Result<(), Fault> {
    let unreadable = |error| Fault::Nonsense(format!("the result of a deletion cannot be read: {error}"));
    if !body.contains("<DeleteResult") {
        return Err(Fault::Nonsense("the result of a deletion is missing".to_owned()));
    }
    let deleted: DeleteBody = quick_xml::de::from_str(body).map_err(unreadable)?;
    let mut failed = deleted.results.into_iter().filter_map(|result| match result {
        DeleteResult::Error { code, .. } if code == "NoSuchKey" => None,
        DeleteResult::Error { key, code } => Some((key, code)),
        DeleteResult::Deleted | DeleteResult::Other => None,
    });
    match failed.next() {
        None => Ok(()),
        Some((key, code)) => {
            let more = failed.count();
            Err(Fault::Nonsense(format!("{key} was not deleted: {code:?}, nor were {more} others")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(truncated: bool, keys: &[&str]) -> String {
        let contents = keys.iter().map(|key| {
            format!("<Contents><Key>{key}</Key><LastModified>x</LastModified><ETag>&quot;e&quot;</ETag><Size>3</Size></Contents>")
        });
        let contents: String = contents.collect();
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?><ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
             <Name>b</Name><Prefix/><MaxKeys>3</MaxKeys><IsTruncated>{truncated}</IsTruncated>{contents}</ListBucketResult>"
        )
    }

    #[test]
    fn names_are_told_apart_and_the_next_page_is_known() {
        let ours = "ab".repeat(32);
        let listed = page(&listing(true, &["a &amp; b", &ours, "b"]), Some("A")).unwrap();
        assert_eq!(listed.blobs, vec![(ours.parse().unwrap(), 3)]);
        assert_eq!(listed.strangers, ["a & b", "b"]);
        assert_eq!(listed.next.as_deref(), Some("b"));
        assert_eq!(page(&listing(false, &[]), None).unwrap().next, None);
    }

    #[test]
    fn a_listing_that_makes_no_sense_is_refused() {
        assert!(page(&listing(true, &["a"]), Some("a")).is_err());
        assert!(page(&listing(true, &["b", "a"]), None).is_err());
        assert!(page(&listing(true, &[]), None).is_err());
        assert!(page("<html>welcome</html>", None).is_err());
        assert!(page("", None).is_err());
    }

    #[test]
    fn every_deletion_is_checked() {
        let result = |inner: &str| format!("<DeleteResult xmlns=\"x\">{inner}</DeleteResult>");
        let gone = "<Deleted><Key>a</Key></Deleted>";
        let absent = "<Error><Key>b</Key><Code>NoSuchKey</Code><Message>m</Message></Error>";
        let denied = "<Error><Key>c</Key><Code>AccessDenied</Code><Message>m</Message></Error>";
        assert!(all_deleted(&result("")).is_ok());
        assert!(all_deleted(&result(&format!("{gone}{absent}{gone}"))).is_ok());
        assert!(all_deleted(&result(&format!("{gone}{denied}{gone}"))).is_err());
        assert!(all_deleted("<html/>").is_err());
        assert!(all_deleted("").is_err());
    }
}
