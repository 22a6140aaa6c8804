//! Every variable that a shipped file sets is one that the program knows.

use s3dedup::config::table::SETTINGS;

use crate::compose::{self, OURS};
use crate::dockerfile::Image;
use crate::read;

/// What an image sets for itself.
const OF_THE_IMAGE: &str = "PATH";

pub fn assert_known(place: &str, name: &str) {
    assert!(SETTINGS.iter().any(|setting| setting.env == name), "{place}: there is no setting {name}");
}

/// The names in lines of `NAME=value`, also of those that are commented out.
pub fn names(text: &str) -> Vec<&str> {
    let lines = text.lines().map(|line| line.strip_prefix('#').unwrap_or(line));
    lines.filter(|line| !line.starts_with(' ')).filter_map(|line| Some(line.split_once('=')?.0)).collect()
}

#[test]
fn the_dockerfile_sets_known_variables() {
    let image = Image::of_the_repository();
    assert!(image.env.len() >= 3, "{:?}", image.env);
    for (name, _) in image.env.iter().filter(|(name, _)| name != OF_THE_IMAGE) {
        assert_known("Dockerfile", name);
    }
}

#[test]
fn compose_files_set_known_variables() {
    let mut count = 0;
    for file in compose::all() {
        for service in file.services.iter().filter(|service| service.image == OURS) {
            let place = format!("{}, {}", file.name, service.name);
            let from_files = service.env_files.iter().map(|name| read(&format!("compose/{name}")));
            let from_files = from_files.collect::<Vec<_>>();
            let names = from_files.iter().flat_map(|text| names(text)).map(str::to_owned);
            for name in names.chain(service.environment.iter().map(|(name, _)| name.clone())) {
                assert_known(&place, &name);
                count += 1;
            }
        }
    }
    assert!(count > 20, "{count}");
}

#[test]
fn the_sample_and_the_unit_set_known_variables() {
    for file in [".env.example", "compose/packaging/s3dedup.default"] {
        let text = read(file);
        assert!(!names(&text).is_empty(), "{file}");
        names(&text).into_iter().for_each(|name| assert_known(file, name));
    }
    let unit = read("compose/packaging/s3dedup.service");
    for line in unit.lines().filter_map(|line| line.strip_prefix("Environment=")) {
        assert_known("compose/packaging/s3dedup.service", line.split_once('=').unwrap().0);
    }
}
