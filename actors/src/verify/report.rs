//! What a run found.

use serde_json::{Value, json};

use super::{Damage, Orphans};
use crate::model::BlobKey;

/// The version of the report's shape.
const FORMAT: u32 = 1;

/// What a run found.
#[derive(Clone, Debug)]
pub struct VerifyReport {
    /// Whether every object was read.
    pub deep: bool,
    /// Whether it went on where another run was interrupted.
    pub resumed: bool,
    /// Contents that were looked at.
    pub contents: u64,
    /// Bytes of their objects.
    pub stored_bytes: u64,
    /// Names.
    pub names: i64,
    /// What is wrong.
    pub damages: Vec<Damage>,
    /// How much more is wrong.
    pub damages_left_off: u64,
    /// Objects that are whole though a server found them missing or damaged: an upload of their content would replace them,
    /// a repair takes the note back.
    pub cleared: Vec<BlobKey>,
    /// How many more.
    pub cleared_left_off: u64,
    /// Objects that nothing knows of.
    pub orphans: Orphans,
    /// How long it took.
    pub seconds: f64,
}

impl VerifyReport {
    /// Whether nothing is wrong.
    pub fn is_whole(&self) -> bool {
        self.damages.is_empty() && self.damages_left_off == 0
    }

    /// The report for programs.
    pub fn to_json(&self) -> Value {
        json!({
            "format": FORMAT,
            "status": if self.is_whole() { "whole" } else { "damaged" },
            "deep": self.deep,
            "resumed": self.resumed,
            "seconds": (self.seconds * 1000.0).round() / 1000.0,
            "names": self.names,
            "contents": self.contents,
            "stored_bytes": self.stored_bytes,
            "damages": self.damages.iter().map(Damage::to_json).collect::<Vec<_>>(),
            "damages_left_off": self.damages_left_off,
            "cleared": self.cleared.iter().map(BlobKey::to_string).collect::<Vec<_>>(),
            "cleared_left_off": self.cleared_left_off,
            "orphans": self.orphans.to_json(),
        })
    }
}
