//! From layers to one checked configuration.

use std::io::Read;
use std::path::Path;

use config::{Value, ValueKind};

use super::error::ConfigError;
use super::layer::{Layer, environment_origin};
use super::table::setting;
use super::value::{Parsed, parse_text};

/// A key is never longer; stops the reading of something that is no key file.
const SECRET_FILE_BYTES_MAX: u64 = 64 * 1024;

/// Merges layers, the later over the earlier.
pub fn merge(layers: &[&Layer]) -> Result<config::Config, ConfigError> {
    let builder = layers.iter().fold(config::Config::builder(), |builder, layer| builder.add_source((*layer).clone()));
    builder.build().map_err(internal)
}

/// The value of a key.
pub fn lookup<'a>(merged: &'a config::Config, key: &str) -> Option<&'a Value> {
    key.split('.').try_fold(&merged.cache, |value, name| match &value.kind {
        ValueKind::Table(table) => table.get(name),
        _ => None,
    })
}

/// The text of a key; `None` for an unset one.
pub fn lookup_text(merged: &config::Config, key: &str) -> Option<String> {
    match &lookup(merged, key)?.kind {
        ValueKind::String(text) => Some(text.clone()),
        _ => None,
    }
}

/// The origin of a key's value.
pub fn origin<'a>(merged: &'a config::Config, key: &str) -> &'a str {
    lookup(merged, key).and_then(Value::origin).unwrap_or("default")
}

/// The defaults that follow from what is set.
pub fn derived_defaults(merged: &config::Config) -> Layer {
    let mut layer = Layer::default();
    let data_dir = lookup_text(merged, "data_dir").unwrap_or_default();
    for (key, name) in [("sqlite.path", "kv.db"), ("bucket.temp_dir", "tmp"), ("export.path", "names.jsonl")] {
        let path = Path::new(&data_dir).join(name).to_string_lossy().into_owned();
        layer.set(key, "default, in data_dir", Parsed::Text(path));
    }
    let (storage, origin) = match lookup(merged, "bucket.s3.endpoint") {
        Some(_) => ("s3", "default, as bucket.s3.endpoint is set"),
        None => ("filesystem", "default, as bucket.s3.endpoint is not set"),
    };
    layer.set("bucket.s3storage_type", origin, Parsed::Text(storage.to_owned()));
    for (key, other) in [("postgres.lock_host", "postgres.host"), ("postgres.lock_port", "postgres.port")] {
        let value = match lookup(merged, other).map(|value| &value.kind) {
            Some(ValueKind::String(text)) => Parsed::Text(text.clone()),
            Some(ValueKind::U64(number)) => Parsed::Integer(*number),
            _ => continue,
        };
        layer.set(key, format!("default, as {other}"), value);
    }
    // with port 0 the port is only known when it is taken
    if let Some(ValueKind::U64(port @ 1..)) = lookup(merged, "bucket.port").map(|value| &value.kind) {
        for key in ["instance.id", "instance.address"] {
            layer.set(key, "default, host name and port", Parsed::Text(host_and_port(*port)));
        }
    }
    layer
}

/// This machine's name and a port.
pub fn host_and_port(port: u64) -> String {
    let system = rustix::system::uname();
    let name = system.nodename().to_string_lossy();
    let name: String = name.chars().filter(|character| !character.is_control()).collect();
    format!("{}:{port}", if name.trim().is_empty() { "localhost" } else { name.trim() })
}

/// The secrets that are named by a file.
pub fn secrets_from_files(merged: &config::Config) -> Result<Layer, ConfigError> {
    let mut layer = Layer::default();
    for (key, file_key) in [
        ("bucket.s3.access_key", "bucket.s3.access_key_file"),
        ("bucket.s3.secret_key", "bucket.s3.secret_key_file"),
        ("postgres.password", "postgres.password_file"),
        ("access.admin_token", "access.admin_token_file"),
        ("repair.s3.access_key", "repair.s3.access_key_file"),
        ("repair.s3.secret_key", "repair.s3.secret_key_file"),
    ] {
        let (Some(setting), Some(path)) = (setting(key), lookup_text(merged, file_key)) else { continue };
        let source = origin(merged, file_key);
        if lookup(merged, key).is_some() {
            let problem = format!("set together with {key} (source: {})", origin(merged, key));
            return Err(ConfigError::new(file_key, source, problem, "one of the two"));
        }
        let refuse = |problem: String| {
            let allowed = "a readable file that holds nothing but the value";
            ConfigError::new(file_key, source, format!("{path}: {problem}"), allowed)
        };
        let text = read_secret(Path::new(&path)).map_err(refuse)?;
        let parsed = parse_text(setting, &text).map_err(refuse)?;
        layer.set(key, format!("file {path}"), parsed);
    }
    Ok(layer)
}

