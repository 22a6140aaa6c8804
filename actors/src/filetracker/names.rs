//! Names on the wire: percent-encoded in requests, mangled in listings.

/// Text for a URL; slashes stay.
pub(super) fn encoded(text: &str) -> String {
    use std::fmt::Write;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            out.push(byte.into());
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// A name as clients know it, from a line of a listing. The old server takes the bytes of a path for Latin-1 and lists them as
/// UTF-8; so every character of its lines is a byte. A line with any other character was not mangled.
///
/// `Err` when the bytes are no UTF-8: no client that this server serves could ask for that name.
pub(super) fn unmangled(line: &str) -> Result<String, Vec<u8>> {
    let bytes: Option<Vec<u8>> = line.chars().map(|character| u8::try_from(u32::from(character)).ok()).collect();
    match bytes {
        Some(bytes) => String::from_utf8(bytes).map_err(std::string::FromUtf8Error::into_bytes),
        None => Ok(line.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_encoded_for_urls() {
        assert_eq!(encoded("a b/ż?#%41+~x\\"), "a%20b/%C5%BC%3F%23%2541%2B~x%5C");
    }

    #[test]
    fn mangled_names_come_back_and_others_stay() {
        // What the server lists for the path bytes C4 85.
        assert_eq!(unmangled("\u{c4}\u{85}").unwrap(), "ą");
        assert_eq!(unmangled("plain/a b").unwrap(), "plain/a b");
        assert_eq!(unmangled("zażółć").unwrap(), "zażółć");
        assert_eq!(unmangled("\u{ff}").unwrap_err(), [0xff]);
    }
}
