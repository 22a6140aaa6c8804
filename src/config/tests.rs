//! Precedence, every class of error, masking. Method: files in a temporary folder, an environment
//! of our own.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::*;

mod postgres;

const SECRET: &str = "hunter2hunter2";

#[derive(Default)]
struct Case {
    file: Option<(&'static str, String)>,
    environment: Vec<(&'static str, OsString)>,
    flags: Vec<(&'static str, String)>,
}

impl Case {
    fn file(mut self, name: &'static str, text: &str) -> Self {
        self.file = Some((name, text.to_owned()));
        self
    }

    fn env(mut self, name: &'static str, value: &str) -> Self {
        self.environment.push((name, value.into()));
        self
    }

    fn flag(mut self, key: &'static str, value: &str) -> Self {
        self.flags.push((key, value.to_owned()));
        self
    }

    fn s3() -> Self {
        Self::default().env("S3_ENDPOINT", "http://localhost:3900").env("S3_ACCESS_KEY", "AK")
    }

    fn load(self) -> Result<Loaded, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let file = self.file.map(|(name, text)| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        });
        let environment = self.environment;
        let variable =
            |name: &str| environment.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone());
        load(&Inputs { file, variable: &variable, flags: self.flags })
    }

    /// The error's text, which must be one line without the secret.
    fn error(self) -> String {
        let text = self.load().map(|_| ()).unwrap_err().to_string();
        assert!(!text.contains('\n') && !text.contains(SECRET), "{text}");
        text
    }
}

fn assert_names(error: &str, parts: &[&str]) {
    for part in parts {
        assert!(error.contains(part), "{part:?} is missing in: {error}");
    }
}

#[test]
fn defaults_serve_from_a_folder() {
    let config = Case::default().load().unwrap().config;
    assert_eq!((config.bucket.address.as_str(), config.bucket.port), ("0.0.0.0", 8080));
    assert_eq!(config.sqlite.path, Path::new("./data/kv.db"));
    assert_eq!(config.bucket.temp_dir, Path::new("./data/tmp"));
    assert_eq!(config.filetracker.prefix, "/ft");
    assert_eq!(config.bucket.max_inmemory_size, 67_108_864);
    assert!(matches!(config.storage(), Storage::Filesystem));
}

#[test]
fn file_beats_default_environment_beats_file_flag_beats_environment() {
    let file = "[bucket]\nport = 1\nname = \"one\"\naddress = \"::1\"\n";
    let case = Case::default().file("a.toml", file).env("LISTEN_PORT", "2").env("BUCKET_NAME", "two");
    let config = case.flag("bucket.port", "3").load().unwrap().config;
    assert_eq!((config.bucket.port, config.bucket.name.as_str(), config.bucket.address.as_str()), (3, "two", "::1"));
}

