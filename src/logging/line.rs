//! One record as one line.

use std::borrow::Cow;
use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use log::Record;
use log::kv::{Error, Key, Value, VisitSource, VisitValue};
use s3dedup_actors::Behalf;
use s3dedup_actors::filetracker::calendar::civil_from_days;
use serde::Serializer;
use serde::ser::SerializeMap;

use crate::config::one_line;

/// Members of every JSON line; a field that is called like one of them gets an underscore.
const MEMBERS: [&str; 5] = ["timestamp", "level", "target", "message", "request_id"];

/// The field that people read line by line.
pub const BACKTRACE: &str = "backtrace";

/// Bytes of a field; what is longer is cut. Clients choose what some of them hold, and nobody may fill the disk with them.
const FIELD_MAX: usize = 2 << 10;
const BACKTRACE_MAX: usize = 64 << 10;
/// Bytes of a message.
const MESSAGE_MAX: usize = 8 << 10;

/// A JSON object: timestamp, level, target, message, the request if there is one, then the fields. No line break in it.
pub fn json(record: &Record<'_>, now: SystemTime, behalf: &Behalf) -> String {
    let mut text = Vec::with_capacity(256);
    // a map of texts and numbers always has a JSON form
    let _ = write_json(&mut text, record, now, behalf);
    String::from_utf8(text).unwrap_or_default()
}

fn write_json(
    text: &mut Vec<u8>,
    record: &Record<'_>,
    now: SystemTime,
    behalf: &Behalf,
) -> Result<(), serde_json::Error> {
    let mut serializer = serde_json::Serializer::new(text);
    let mut line = serializer.serialize_map(None)?;
    line.serialize_entry("timestamp", &timestamp(now))?;
    line.serialize_entry("level", &record.level().as_str().to_ascii_lowercase())?;
    line.serialize_entry("target", record.target())?;
    match record.args().as_str() {
        Some(message) => line.serialize_entry("message", &cut(message, MESSAGE_MAX))?,
        None => line.serialize_entry("message", &cut(&record.args().to_string(), MESSAGE_MAX))?,
    }
    if let Some(id) = behalf.id() {
        line.serialize_entry("request_id", id.as_str())?;
    }
    for (key, value) in fields(record) {
        let taken = MEMBERS.contains(&key.as_str());
        line.serialize_entry(&if taken { format!("{key}_") } else { key }, &value)?;
    }
    line.end()
}

/// A line for people: what a JSON line has, as `key=value` after the message. Only a backtrace takes more lines, indented.
pub fn human(record: &Record<'_>, now: SystemTime, level: &str, behalf: &Behalf) -> String {
    // a name or a path with a line break in it must not pass for a second line
    let message = one_line(&cut(&record.args().to_string(), MESSAGE_MAX));
    let mut text = format!("{} {level} {} {message}", timestamp(now), record.target());
    let mut below = String::new();
    for (key, value) in fields(record) {
        // writing to a String cannot fail
        let _ = match value {
            serde_json::Value::String(lines) if key == BACKTRACE => {
                lines.lines().try_for_each(|line| write!(below, "\n    {}", one_line(line)))
            }
            serde_json::Value::String(word) if is_plain(&word) => write!(text, " {key}={word}"),
            serde_json::Value::String(words) => write!(text, " {key}={words:?}"),
            other => write!(text, " {key}={other}"),
        };
    }
    if let Some(id) = behalf.id() {
        let _ = write!(text, " request_id={id}");
    }
    text + &below
}

/// A text that is too long is cut, and tells how long it was.
fn cut(text: &str, bytes_max: usize) -> Cow<'_, str> {
    if text.len() <= bytes_max {
        return text.into();
    }
    format!("{}…({} bytes)", &text[..text.floor_char_boundary(bytes_max)], text.len()).into()
}

/// Whether a value needs no quotes to be told from what follows.
fn is_plain(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"=\\".contains(&byte))
}

/// RFC 3339, in UTC, with milliseconds.
pub fn timestamp(at: SystemTime) -> String {
    const DAY: u64 = 86_400;
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / DAY, since.as_secs() % DAY);
    let (year, month, day) = civil_from_days(i64::try_from(days).unwrap_or_default());
    let (hour, minute, second, millis) = (second / 3600, second / 60 % 60, second % 60, since.subsec_millis());
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// Those that have a value.
fn fields(record: &Record<'_>) -> Vec<(String, serde_json::Value)> {
    let mut fields = Fields(Vec::new());
    // none of the two visitors fails
    let _ = record.key_values().visit(&mut fields);
    fields.0
}

struct Fields(Vec<(String, serde_json::Value)>);

impl<'kvs> VisitSource<'kvs> for Fields {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        let mut field = Field(serde_json::Value::Null);
        value.visit(&mut field)?;
        let key = key.as_str();
        match field.0 {
            serde_json::Value::Null => {}
            serde_json::Value::String(text) => {
                let text = cut(&text, if key == BACKTRACE { BACKTRACE_MAX } else { FIELD_MAX }).into_owned();
                self.0.push((key.to_owned(), text.into()));
            }
            value => self.0.push((key.to_owned(), value)),
        }
        Ok(())
    }
}

struct Field(serde_json::Value);

impl<'v> VisitValue<'v> for Field {
    fn visit_any(&mut self, value: Value<'_>) -> Result<(), Error> {
        self.0 = value.to_string().into();
        Ok(())
    }

