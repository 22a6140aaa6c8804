//! What `check-config` prints: the effective configuration, secrets masked.

use std::fmt::Write;

use config::ValueKind;
use serde_json::{Value, json};

use super::setting::Kind;
use super::table::SETTINGS;
use super::value::{MASK, without_user};
use super::{Loaded, resolve};

impl Loaded {
    /// One line a setting: key, value, where it came from.
    pub fn to_table(&self) -> String {
        let mut rows = vec![("KEY", "VALUE".to_owned(), "SOURCE")];
        rows.extend(self.rows().map(|(key, value, source)| {
            let text = match value {
                Value::Null => "-".to_owned(),
                // quotes only where the value would not be seen without
                Value::String(text) if text.is_empty() => "\"\"".to_owned(),
                Value::String(text) => text,
                other => other.to_string(),
            };
            (key, text, source)
        }));
        let key_width = rows.iter().map(|(key, ..)| key.chars().count()).max().unwrap_or(0);
        let value_width = rows.iter().map(|(_, value, _)| value.chars().count()).max().unwrap_or(0);

        let mut table = String::new();
        for (key, value, source) in rows {
            // writing to a String cannot fail
            let _ = writeln!(table, "{key:key_width$}  {value:value_width$}  {source}");
        }
        table
    }

    /// A JSON object: key of the setting -> `value` (null when unset) and `source`.
    pub fn to_json(&self) -> Value {
        let entry =
            |(key, value, source): (&str, Value, &str)| (key.to_owned(), json!({ "value": value, "source": source }));
        Value::Object(self.rows().map(entry).collect())
    }

    fn rows(&self) -> impl Iterator<Item = (&'static str, Value, &str)> {
        SETTINGS.iter().map(|setting| {
            let value = match resolve::lookup(&self.merged, setting.key).map(|value| &value.kind) {
                None => Value::Null,
                Some(_) if setting.secret => MASK.into(),
                Some(ValueKind::Boolean(value)) => (*value).into(),
                Some(ValueKind::U64(value)) => (*value).into(),
                Some(ValueKind::String(text)) if matches!(setting.kind, Kind::ServerUrl) => without_user(text).into(),
                Some(ValueKind::String(text)) => text.clone().into(),
                Some(other) => other.to_string().into(),
            };
            (setting.key, value, resolve::origin(&self.merged, setting.key))
        })
    }
}
