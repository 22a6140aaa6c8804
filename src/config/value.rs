//! From what people write to checked values.

use config::{Value, ValueKind};
use s3dedup_actors::cleaner::Schedule;

use super::setting::{Kind, Setting};
use crate::access::networks::Networks;

/// A checked value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed {
    /// Of [`Kind::Bool`].
    Bool(bool),
    /// Of [`Kind::Integer`].
    Integer(u64),
    /// Of all other kinds, normalised.
    Text(String),
}

impl From<Parsed> for ValueKind {
    fn from(parsed: Parsed) -> Self {
        match parsed {
            Parsed::Bool(value) => Self::Boolean(value),
            Parsed::Integer(value) => Self::U64(value),
            Parsed::Text(value) => Self::String(value),
        }
    }
}

/// Longest piece of a wrong value that an error repeats.
const SHOWN_CHARACTERS: usize = 60;

/// Checks a value that came as text. The error says what is wrong, and shows the value only when
/// that cannot give a secret away.
pub fn parse_text(setting: &Setting, text: &str) -> Result<Parsed, String> {
    let wrong = |what: &str| format!("{} {what}", shown(setting, text));
    match setting.kind {
        Kind::Prefix => prefix(text).map(Parsed::Text).ok_or_else(|| wrong("is no such path")),
        _ if text.is_empty() => Err("the value is empty".to_owned()),
        Kind::Bool => boolean(text).map(Parsed::Bool).ok_or_else(|| wrong("is neither true nor false")),
        Kind::Integer { min, max } => {
            let number = text.parse::<u64>().map_err(|_| wrong(number_problem(text)))?;
            if (min..=max).contains(&number) { Ok(Parsed::Integer(number)) } else { Err(wrong("is out of range")) }
        }
        Kind::Choice(words) => {
            let word = words.iter().find(|word| word.eq_ignore_ascii_case(text));
            word.map(|word| Parsed::Text((*word).to_owned())).ok_or_else(|| wrong("is none of them"))
        }
        Kind::Url => url(text).map(Parsed::Text).ok_or_else(|| wrong("is no such URL")),
        Kind::ServerUrl => server_url(text).map(Parsed::Text).ok_or_else(|| wrong("is no such URL")),
        Kind::Name if !is_name(text) => Err(wrong("is no such name")),
        Kind::Cron => match text.parse::<Schedule>() {
            Ok(_) => Ok(Parsed::Text(text.to_owned())),
            Err(error) => Err(wrong(&error.to_string())),
        },
        Kind::Listen if listen(text).is_none() => Err(wrong("is no such address")),
        Kind::Networks => match text.parse::<Networks>() {
            Ok(_) => Ok(Parsed::Text(text.to_owned())),
            Err(reason) => Err(wrong(reason)),
        },
        Kind::Host if !is_host(text) => Err(wrong("is no such host")),
        _ if text.chars().any(char::is_control) => Err("the value has a control character".to_owned()),
        // a stray blank or carriage return of an environment file would end up in a signature
        Kind::Text if text.trim() != text => Err("the value has white space at an end".to_owned()),
        _ => Ok(Parsed::Text(text.to_owned())),
    }
}

/// Checks a value of a file; `Ok(None)` for null.
pub fn parse_file_value(setting: &Setting, value: &Value) -> Result<Option<Parsed>, String> {
    let text = match &value.kind {
        ValueKind::Nil => return Ok(None),
        ValueKind::String(text) => text.clone(),
        ValueKind::Table(_) => return Err("a section stands where a value is expected".to_owned()),
        ValueKind::Array(_) => return Err("a list stands where a value is expected".to_owned()),
        // a number or boolean as text would not be what was written: 0123, 1e3, no
        other if !matches!(setting.kind, Kind::Bool | Kind::Integer { .. }) => {
            return Err(format!("{} stands where text in quotes is expected", kind_name(other)));
        }
        ValueKind::Boolean(value) => value.to_string(),
        ValueKind::I64(value) => value.to_string(),
        ValueKind::I128(value) => value.to_string(),
        ValueKind::U64(value) => value.to_string(),
        ValueKind::U128(value) => value.to_string(),
        ValueKind::Float(value) => value.to_string(),
    };
    parse_text(setting, &text).map(Some)
}

