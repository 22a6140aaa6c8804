//! `s3dedup quarantine`: what is there, and how it leaves.

use std::fmt::Write;

use s3dedup_actors::model::{BlobKey, Kind, Recipe, Stamp};
use s3dedup_actors::repair::{GivenUp, give_up};
use s3dedup_actors::store::meta::Quarantined;
use s3dedup_actors::verify::{Stores, content_now};
use serde_json::{Value, json};

use super::{ReportTo, attach, check_match, examiner, open_alone, run, said, turn};
use crate::config::Config;
use crate::exit;
use crate::instances::time;

/// Objects asked for at once.
const PAGE_ROWS: usize = 1000;

/// What is asked for.
#[derive(Clone, Debug)]
pub enum QuarantineAction {
    /// What is there?
    List,
    /// These leave it and are what they were before.
    Lift(Vec<BlobKey>),
    /// These, or with none all, are left to the cleaner where another object of the content is whole.
    Drop(Vec<BlobKey>),
}

/// Does it; returns the exit code.
pub fn quarantine(config: &Config, action: &QuarantineAction, report: &ReportTo) -> u8 {
    run(config, async {
        report.expect_place()?;
        if let QuarantineAction::List = action {
            let stores = attach(config).await?;
            let listed = list(&stores).await?;
            report.write(&json!({ "format": 1, "objects": listed }), &text(&listed))?;
            return Ok(exit::OK);
        }
        let (stores, _locks) = open_alone(config, false).await?;
        check_match(&stores).await?;
        let outcomes = turn::alone(config, &stores.metadata, false, leave(config, &stores, action)).await?;
        let is_all_done = outcomes.iter().all(|outcome| outcome["outcome"] != "kept");
        report.write(&json!({ "format": 1, "objects": outcomes }), &text(&outcomes))?;
        Ok(if is_all_done { exit::OK } else { exit::PARTIAL })
    })
}

async fn all(stores: &Stores) -> Result<Vec<Quarantined>, String> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = stores.metadata.list_quarantined(after, PAGE_ROWS).await;
        let page = page.map_err(|error| format!("cannot read the database error=\"{error}\""))?;
        let Some(last) = page.last() else { return Ok(all) };
        after = Some(last.key);
        all.extend(page);
    }
}

async fn list(stores: &Stores) -> Result<Vec<Value>, String> {
    let mut listed = Vec::new();
    for Quarantined { key, reason, since } in all(stores).await? {
        let failed = |error| format!("cannot look at the object {key} error=\"{error}\"");
        let opened = match stores.contents.open(&key, None).await {
            Err(error) if error.kind() == Kind::Corrupt => None,
            opened => opened.map_err(failed)?,
        };
        let content = content_now(stores, key.digest).await.map_err(failed)?;
        let current = content.and_then(|content| match content.recipe {
            Recipe::Whole(blob) => Some(blob.key),
            _ => None,
        });
        listed.push(json!({
            "object": key.to_string(),
            "digest": key.digest.to_string(),
            "reason": reason,
            "since": since.seconds(),
            "size": opened.map(|reader| reader.size),
            "content": match current {
                None => "unknown",
                Some(current) if current == key => "has no other object",
                Some(_) => "has another object",
            },
        }));
    }
    Ok(listed)
}

async fn leave(config: &Config, stores: &Stores, action: &QuarantineAction) -> Result<Vec<Value>, String> {
    let mut outcomes = Vec::new();
    let mut tell = |key: &BlobKey, outcome: &str, why: &str| {
        outcomes.push(json!({ "object": key.to_string(), "outcome": outcome, "why": why }));
    };
    match action {
        QuarantineAction::List => {}
        QuarantineAction::Lift(keys) => {
            for key in keys {
                match stores.metadata.lift_quarantine(*key).await.map_err(said)? {
                    true => tell(key, "lifted", ""),
                    false => tell(key, "kept", "it is not in quarantine"),
                }
            }
        }
        QuarantineAction::Drop(keys) => {
            let keys = match keys.as_slice() {
                [] => all(stores).await?.into_iter().map(|object| object.key).collect(),
                keys => keys.to_vec(),
            };
            let examiner = examiner(config, None)?;
            for key in &keys {
                let failed = |error| format!("cannot look at the objects of {} error=\"{error}\"", key.digest);
                match give_up(stores, &examiner, *key).await.map_err(failed)? {
                    GivenUp::Condemned => tell(key, "left to the cleaner", ""),
                    GivenUp::Kept(why) => tell(key, "kept", why),
                }
            }
        }
    }
    Ok(outcomes)
}

fn text(objects: &[Value]) -> String {
    let mut out = format!("{} object{}\n", objects.len(), if objects.len() == 1 { "" } else { "s" });
    for object in objects {
        let word = |key: &str| match &object[key] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let _ = match object.get("outcome") {
            Some(_) => writeln!(out, "  {} {} {}", word("object"), word("outcome"), word("why")),
            None => writeln!(
                out,
                "  {} size={} since={} content {}: {}",
                word("object"),
                word("size"),
                object["since"].as_i64().map(|since| time(Stamp::from_seconds(since))).unwrap_or_default(),
                word("content"),
                word("reason")
            ),
        };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_are_told_a_time_and_not_a_number_of_seconds() {
        let listed = json!({ "object": "ab/cd/abcd", "size": 7, "since": 1_700_000_000, "content": "has another object",
            "reason": "wrong-content" });
        assert_eq!(
            text(&[listed]),
            "1 object\n  ab/cd/abcd size=7 since=2023-11-14T22:13:20Z content has another object: wrong-content\n"
        );
    }
}
