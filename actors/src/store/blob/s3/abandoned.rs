//! Uploads in parts that nobody will finish: their parts take room and are in no listing of objects.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use chrono::DateTime;
use futures_util::{StreamExt, stream};
use s3::command::Command;
use serde::Deserialize;

use super::S3Store;
use super::fault::Fault;
use super::listing::BATCH_MAX;
use super::retry::Patience;
use super::wire::answer;
use crate::failpoint::{self, Point};
use crate::model::{BlobKey, Result, Stamp};
use crate::store::blob::StaleUploads;

#[derive(Deserialize)]
struct UploadsBody {
    // Required, so that some other document is not read as "none".
    #[serde(rename = "IsTruncated")]
    is_truncated: bool,
    #[serde(rename = "NextKeyMarker", default)]
    next_key: String,
    #[serde(rename = "NextUploadIdMarker", default)]
    next_id: String,
    #[serde(rename = "Upload", default)]
    uploads: Vec<ListedUpload>,
}

#[derive(Deserialize)]
struct ListedUpload {
    #[serde(rename = "Key")]
    key: String,
    #[serde(rename = "UploadId")]
    id: String,
    #[serde(rename = "Initiated")]
    initiated: String,
}

/// Uploads that may go, and where the next page starts.
#[derive(PartialEq, Debug)]
struct Page {
    /// Names and numbers.
    stale: Vec<(String, String)>,
    next: Option<(String, String)>,
}

