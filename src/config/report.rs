//! What `check-config` prints: the effective configuration, secrets masked.

use std::fmt::Write;

use config::ValueKind;
use serde_json::{Value, json};

use super::table::SETTINGS;
use super::{Loaded, resolve};

const MASK: &str = "********";

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
                Some(ValueKind::String(text)) => without_password(text).into(),
                Some(other) => other.to_string().into(),
            };
            (setting.key, value, resolve::origin(&self.merged, setting.key))
        })
    }
}

/// A URL may have a name and a password in it.
fn without_password(text: &str) -> String {
    let masked = text.split_once("://").and_then(|(scheme, rest)| {
        let authority = rest.split('/').next().unwrap_or(rest);
        let (_, host) = authority.rsplit_once('@')?;
        Some(format!("{scheme}://{MASK}@{host}{}", &rest[authority.len()..]))
    });
    masked.unwrap_or_else(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_in_a_url_is_masked() {
        assert_eq!(without_password("http://me:hunter2@old:9999/ft@x"), format!("http://{MASK}@old:9999/ft@x"));
        for text in ["http://old:9999/a@b", "a@b", "/srv/x"] {
            assert_eq!(without_password(text), text);
        }
    }
}
