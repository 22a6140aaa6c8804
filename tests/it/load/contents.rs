//! What is uploaded. A content is known by its number; it is made when it is first asked for.

use std::sync::OnceLock;

use s3dedup_actors::testkit::noise;

use crate::support::{gzip, sha256};

const CONTENTS_MAX: usize = 200_000;

/// One content and the gzip that clients send and want back.
pub struct Content {
    pub plain: Vec<u8>,
    pub gzip: Vec<u8>,
    pub sha256: String,
}

/// All contents of one run.
pub struct Contents {
    made: Vec<OnceLock<Content>>,
}

impl Contents {
    pub fn new() -> Self {
        Self { made: (0..CONTENTS_MAX).map(|_| OnceLock::new()).collect() }
    }

    pub fn get(&self, number: usize) -> &Content {
        self.made[number].get_or_init(|| {
            let plain = noise(number as u64, size(number));
            let (gzip, sha256) = (gzip(&plain, 1), sha256(&plain));
            Content { plain, gzip, sha256 }
        })
    }
}

/// Mostly small, as files of contests are; the first one is empty.
fn size(number: usize) -> usize {
    match number % 100 {
        0 => number,
        37 => 1_000_000 + number * 1_000 % 1_000_000,
        10 | 30 | 50 | 70 | 90 => 100_000 + number,
        _ => number * 7_919 % 8_192 + 1,
    }
}
