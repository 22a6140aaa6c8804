//! The one query parameter that matters: `last_modified`.

use s3dedup_actors::filetracker::dates;
use s3dedup_actors::model::Stamp;

use super::error::Failure;
use super::path::hex_digit;

/// The version in a query; `None` when it is absent or empty.
///
/// The query is read as a form (`+` is a space). Other parameters are ignored; of several
/// `last_modified` the first that is not empty wins, as on the old server.
pub fn last_modified(query: &str) -> Result<Option<Stamp>, Failure> {
    let mut values = query.split('&').filter_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        (form_decode(name) == b"last_modified" && !value.is_empty()).then(|| form_decode(value))
    });
    let Some(value) = values.next() else { return Ok(None) };
    let date = std::str::from_utf8(&value).ok().and_then(dates::parse);
    date.map(Some).ok_or(Failure::bad_request("last_modified is not a date in RFC 2822 form"))
}

/// The version in a query that must have one.
pub fn required_last_modified(query: &str) -> Result<Stamp, Failure> {
    last_modified(query)?.ok_or(Failure::bad_request("last_modified is required"))
}

/// Decodes `+` and `%XX`. A `%` that starts no escape stands for itself, as forms have it.
fn form_decode(text: &str) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, tail @ ..] = rest {
        rest = tail;
        let escaped = match (byte, tail) {
            (b'%', [high, low, ..]) => hex_digit(*high).zip(hex_digit(*low)),
            _ => None,
        };
        decoded.push(match (byte, escaped) {
            (_, Some((high, low))) => {
                rest = &tail[2..];
                high << 4 | low
            }
            (b'+', None) => b' ',
            (plain, None) => *plain,
        });
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: &str = "Tue%2C+14+Nov+2023+22%3A13%3A20+-0000";

    fn seconds(query: &str) -> Result<Option<i64>, u16> {
        last_modified(query).map(|stamp| stamp.map(Stamp::seconds)).map_err(|failure| failure.status().as_u16())
    }

    #[test]
    fn dates_are_read_from_forms() {
        assert_eq!(seconds(&format!("last_modified={DATE}")), Ok(Some(1_700_000_000)));
        assert_eq!(seconds(&format!("a=b&last%5Fmodified={DATE}&c")), Ok(Some(1_700_000_000)));
        assert_eq!(seconds("last_modified=Tue,%2014%20Nov%202023%2022:13:20%20GMT"), Ok(Some(1_700_000_000)));
        assert_eq!(seconds("last_modified=Tue,+14+Nov+2023+22:13:20++0200"), Ok(Some(1_699_992_800)));
    }

    #[test]
    fn absent_and_empty_are_the_same() {
        for query in ["", "&&", "x=y", "last_modified", "last_modified=", "Last_Modified=x", "last_modified=&a=b"] {
            assert_eq!(seconds(query), Ok(None), "{query}");
            assert!(required_last_modified(query).is_err());
        }
    }

    #[test]
    fn of_several_the_first_that_is_not_empty_wins() {
        assert_eq!(seconds(&format!("last_modified=&last_modified={DATE}&last_modified=x")), Ok(Some(1_700_000_000)));
        assert_eq!(seconds(&format!("last_modified=x&last_modified={DATE}")), Err(400));
    }

    #[test]
    fn other_texts_are_refused() {
        for value in ["1700000000", "2023-11-14T22:13:20Z", "%", "%zz", "%ff", "+", "Tue,+14+Nov+2023+22:13:20.5+GMT"] {
            assert_eq!(seconds(&format!("last_modified={value}")), Err(400), "{value}");
        }
    }
}