fn kind_name(kind: &ValueKind) -> &'static str {
    match kind {
        ValueKind::Boolean(_) => "a boolean",
        _ => "a number",
    }
}

fn shown(setting: &Setting, text: &str) -> String {
    // somebody may have put a key into an endpoint, as in http://key:secret@host
    if setting.secret || (matches!(setting.kind, Kind::Url | Kind::ServerUrl) && text.contains('@')) {
        return "the value".to_owned();
    }
    match text.char_indices().nth(SHOWN_CHARACTERS) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}

fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    }
}

fn number_problem(text: &str) -> &'static str {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        "is out of range"
    } else {
        "is not an integer"
    }
}

fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    text.len() <= 255 && text.bytes().all(allowed) && text.starts_with(|first: char| first.is_ascii_alphanumeric())
}

fn is_host(text: &str) -> bool {
    text.len() <= 255 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_:[]%".contains(&byte))
}

/// The host and the port of a [`Kind::Listen`].
pub fn listen(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let is_fine = !host.is_empty() && is_host(host) && (!host.contains(':') || host.starts_with('['));
    is_fine.then_some((host, port.parse().ok()?))
}

/// `/a/b`, or the empty text for the root.
fn prefix(text: &str) -> Option<String> {
    let mut normalised = String::with_capacity(text.len() + 1);
    for component in text.split('/').filter(|component| !component.is_empty()) {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._~-".contains(&byte);
        if component == "." || component == ".." || !component.bytes().all(allowed) {
            return None;
        }
        normalised.push('/');
        normalised.push_str(component);
    }
    Some(normalised)
}

/// The URL without a slash at its end.
fn url(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once("://")?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return None;
    }
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let host_is_fine = !host.is_empty() && is_host(host) && (!host.contains(':') || host.starts_with('['));
    let port_is_fine = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    (host_is_fine && port_is_fine).then(|| format!("{}://{authority}", scheme.to_ascii_lowercase()))
}

/// The URL without slashes at its end.
fn server_url(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once("://")?;
    let (authority, path) = rest.split_once('/').map_or((rest, ""), |(authority, path)| (authority, path));
    // A user and password are whatever stands before the last @: they are only passed on.
    let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
    let host = url(&format!("{scheme}://{host}"))?;
    let is_plain = |part: &str| part.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#".contains(&byte));
    if !is_plain(path) || !user.is_none_or(is_plain) {
        return None;
    }
    let (scheme, host) = host.split_once("://")?;
    let user = user.map(|user| format!("{user}@")).unwrap_or_default();
    Some(format!("{scheme}://{user}{host}/{path}").trim_end_matches('/').to_owned())
}

/// A [`Kind::ServerUrl`] for people: without its user and password.
pub fn without_user(url: &str) -> String {
    match url.split_once("://").map(|(scheme, rest)| (scheme, rest.split_once('/').unwrap_or((rest, "")))) {
        Some((scheme, (authority, path))) if authority.contains('@') => {
            let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
            format!("{scheme}://{MASK}@{host}/{path}").trim_end_matches('/').to_owned()
        }
        _ => url.to_owned(),
    }
}

