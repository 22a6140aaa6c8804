//! What a request path means.
//!
//! The path is percent-decoded exactly once, as bytes, before it is split: `%2F` separates, `%61`
//! is `a`, `%252e` is the name `%2e`, `+` is a plus. Runs of `/` count as one and a trailing `/` as
//! none, so `//version`, `/ft/files///a` and `/ft/files/a/` all work. Names themselves are judged
//! by [`EntryKey`](s3dedup_actors::model::EntryKey).

use super::error::Failure;

/// The components all paths of the front end start with. Empty: it serves at the root.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Prefix(Vec<Vec<u8>>);

impl Prefix {
    /// Takes `/ft`, `ft`, `/a/b/` or an empty text; runs of `/` count as one.
    pub fn new(text: &str) -> Self {
        Self(components(text.as_bytes()).map(<[u8]>::to_vec).collect())
    }
}

impl std::fmt::Display for Prefix {
    /// As the beginning of a path: empty, or with a slash before every component.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|component| write!(f, "/{}", component.escape_ascii()))
    }
}

/// What is asked for; paths are raw bytes, not yet validated.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// `version`
    Version,
    /// `list/PATH`; empty for the root.
    List(Vec<u8>),
    /// `files/PATH`
    File(Vec<u8>),
}

impl Target {
    /// The name of the route.
    pub fn endpoint(&self) -> &'static str {
        match self {
            Self::Version => "/version",
            Self::List(_) => "/list/{path}",
            Self::File(_) => "/files/{path}",
        }
    }
}

/// Finds out what the raw (still encoded) path of a request line asks for.
pub fn target(prefix: &Prefix, raw: &str) -> Result<Target, Failure> {
    let decoded =
        percent_decode(raw.as_bytes()).ok_or(Failure::bad_request("malformed percent-encoding in the path"))?;
    let mut rest = components(&decoded);
    for expected in &prefix.0 {
        if rest.next() != Some(expected.as_slice()) {
            return Err(Failure::not_found("nothing is served here"));
        }
    }
    let endpoint = rest.next().unwrap_or_default();
    let path = rest.collect::<Vec<_>>().join(&b'/');
    match endpoint {
        b"version" if path.is_empty() => Ok(Target::Version),
        b"list" => Ok(Target::List(path)),
        b"files" => Ok(Target::File(path)),
        _ => Err(Failure::bad_request("unknown endpoint, expected version, list or files")),
    }
}

fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|component| !component.is_empty())
}

/// Decodes `%XX`; `None` when a `%` is not followed by two hexadecimal digits.
fn percent_decode(raw: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(raw.len());
    let mut bytes = raw.iter();
    while let Some(&byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => hex_digit(*bytes.next()?)? << 4 | hex_digit(*bytes.next()?)?,
            plain => plain,
        });
    }
    Some(decoded)
}

/// The value of one hexadecimal digit of either case.
pub(super) fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn under(prefix: &str, raw: &str) -> Result<Target, u16> {
        target(&Prefix::new(prefix), raw).map_err(|failure| failure.status().as_u16())
    }

    fn file(path: &[u8]) -> Result<Target, u16> {
        Ok(Target::File(path.to_vec()))
    }

    #[test]
    fn endpoints_are_found_under_any_prefix() {
        for (prefix, base) in [("", ""), ("/", "/"), ("/ft", "/ft"), ("a/b/", "//a/b"), ("ft", "/%66t")] {
            assert_eq!(under(prefix, &format!("{base}/version")), Ok(Target::Version));
            assert_eq!(under(prefix, &format!("{base}//version/")), Ok(Target::Version));
            assert_eq!(under(prefix, &format!("{base}/list")), Ok(Target::List(vec![])));
            assert_eq!(under(prefix, &format!("{base}/list/")), Ok(Target::List(vec![])));
            assert_eq!(under(prefix, &format!("{base}/list//d/")), Ok(Target::List(b"d".to_vec())));
            assert_eq!(under(prefix, &format!("{base}/files///a//b/")), file(b"a/b"));
            assert_eq!(under(prefix, &format!("{base}/files")), file(b""));
        }
    }

    #[test]
    fn the_path_is_decoded_once_before_it_is_split() {
        assert_eq!(under("", "/files/a%2Fb"), file(b"a/b"));
        assert_eq!(under("", "/files%2fa"), file(b"a"));
        assert_eq!(under("", "/files/%61+%252e"), file(b"a+%2e"));
        assert_eq!(under("", "/files/%ff%00"), file(b"\xff\0"));
        assert_eq!(under("", "/files/%2e%2E/x"), file(b"../x"));
    }

    #[test]
    fn broken_escapes_are_refused() {
        for raw in ["/files/%", "/files/%4", "/files/%zz", "/files/a%4g", "/files/%+1"] {
            assert_eq!(under("", raw), Err(400), "{raw}");
        }
    }

    #[test]
    fn strangers_under_the_prefix_are_400_and_outside_of_it_404() {
        for raw in ["/ft", "/ft/", "/ft/version/x", "/ft/other", "/ft/../files/a", "/ft/Version"] {
            assert_eq!(under("ft", raw), Err(400), "{raw}");
        }
        for raw in ["/", "/version", "/files/a", "/ftx/version", "/FT/version", "*", ""] {
            assert_eq!(under("ft", raw), Err(404), "{raw}");
        }
        assert_eq!(under("", "/"), Err(400));
    }
}
