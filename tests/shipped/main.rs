//! What stands beside the program: the image, the compose files, the unit, the package.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a helper that panics fails its test, as it should")]

mod compose;
mod container;
mod dockerfile;
mod troubleshooting;
mod unit;
mod variables;

use std::fs;
use std::path::{Path, PathBuf};

/// A path in the repository.
fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The program under test; another one can be named, where several checkouts build into one folder.
fn binary() -> PathBuf {
    std::env::var_os("S3DEDUP_TEST_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_s3dedup").into()).into()
}