/// Stands for what is not shown.
pub const MASK: &str = "********";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::setting::Fallback;
    use crate::config::table::{SETTINGS, setting};

    fn text(key: &str, text: &str) -> Result<Parsed, String> {
        parse_text(setting(key).unwrap(), text)
    }

    #[test]
    fn every_default_and_example_is_allowed() {
        for setting in SETTINGS {
            let value = match setting.default {
                Fallback::Fixed(value) => value,
                Fallback::Derived { example, .. } | Fallback::Unset { example } => example,
            };
            assert!(parse_text(setting, value).is_ok(), "{}", setting.key);
        }
    }

    #[test]
    fn numbers_are_bounded_and_whole() {
        assert_eq!(text("bucket.port", "0"), Ok(Parsed::Integer(0)));
        assert!(text("bucket.port", "65536").unwrap_err().contains("out of range"));
        assert!(text("bucket.port", "-1").unwrap_err().contains("out of range"));
        assert!(text("bucket.port", "99999999999999999999999").unwrap_err().contains("out of range"));
        for wrong in ["80.5", "8080 ", "0x50", "1e3", "-", "eighty"] {
            assert!(text("bucket.port", wrong).unwrap_err().contains("not an integer"), "{wrong}");
        }
    }

    #[test]
    fn a_prefix_is_normalised() {
        for (given, wanted) in [("", ""), ("/", ""), ("ft", "/ft"), ("/ft/", "/ft"), ("//a//b.c/", "/a/b.c")] {
            assert_eq!(text("filetracker.prefix", given), Ok(Parsed::Text(wanted.to_owned())), "{given}");
        }
        for wrong in ["/a/../b", "/.", "/a b", "/{x}", "/a?b", "/é", "/a\n"] {
            assert!(text("filetracker.prefix", wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_endpoint_is_scheme_host_and_port() {
        for (given, wanted) in [
            ("http://localhost:3900/", "http://localhost:3900"),
            ("HTTPS://s3.example.com", "https://s3.example.com"),
            ("http://[::1]:9000", "http://[::1]:9000"),
            ("http://[::1]", "http://[::1]"),
        ] {
            assert_eq!(text("bucket.s3.endpoint", given), Ok(Parsed::Text(wanted.to_owned())), "{given}");
        }
        for wrong in ["localhost:3900", "s3://x", "http://", "http://a:0", "http://a:x", "http://a/b", "http://::1:9"] {
            assert!(text("bucket.s3.endpoint", wrong).is_err(), "{wrong}");
        }
        let error = text("bucket.s3.endpoint", "http://key:hunter2@host").unwrap_err();
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn a_server_may_have_a_path_and_a_password_that_is_not_shown() {
        for (given, wanted, shown) in [
            ("http://old:9999/ft/", "http://old:9999/ft", "http://old:9999/ft"),
            ("HTTPS://me:hunter2@old/a/b", "https://me:hunter2@old/a/b", "https://********@old/a/b"),
            ("http://me:hun@ter2@[::1]:80", "http://me:hun@ter2@[::1]:80", "http://********@[::1]:80"),
        ] {
            assert_eq!(text("repair.fallback_url", given), Ok(Parsed::Text(wanted.to_owned())), "{given}");
            assert_eq!(without_user(wanted), shown);
        }
        for wrong in ["old:9999", "ftp://old", "http://", "http://a b/", "http://a/?x", "http://u:hunter2@", "x"] {
            let error = text("repair.fallback_url", wrong).unwrap_err();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_schedule_has_five_fields() {
        assert!(text("cleaner.full_scan_cron", "*/15 3 * * MON-FRI").is_ok());
        let error = text("cleaner.full_scan_cron", "0 3 * *").unwrap_err();
        assert_eq!(error, "\"0 3 * *\" has 4 fields instead of 5");
        for wrong in ["every day", "0 25 * * *", "@daily", "0 0 31 2 *"] {
            assert!(text("cleaner.full_scan_cron", wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn long_values_are_cut_in_errors() {
        assert!(text("bucket.port", &"é".repeat(1000)).unwrap_err().len() < 200);
    }

    #[test]
    fn listeners_and_networks() {
        for right in ["127.0.0.1:9090", "[::1]:9090", "localhost:0"] {
            assert_eq!(text("access.admin_listen", right), Ok(Parsed::Text(right.to_owned())));
        }
        for wrong in ["9090", ":9090", "::1:9090", "host:port", "host:70000", "host", "a b:1", "http://host:1"] {
            assert!(text("access.admin_listen", wrong).is_err(), "{wrong}");
        }
        assert!(text("access.trusted_proxies", "10.0.0.0/8, ::1").is_ok());
        let error = text("access.trusted_proxies", "10.0.0.0/8 proxy.example").unwrap_err();
        assert_eq!(error, "\"10.0.0.0/8 proxy.example\" has a length that is no number");
    }
}