    fn visit_null(&mut self) -> Result<(), Error> {
        Ok(())
    }

    fn visit_u64(&mut self, value: u64) -> Result<(), Error> {
        self.0 = value.into();
        Ok(())
    }

    fn visit_i64(&mut self, value: i64) -> Result<(), Error> {
        self.0 = value.into();
        Ok(())
    }

    fn visit_f64(&mut self, value: f64) -> Result<(), Error> {
        self.0 = value.into();
        Ok(())
    }

    fn visit_bool(&mut self, value: bool) -> Result<(), Error> {
        self.0 = value.into();
        Ok(())
    }

    fn visit_str(&mut self, value: &str) -> Result<(), Error> {
        self.0 = value.into();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use log::Level;
    use log::kv::Source;
    use s3dedup_actors::model::RequestId;

    use super::*;

    const AT: Duration = Duration::from_millis(1_763_713_661_843);

    /// Both forms of a record.
    fn lines(message: &str, source: &dyn Source, behalf: &Behalf) -> (String, serde_json::Value) {
        let args = format_args!("{message}");
        let mut record = Record::builder();
        let record = record.level(Level::Warn).target("s3dedup::http").key_values(&source).args(args).build();
        let json = json(&record, UNIX_EPOCH + AT, behalf);
        assert!(!json.contains('\n') && json.starts_with("{\"timestamp\":"), "{json}");
        (human(&record, UNIX_EPOCH + AT, "WARN ", behalf), serde_json::from_str(&json).unwrap())
    }

    fn somebody() -> Behalf {
        Behalf::of(RequestId::parse(b"4f-2a").unwrap())
    }

    #[test]
    fn a_line_is_one_line_and_parses_back() {
        let nasty = "path=\"a\nb\" \u{7} \\ ż";
        let nothing: [(&str, &str); 0] = [];
        let (human, json) = lines(nasty, &nothing, &Behalf::default());
        assert_eq!(human, "2025-11-21T08:27:41.843Z WARN  s3dedup::http path=\"a\\nb\" \\u{7} \\ ż");
        assert_eq!(json["message"], nasty);
        assert_eq!((&json["level"], &json["target"]), (&"warn".into(), &"s3dedup::http".into()));
        assert_eq!(json["timestamp"], "2025-11-21T08:27:41.843Z");
        assert_eq!(json.as_object().unwrap().len(), 4);
    }

    #[test]
    fn fields_are_members_and_keep_their_kind() {
        let fields = [("status", Value::from(503)), ("path", Value::from("/ft/files/a b")), ("ok", Value::from(false))];
        let (human, json) = lines("request failed", &fields, &somebody());
        assert!(
            human.ends_with("request failed status=503 path=\"/ft/files/a b\" ok=false request_id=4f-2a"),
            "{human}"
        );
        assert_eq!((&json["status"], &json["ok"]), (&503.into(), &false.into()));
        assert_eq!((&json["path"], &json["request_id"]), (&"/ft/files/a b".into(), &"4f-2a".into()));
    }

    #[test]
    fn a_field_takes_no_place_of_a_member_and_forges_nothing() {
        let fields = [("message", "b\nforged"), ("request_id", "c"), ("x", "1 y=2"), ("empty", "")];
        let (human, json) = lines("a", &fields, &somebody());
        assert_eq!((&json["message"], &json["message_"]), (&"a".into(), &"b\nforged".into()));
        assert_eq!((&json["request_id"], &json["request_id_"]), (&"4f-2a".into(), &"c".into()));
        assert!(human.contains("message=\"b\\nforged\"") && human.contains("x=\"1 y=2\" empty=\"\""), "{human}");
        assert_eq!(human.lines().count(), 1);
    }

    #[test]
    fn long_texts_are_cut_and_tell_so() {
        let long = "ż".repeat(30_000);
        let (human, json) = lines(&long, &[("path", long.as_str()), ("a", "b")], &somebody());
        let path = json["path"].as_str().unwrap();
        assert!(path.starts_with("żż") && path.ends_with("ż…(60000 bytes)") && path.len() < FIELD_MAX + 100, "{path}");
        assert!(json["message"].as_str().unwrap().ends_with("ż…(60000 bytes)") && json["a"] == "b", "{json}");
        assert!(human.len() < FIELD_MAX + MESSAGE_MAX + 500 && human.ends_with(" a=b request_id=4f-2a"), "{human}");
        let odd = format!("a{long}");
        let (_, json) = lines("", &[("path", odd.as_str())], &somebody());
        assert!(json["path"].as_str().unwrap().ends_with("ż…(60001 bytes)"));
    }

    #[test]
    fn a_field_without_a_value_is_left_out() {
        let (human, json) = lines("a", &[("nobody", Value::null()), ("b", Value::from(1))], &somebody());
        assert!(human.ends_with(" a b=1 request_id=4f-2a") && json.as_object().unwrap().len() == 6, "{human} {json}");
    }

    #[test]
    fn a_backtrace_is_indented_below() {
        let (human, json) = lines("panic", &[(BACKTRACE, "0: a\n1: b"), ("thread", "main")], &somebody());
        assert!(human.ends_with("panic thread=main request_id=4f-2a\n    0: a\n    1: b"), "{human}");
        assert_eq!(json["backtrace"], "0: a\n1: b");
    }
}