impl S3Store {
    /// Aborts uploads of objects of ours that were begun some time ago; returns how many.
    pub(super) async fn abort_abandoned(&self, stale: StaleUploads<'_>) -> Result<u64> {
        let (mut aborted, mut after) = (0, None);
        while !(stale.is_stopped)() {
            let listed = self.list_uploads(after.clone()).await;
            let page = match listed.and_then(|body| page(&body, stale.begun_before, after.as_ref())) {
                Ok(page) => page,
                // Not every server can tell, and then there is nothing to be done about it here.
                Err(fault) if fault.refusal().is_some_and(|refusal| refusal.status == 501) => {
                    log::debug!("the S3 server does not list uploads");
                    return Ok(aborted);
                }
                Err(fault) => return Err(fault.into_error("list uploads")),
            };
            aborted += if stale.dry_run { page.stale.len() as u64 } else { self.abort_all(&page.stale, stale).await? };
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        Ok(aborted)
    }

    /// Aborts several at once. The first that fails ends it, after those that are under way.
    async fn abort_all(&self, uploads: &[(String, String)], stale: StaleUploads<'_>) -> Result<u64> {
        let (count, is_failed) = (AtomicU64::new(0), AtomicBool::new(false));
        let one = |(key, id): &(String, String)| {
            let (key, id, count, is_failed) = (key.clone(), id.clone(), &count, &is_failed);
            async move {
                if is_failed.load(Ordering::Relaxed) || (stale.is_stopped)() {
                    return Ok(());
                }
                let aborted = async {
                    failpoint::hit(Point::CleanBeforeAbort).await.map_err(Fault::Local)?;
                    self.abort(&key, &id).await?;
                    failpoint::hit(Point::CleanAfterAbort).await.map_err(Fault::Local)
                };
                match aborted.await {
                    Ok(()) => count.fetch_add(1, Ordering::Relaxed),
                    Err(fault) => {
                        is_failed.store(true, Ordering::Relaxed);
                        return Err(fault.into_error(&format!("abort the upload of {key}")));
                    }
                };
                Ok(())
            }
        };
        let aborts: Vec<_> = uploads.iter().map(one).collect();
        let outcomes: Vec<Result<()>> = stream::iter(aborts).buffer_unordered(stale.concurrency.max(1)).collect().await;
        outcomes.into_iter().collect::<Result<()>>()?;
        Ok(count.into_inner())
    }

    async fn list_uploads(&self, after: Option<(String, String)>) -> Result<String, Fault> {
        let wire = self.wire();
        let attempt = || async {
            let (key_marker, upload_id_marker) = after.clone().unzip();
            let command = Command::ListMultipartUploads {
                prefix: None,
                delimiter: None,
                key_marker,
                upload_id_marker,
                max_uploads: Some(BATCH_MAX),
            };
            answer(wire.send("/", command).await?).await
        };
        Patience::small(&wire.settings().timeouts).run(attempt).await
    }

    async fn abort(&self, key: &str, id: &str) -> Result<(), Fault> {
        let wire = self.wire();
        let attempt = || wire.send(key, Command::AbortMultipartUpload { upload_id: id });
        match Patience::small(&wire.settings().timeouts).run(attempt).await {
            Ok(_) => Ok(()),
            // Somebody was faster, or the answer to an earlier attempt was lost.
            Err(fault) if fault.refusal().is_some_and(|refusal| refusal.status == 404) => Ok(()),
            Err(fault) => Err(fault),
        }
    }
}

fn page(body: &str, begun_before: Stamp, after: Option<&(String, String)>) -> Result<Page, Fault> {
    let unreadable = |error| Fault::Nonsense(format!("a listing of uploads cannot be read: {error}"));
    let listed: UploadsBody = quick_xml::de::from_str(body).map_err(unreadable)?;
    let is_stale = |upload: &ListedUpload| {
        let begun = DateTime::parse_from_rfc3339(&upload.initiated);
        // A time that cannot be read is no reason to end anything.
        upload.key.parse::<BlobKey>().is_ok() && begun.is_ok_and(|begun| begun.timestamp() <= begun_before.seconds())
    };
    let next = (listed.next_key, listed.next_id);
    if listed.is_truncated && (next.0.is_empty() || after == Some(&next)) {
        return Err(Fault::Nonsense("a listing of uploads does not go on".to_owned()));
    }
    let stale = listed.uploads.into_iter().filter(is_stale).map(|upload| (upload.key, upload.id)).collect();
    Ok(Page { stale, next: listed.is_truncated.then_some(next) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(rest: &str, uploads: &[(&str, &str, &str)]) -> String {
        let uploads = uploads.iter().map(|(key, id, initiated)| {
            format!("<Upload><Key>{key}</Key><UploadId>{id}</UploadId><Initiated>{initiated}</Initiated></Upload>")
        });
        let uploads: String = uploads.collect();
        format!(
            "<ListMultipartUploadsResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Bucket>b</Bucket>\
             <KeyMarker/><MaxUploads>1000</MaxUploads>{rest}{uploads}</ListMultipartUploadsResult>"
        )
    }

    #[test]
    fn only_old_uploads_of_our_names_are_chosen() {
        let ours = "ab".repeat(32);
        let old = "2023-11-14T22:13:20.000Z";
        let body = listing(
            "<IsTruncated>false</IsTruncated>",
            &[(&ours, "1", old), ("backup.tar", "2", old), (&ours, "3", "2023-11-14T22:13:21Z"), (&ours, "4", "then")],
        );
        let found = page(&body, Stamp::from_seconds(1_700_000_000), None).unwrap();
        assert_eq!(found, Page { stale: vec![(ours, "1".to_owned())], next: None });
    }

    #[test]
    fn a_listing_goes_on_or_makes_no_sense() {
        let now = Stamp::from_seconds(0);
        let rest =
            "<IsTruncated>true</IsTruncated><NextKeyMarker>k</NextKeyMarker><NextUploadIdMarker>i</NextUploadIdMarker>";
        let next = ("k".to_owned(), "i".to_owned());
        assert_eq!(page(&listing(rest, &[]), now, None).unwrap().next, Some(next.clone()));
        assert!(page(&listing(rest, &[]), now, Some(&next)).is_err());
        assert!(page(&listing("<IsTruncated>true</IsTruncated>", &[]), now, None).is_err());
        assert!(page("<html/>", now, None).is_err());
    }
}
