//! The unit and the package agree with the program.

use std::process::Command;

use s3dedup::config::table;
use s3dedup::exit;

use crate::{binary, path, read};

fn value<'a>(unit: &'a str, name: &str) -> &'a str {
    let mut lines = unit.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    lines.next_back().unwrap_or_else(|| panic!("no {name}"))
}

#[test]
fn a_stop_is_given_more_time_than_a_drain_takes() {
    let unit = read("compose/packaging/s3dedup.service");
    let drain: u64 = table::setting("limits.drain_seconds").unwrap().default_words().parse().unwrap();
    assert!(value(&unit, "TimeoutStopSec").parse::<u64>().unwrap() > drain);
}

#[test]
fn only_a_wrong_configuration_is_not_started_again() {
    let unit = read("compose/packaging/s3dedup.service");
    assert_eq!(value(&unit, "Restart"), "on-failure");
    assert_eq!(value(&unit, "RestartPreventExitStatus"), exit::WRONG_USE.to_string());
}

#[test]
fn the_configuration_of_the_package_keeps_everything_where_the_unit_lets_it_write() {
    let unit = read("compose/packaging/s3dedup.service");
    let file = path("compose/packaging/s3dedup.toml");
    let told =
        Command::new(binary()).args(["check-config", "--json", "--config"]).arg(file).env_clear().output().unwrap();
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    let told: serde_json::Value = serde_json::from_slice(&told.stdout).unwrap();
    let state = format!("/var/lib/{}", value(&unit, "StateDirectory"));
    assert_eq!(told["data_dir"]["value"], state.as_str());
    for key in ["sqlite.path", "bucket.temp_dir", "export.path"] {
        let place = told[key]["value"].as_str().unwrap();
        assert!(place.starts_with(&state), "{key}: {place}");
    }
}

#[test]
fn the_example_of_a_log_file_lies_where_the_unit_lets_the_server_write() {
    let unit = read("compose/packaging/s3dedup.service");
    let logs = format!("/var/log/{}/", value(&unit, "LogsDirectory"));
    assert!(read("config/s3dedup.toml").contains(&format!("#json_path = \"{logs}")));
}

#[test]
fn the_package_takes_files_that_are_there_and_puts_them_where_the_unit_looks() {
    let manifest = read("Cargo.toml");
    let assets = manifest.lines().filter_map(|line| line.trim().strip_prefix("[\"")?.strip_suffix("\"],"));
    let assets: Vec<Vec<_>> = assets.map(|line| line.split("\", \"").collect()).collect();
    assert!(assets.len() >= 10, "{assets:?}");
    for asset in &assets {
        let made = asset[0].starts_with("target/");
        assert!(made || asset[0].contains('*') || path(asset[0]).is_file(), "{asset:?}");
    }
    let unit = read("compose/packaging/s3dedup.service");
    let config = value(&unit, "ExecStart").rsplit(' ').next().unwrap();
    for place in [config, value(&unit, "EnvironmentFile").trim_start_matches('-')] {
        let asset = assets.iter().find(|asset| format!("/{}", asset[1]) == place);
        assert!(asset.is_some(), "nothing is installed as {place}");
        assert!(manifest.contains(&format!("\"{place}\"")), "{place} is no conffile");
    }
}