fn read_secret(path: &Path) -> Result<String, String> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| format!("cannot read it: {error}"))?;
    let read = file.take(SECRET_FILE_BYTES_MAX + 1).read_to_end(&mut bytes);
    read.map_err(|error| format!("cannot read it: {error}"))?;
    if bytes.len() as u64 > SECRET_FILE_BYTES_MAX {
        return Err("the file is too large".to_owned());
    }
    let text = String::from_utf8(bytes).map_err(|_| "the file is not UTF-8".to_owned())?;
    // editors and `echo` end the last line
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// Checks what no single value can tell.
pub fn check_required(merged: &config::Config) -> Result<(), ConfigError> {
    if lookup_text(merged, "bucket.s3storage_type").as_deref() == Some("s3") {
        let why = format!("bucket.s3storage_type is s3 ({})", origin(merged, "bucket.s3storage_type"));
        let keys = [
            ("bucket.s3.endpoint", None),
            ("bucket.s3.access_key", Some("bucket.s3.access_key_file")),
            ("bucket.s3.secret_key", Some("bucket.s3.secret_key_file")),
        ];
        check_all_there(merged, &keys, &why)?;
    }
    let fallback = [
        ("repair.s3.endpoint", None),
        ("repair.s3.bucket", None),
        ("repair.s3.access_key", Some("repair.s3.access_key_file")),
        ("repair.s3.secret_key", Some("repair.s3.secret_key_file")),
    ];
    let tls = [("tls.cert_file", None), ("tls.key_file", None)];
    if let Some((key, _)) = tls.iter().find(|(key, _)| lookup(merged, key).is_some()) {
        check_all_there(merged, &tls, &format!("{key} is set ({})", origin(merged, key)))?;
    }
    match fallback.iter().find(|(key, _)| lookup(merged, key).is_some()) {
        Some((key, _)) => check_all_there(merged, &fallback, &format!("{key} is set ({})", origin(merged, key))),
        None => Ok(()),
    }
}

/// Refuses when one of the keys is not set; `why` says what it is needed for.
fn check_all_there(
    merged: &config::Config,
    keys: &[(&'static str, Option<&'static str>)],
    why: &str,
) -> Result<(), ConfigError> {
    for (key, file_key) in keys {
        let (Some(setting), None) = (setting(key), lookup(merged, key)) else { continue };
        let problem = format!("missing, but {why}");
        let or_file = file_key.map(|file_key| format!(", or {file_key}")).unwrap_or_default();
        let allowed =
            format!("{}; set it in the file or by the {}{or_file}", setting.allowed(), environment_origin(setting));
        return Err(ConfigError::new(setting.key, "default", problem, allowed));
    }
    Ok(())
}

/// Checks values that do not go together. `given` is what was there before derived defaults.
pub fn check_together(given: &config::Config) -> Result<(), ConfigError> {
    let is = |key: &str, word: &str| lookup_text(given, key).as_deref() == Some(word);
    if is("migration.mode", "proxy") && lookup(given, "migration.file_list").is_some() {
        let problem = "proxy, which copies nothing in the background, but migration.file_list names what to copy";
        return Err(ConfigError::new(
            "migration.mode",
            origin(given, "migration.mode"),
            problem,
            "live, or no file list",
        ));
    }
    if !is("locks_type", "postgres") {
        return Ok(());
    }
    if !is("kvstorage_type", "postgres") {
        let problem = format!("postgres, but kvstorage_type is sqlite ({})", origin(given, "kvstorage_type"));
        let allowed = "memory; for locks in PostgreSQL set KVSTORAGE_TYPE=postgres as well";
        return Err(ConfigError::new("locks_type", origin(given, "locks_type"), problem, allowed));
    }
    let key = "postgres.transaction_pooling";
    let is_pooled = matches!(lookup(given, key).map(|value| &value.kind), Some(ValueKind::Boolean(true)));
    let is_told_the_way = ["postgres.lock_host", "postgres.lock_port"].iter().any(|key| lookup(given, key).is_some());
    if is_pooled && !is_told_the_way {
        let problem = "true, but the lock session would go to the proxy too, where it loses its locks";
        let allowed = "false; or set POSTGRES_LOCK_HOST or POSTGRES_LOCK_PORT so that the lock session goes past the \
                       proxy; or LOCKS_TYPE=memory";
        return Err(ConfigError::new(key, origin(given, key), problem, allowed));
    }
    Ok(())
}

/// An error that only a mistake in this program can cause.
pub fn internal(error: config::ConfigError) -> ConfigError {
    ConfigError::new("configuration", "default", error.to_string(), "please report this")
}