#[test]
fn all_formats_say_the_same() {
    for (name, text) in [
        ("a.toml", "[bucket.s3.key_sharding]\ndepth = 3\nenabled = false"),
        ("a.json", r#"{"bucket":{"s3":{"key_sharding":{"depth":3,"enabled":false}}}}"#),
        ("a.yaml", "bucket:\n  s3:\n    key_sharding:\n      depth: 3\n      enabled: false\n"),
        ("a.YML", "bucket: {s3: {key_sharding: {depth: 3, enabled: \"no\"}}}"),
    ] {
        let sharding = Case::default().file(name, text).load().unwrap().config.bucket.s3.key_sharding;
        assert_eq!((sharding.depth, sharding.enabled), (3, false), "{name}");
    }
}

#[test]
fn paths_follow_the_data_folder_unless_set() {
    let case = Case::default().env("DATA_DIR", "/srv/d").env("TEMP_DIR", "scratch");
    let config = case.load().unwrap().config;
    assert_eq!(config.sqlite.path, Path::new("/srv/d/kv.db"));
    assert_eq!(config.bucket.temp_dir, Path::new("scratch"));
}

#[test]
fn an_endpoint_chooses_s3_and_a_storage_type_overrules_it() {
    let loaded = Case::s3().env("S3_SECRET_KEY", SECRET).load().unwrap();
    match loaded.config.storage() {
        Storage::S3 { endpoint, access_key, secret_key } => {
            assert_eq!((endpoint, access_key.reveal(), secret_key.reveal()), ("http://localhost:3900", "AK", SECRET));
        }
        other => panic!("{other:?}"),
    }
    let config = Case::s3().env("STORAGE_TYPE", "filesystem").load().unwrap().config;
    assert!(matches!(config.storage(), Storage::Filesystem));
}

#[test]
fn an_empty_variable_is_unset_but_an_empty_prefix_is_the_root() {
    let case = Case::default().env("S3_ENDPOINT", "").env("LISTEN_PORT", "").env("FILETRACKER_PREFIX", "");
    let config = case.load().unwrap().config;
    assert!(matches!(config.storage(), Storage::Filesystem));
    assert_eq!((config.bucket.port, config.filetracker.prefix.as_str()), (8080, ""));
}

#[test]
fn null_in_a_file_is_unset() {
    let case = Case::default().file("a.json", r#"{"bucket":{"port":null,"s3":null},"sqlite":{"path":null}}"#);
    assert_eq!(case.load().unwrap().config.bucket.port, 8080);
}

#[test]
fn unknown_keys_are_named_with_what_is_allowed_there() {
    let error = Case::default().file("a.toml", "[bucket]\nprot = 1").error();
    assert_names(&error, &["bucket.prot", "a.toml", "unknown key", "port", "max_inmemory_size"]);
    let error = Case::default().file("a.json", r#"{"buckets":{}}"#).error();
    assert_names(&error, &["buckets (", "a.json", "bucket", "logging"]);
    let error = Case::default().file("a.json", r#"{"bucket.port":1}"#).error();
    assert_names(&error, &["bucket.port", "unknown key"]);
    let error = Case::default().file("a.json", "{\"a\\nb\":1}").error();
    assert_names(&error, &["a\\nb"]);
}

#[test]
fn a_value_for_a_section_and_a_section_for_a_value_are_refused() {
    assert_names(&Case::default().file("a.json", r#"{"bucket":5}"#).error(), &["bucket (", "section", "port"]);
    assert_names(&Case::default().file("a.json", r#"{"bucket":{"port":{}}}"#).error(), &["bucket.port", "section"]);
    assert_names(&Case::default().file("a.json", r#"{"data_dir":[]}"#).error(), &["data_dir", "list"]);
    let number = r#"{"bucket":{"s3":{"secret_key":1234567890123}}}"#;
    let error = Case::default().file("a.json", number).error();
    assert_names(&error, &["bucket.s3.secret_key", "quotes"]);
    assert!(!error.contains("1234567890123"));
}

#[test]
fn wrong_values_name_key_source_and_what_is_allowed() {
    let error = Case::default().env("LISTEN_PORT", "http").error();
    assert_names(&error, &["bucket.port", "environment variable LISTEN_PORT", "\"http\"", "0 to 65535"]);
    let error = Case::default().file("a.toml", "[bucket.s3.key_sharding]\ndepth = 9").error();
    assert_names(&error, &["bucket.s3.key_sharding.depth", "a.toml", "0 to 8"]);
    let error = Case::default().flag("logging.level", "loud").error();
    assert_names(&error, &["logging.level", "flag --log-level", "\"loud\"", "debug"]);
    let error = Case::default().env("LOG_JSON", "maybe").error();
    assert_names(&error, &["logging.json", "LOG_JSON", "true or false"]);
    let error = Case::default().file("a.toml", "[compression]\nlevel = 5.5").error();
    assert_names(&error, &["compression.level", "5.5", "integer"]);
    let error = Case::default().env("FILETRACKER_PREFIX", "/../x").error();
    assert_names(&error, &["filetracker.prefix", "FILETRACKER_PREFIX", "/ft"]);
}

#[test]
fn a_wrong_value_is_refused_even_when_a_stronger_one_hides_it() {
    let error = Case::default().file("a.toml", "[bucket]\nport = 99999").env("LISTEN_PORT", "80").error();
    assert_names(&error, &["bucket.port", "a.toml"]);
}

#[test]
fn a_variable_that_is_no_text_is_refused() {
    let mut case = Case::default();
    case.environment.push(("DATA_DIR", OsString::from_vec(vec![b'a', 0xff])));
    assert_names(&case.error(), &["data_dir", "environment variable DATA_DIR", "UTF-8"]);
}

#[test]
fn missing_s3_settings_are_named() {
    let error = Case::default().env("STORAGE_TYPE", "s3").error();
    assert_names(&error, &["bucket.s3.endpoint", "S3_ENDPOINT", "STORAGE_TYPE", "missing"]);
    let error = Case::s3().error();
    assert_names(&error, &["bucket.s3.secret_key", "S3_SECRET_KEY", "secret_key_file"]);
}

#[test]
fn a_secret_comes_from_a_file_without_its_line_break() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    let from_file = || Case::s3().env("S3_SECRET_KEY_FILE", path.to_str().unwrap());

    std::fs::write(&path, format!("{SECRET}\r\n")).unwrap();
    let loaded = from_file().load().unwrap();
    assert!(matches!(loaded.config.storage(), Storage::S3 { secret_key, .. } if secret_key.reveal() == SECRET));
    assert_eq!(loaded.to_json()["bucket.s3.secret_key"]["source"], format!("file {}", path.display()));

    for wrong in [&b"\n"[..], &b"a\xff"[..], &[b'x'; 70_000], b"hunter2hunter2\nmore"] {
        std::fs::write(&path, wrong).unwrap();
        assert_names(&from_file().error(), &["bucket.s3.secret_key_file", "S3_SECRET_KEY_FILE", "key: "]);
    }
    std::fs::remove_file(&path).unwrap();
    assert_names(&from_file().error(), &["bucket.s3.secret_key_file", "S3_SECRET_KEY_FILE", "No such file"]);
}

#[test]
fn a_secret_and_its_file_together_are_refused() {
    let error = Case::s3().env("S3_SECRET_KEY", SECRET).env("S3_SECRET_KEY_FILE", "/nowhere").error();
    assert_names(&error, &["S3_SECRET_KEY_FILE", "bucket.s3.secret_key", "one of the two"]);
    let case = Case::s3().env("S3_ACCESS_KEY_FILE", "/nowhere");
    assert_names(&case.error(), &["bucket.s3.access_key_file", "bucket.s3.access_key"]);
}

#[test]
fn secrets_are_masked_everywhere() {
    let loaded = Case::s3().env("S3_SECRET_KEY", SECRET).load().unwrap();
    let (table, json, debug) = (loaded.to_table(), loaded.to_json().to_string(), format!("{:?}", loaded.config));
    for text in [&table, &json, &debug] {
        assert!(!text.contains(SECRET) && !text.contains("\"AK\""), "{text}");
    }
    assert!(table.contains("********") && json.contains("********"));
    Case::s3().env("S3_SECRET_KEY", &format!("{SECRET} ")).error();
    Case::s3().env("S3_SECRET_KEY", &format!("{SECRET}\u{7}x")).error();
}

#[test]
fn fallbacks_are_whole_and_masked() {
    assert!(Case::default().load().unwrap().config.repair.bucket().is_none());
    let some = || Case::default().env("FALLBACK_S3_ENDPOINT", "http://copy:3900").env("FALLBACK_S3_ACCESS_KEY", "AK");
    assert_names(&some().error(), &["repair.s3.bucket", "FALLBACK_S3_BUCKET", "FALLBACK_S3_ENDPOINT", "missing"]);
    let some = || some().env("FALLBACK_S3_BUCKET", "copy");
    assert_names(&some().error(), &["repair.s3.secret_key", "FALLBACK_S3_SECRET_KEY", "secret_key_file"]);
    let url = format!("http://me:{SECRET}@old:9999/ft");
    let loaded = some().env("FALLBACK_S3_SECRET_KEY", SECRET).env("FALLBACK_URL", &url).load().unwrap();
    let bucket = loaded.config.repair.bucket().unwrap();
    assert_eq!((bucket.endpoint, bucket.name, bucket.secret_key.reveal()), ("http://copy:3900", "copy", SECRET));
    assert_eq!(loaded.config.repair.fallback_url.as_ref().unwrap().reveal(), url);
    for text in [loaded.to_table(), loaded.to_json().to_string(), format!("{:?}", loaded.config)] {
        assert!(!text.contains(SECRET), "{text}");
    }
    assert_eq!(loaded.to_json()["repair.fallback_url"]["value"], "http://********@old:9999/ft");
    Case::default().env("FALLBACK_URL", &format!("{url}?{SECRET}")).error();
}

#[test]
fn the_report_says_where_values_come_from() {
    let case =
        Case::default().file("a.toml", "data_dir = \"/d\"").env("LISTEN_PORT", "81").flag("logging.level", "WARN");
    let json = case.load().unwrap().to_json();
    assert_eq!(json["bucket.port"], serde_json::json!({"value": 81, "source": "environment variable LISTEN_PORT"}));
    assert_eq!(json["logging.level"], serde_json::json!({"value": "warn", "source": "flag --log-level"}));
    assert_eq!(json["sqlite.path"], serde_json::json!({"value": "/d/kv.db", "source": "default, in data_dir"}));
    assert_eq!(json["bucket.s3.endpoint"], serde_json::json!({"value": null, "source": "default"}));
    assert!(json["data_dir"]["source"].as_str().unwrap().ends_with("a.toml"));
}

#[test]
fn broken_files_are_refused_without_repeating_them() {
    for (name, text) in [
        ("a.toml", format!("[bucket.s3]\nsecret_key = \"{SECRET}\" x\n")),
        ("a.toml", format!("secret_key = {SECRET}\n")),
        ("a.json", format!("{{\"bucket\":\n{{\"s3\": \"{SECRET}\" 1}}}}")),
        ("a.json", format!("\"{SECRET}\"")),
        ("a.yaml", format!("bucket:\n  s3: [{SECRET}\n")),
        ("a.yaml", SECRET.to_owned()),
        ("a.yaml", format!("? [{SECRET}]\n: 1\n")),
        ("a.yaml", format!("---\na: 1\n---\nb: {SECRET}\n")),
    ] {
        let error = Case::default().file(name, &text).error();
        assert_names(&error, &["--config", name, "not valid"]);
    }
    let error = Case::default().file("a.toml", "\n[bucket]\nport = = 1\n").error();
    assert_names(&error, &["line 3"]);
    assert_names(&Case::default().file("a.ini", "").error(), &["a.ini", ".toml", ".yaml"]);
    let missing = Inputs { file: Some(PathBuf::from("/nowhere/a.toml")), variable: &|_| None, flags: Vec::new() };
    assert_names(&load(&missing).map(|_| ()).unwrap_err().to_string(), &["/nowhere/a.toml", "cannot read"]);
}

#[test]
fn every_file_of_the_config_folder_is_accepted() {
    let mut count = 0;
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("config")).unwrap() {
        let file = Some(entry.unwrap().path());
        load(&Inputs { file: file.clone(), variable: &|_| None, flags: Vec::new() })
            .map_err(|error| panic!("{file:?}: {error}"))
            .ok();
        count += 1;
    }
    assert!(count >= 4, "{count}");
}

#[test]
fn the_sample_is_accepted_with_every_key_taken_in() {
    let both_ways = ["#access_key_file", "#secret_key_file", "#password_file", "#admin_token_file"];
    let taken_in: String = docs::sample_toml()
        .lines()
        .filter(|line| !both_ways.iter().any(|key| line.starts_with(key)))
        .map(|line| if line.starts_with("# ") { line } else { line.trim_start_matches('#') }.to_owned() + "\n")
        .collect();
    let loaded = Case::default().file("a.toml", &taken_in).load().unwrap();
    let defaults = Case::default().load().unwrap().config;
    assert_eq!(loaded.config.limits.body_min_rate, defaults.limits.body_min_rate);
    let set = loaded.to_json().as_object().unwrap().values().filter(|row| row["source"] != "default").count();
    let is_left_out = |key: &str| both_ways.iter().any(|name| key.ends_with(&name[1..]));
    assert_eq!(set, table::SETTINGS.iter().filter(|setting| !is_left_out(setting.key)).count());
}
