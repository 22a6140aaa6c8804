//! `s3dedup instances`.

use super::{ReportOptions, complain, load, say};
use crate::config::{self, Config, MetadataType};
use crate::{exit, instances};

pub(super) const HELP: &str = "\
An instance that was not heard of for 15 seconds is gone; after a week it is forgotten.
";

pub(super) fn run(options: ReportOptions) -> u8 {
    load(options.config, Vec::new()).map_or_else(|code| code, |loaded| list(&loaded.config, options.json))
}

fn list(config: &Config, json: bool) -> u8 {
    if config.kvstorage_type != MetadataType::Postgres {
        complain("s3dedup: instances are listed with KVSTORAGE_TYPE=postgres only: an SQLite database has one");
        return exit::WRONG_USE;
    }
    match instances::ask(config) {
        Ok(known) if json => say(&format!("{:#}", instances::to_json(&known))),
        Ok(known) => say(&instances::table(&known)),
        Err(reason) => {
            complain(&format!("s3dedup: {}", config::one_line(&reason)));
            return exit::CANNOT_START;
        }
    }
    exit::OK
}
