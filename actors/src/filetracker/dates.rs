//! Versions as text: the dates of `last_modified` and `Last-Modified`.
//!
//! The old server read dates with Python's `email.utils.parsedate_tz` and `mktime_tz`; [`parse`]
//! takes the same steps, so that every date that worked there means the same second here. It is
//! stricter where that reading *guessed*: numbers are plain ASCII digits, a zone that is neither a
//! number nor a name (`+02:00`, `GMT+2`) is refused instead of read as UTC, only a comment may
//! follow the zone, and a result that cannot be printed with a four-digit year is refused.

use crate::model::Stamp;

use super::calendar::{civil_from_days, days_from_civil};

const DAY_SECONDS: i64 = 86_400;
/// 0001-01-01 00:00:00 UTC.
const SECONDS_MIN: i64 = -62_135_596_800;
/// 9999-12-31 23:59:59 UTC.
const SECONDS_MAX: i64 = 253_402_300_799;

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const MONTHS_LONG: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];
const WEEKDAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
/// Named zones as `hours * 100 + minutes` east of UTC. Other names mean UTC.
const ZONES: [(&str, i64); 12] = [
    ("UT", 0),
    ("UTC", 0),
    ("GMT", 0),
    ("Z", 0),
    ("AST", -400),
    ("ADT", -300),
    ("EST", -500),
    ("EDT", -400),
    ("CST", -600),
    ("CDT", -500),
    ("MST", -700),
    ("MDT", -600),
];
const ZONES_PACIFIC: [(&str, i64); 2] = [("PST", -800), ("PDT", -700)];

/// Reads a date; `None` when it is none or lies outside of the years 1 to 9999.
///
/// Read are RFC 2822 with or without weekday, seconds and zone, RFC 850 with a two-digit year, and
/// the order of C's `asctime`, in any letter case. A day, hour, minute or second past its end wraps
/// into the next one. A zone without a sign, which is what an unescaped `+0200` becomes in a query,
/// is east of UTC.
pub fn parse(text: &str) -> Option<Stamp> {
    let mut words: Vec<&str> = text.split_whitespace().collect();
    drop_weekday(&mut words)?;
    split_joined_words(&mut words);
    let [mut day, mut month, mut year, mut time, mut zone] = *words.first_chunk::<5>()?;
    if words.get(5).is_some_and(|word| !word.starts_with('(')) || day.is_empty() || year.is_empty() {
        return None;
    }

    if month_number(month).is_none() {
        std::mem::swap(&mut day, &mut month);
    }
    let month = month_number(month)?;
    day = day.strip_suffix(',').unwrap_or(day);
    if year.find(':').is_some_and(|at| at > 0) {
        std::mem::swap(&mut year, &mut time);
    }
    year = year.strip_suffix(',').unwrap_or(year);
    if !year.starts_with(|first: char| first.is_ascii_digit()) {
        std::mem::swap(&mut year, &mut zone);
    }
    time = time.strip_suffix(',').unwrap_or(time);

    let year = match number(year)? {
        short @ 0..=68 => short + 2000,
        short @ 69..=99 => short + 1900,
        full @ 100..=9999 => full,
        _ => return None,
    };
    let days = days_from_civil(year, month, number(day)?)?;
    let seconds = days.checked_mul(DAY_SECONDS)?.checked_add(time_of_day(time)?)?.checked_sub(zone_seconds(zone)?)?;
    (SECONDS_MIN..=SECONDS_MAX).contains(&seconds).then_some(Stamp::from_seconds(seconds))
}

/// The date as answers carry it: `Tue, 14 Nov 2023 22:13:20 -0000`.
///
/// A version outside of the years 1 to 9999 cannot come from [`parse`]; it is shown as the nearest
/// date that four digits can express.
pub fn print(stamp: Stamp) -> String {
    let seconds = stamp.seconds().clamp(SECONDS_MIN, SECONDS_MAX);
    let (days, time) = (seconds.div_euclid(DAY_SECONDS), seconds.rem_euclid(DAY_SECONDS));
    let (year, month, day) = civil_from_days(days);
    // 1970-01-01 was a Thursday.
    let weekday = WEEKDAYS[usize::try_from((days + 3).rem_euclid(7)).unwrap_or(0)];
    let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
    format!("{weekday}, {day:02} {} {year:04} {hour:02}:{minute:02}:{second:02} -0000", MONTHS[month - 1])
}

/// Removes a weekday in front, with or without a comma and a space after it.
fn drop_weekday(words: &mut Vec<&str>) -> Option<()> {
    let first = *words.first()?;
    if first.ends_with(',') || WEEKDAYS.iter().any(|name| name.eq_ignore_ascii_case(first)) {
        words.remove(0);
    } else if let Some(comma) = first.rfind(',') {
        words[0] = &first[comma + 1..];
    }
    Some(())
}

/// Takes apart `14-Nov-23` (RFC 850) and `22:13:20+0200`; supplies an empty zone where none is.
fn split_joined_words(words: &mut Vec<&str>) {
    if let [date, time, zone] = words[..] {
        let parts: Vec<&str> = date.split('-').collect();
        if let [day, month, year] = parts[..] {
            *words = vec![day, month, year, time, zone];
        }
    }
    if let [_, _, _, last] = words[..] {
        match last.find('+').or_else(|| last.find('-')) {
            Some(sign) if sign > 0 => {
                words[3] = &last[..sign];
                words.push(&last[sign..]);
            }
            _ => words.push(""),
        }
    }
}

fn month_number(word: &str) -> Option<i64> {
    let is = |name: &&str| name.eq_ignore_ascii_case(word);
    let index = MONTHS.iter().position(is).or_else(|| MONTHS_LONG.iter().position(is))?;
    i64::try_from(index + 1).ok()
}

/// Digits only: no sign, no fraction.
fn number(word: &str) -> Option<i64> {
    word.bytes().all(|byte| byte.is_ascii_digit()).then(|| word.parse().ok())?
}

/// `22:13:20` or `22:13`; dots instead of colons are read too.
fn time_of_day(word: &str) -> Option<i64> {
    let separator = if word.contains(':') { ':' } else { '.' };
    let parts: Vec<&str> = word.split(separator).collect();
    let (hour, minute, second) = match parts[..] {
        [hour, minute] => (hour, minute, "0"),
        [hour, minute, second] => (hour, minute, second),
        _ => return None,
    };
    let minutes = number(hour)?.checked_mul(60)?.checked_add(number(minute)?)?;
    minutes.checked_mul(60)?.checked_add(number(second)?)
}

/// Seconds east of UTC.
fn zone_seconds(word: &str) -> Option<i64> {
    if let Some((_, offset)) = ZONES.iter().chain(&ZONES_PACIFIC).find(|(name, _)| name.eq_ignore_ascii_case(word)) {
        return Some(offset / 100 * 3600);
    }
    let (sign, digits) = match word.as_bytes().first() {
        Some(b'-') => (-1, &word[1..]),
        Some(b'+') => (1, &word[1..]),
        Some(first) if first.is_ascii_digit() => (1, word),
        _ if word.bytes().any(|byte| byte.is_ascii_digit() || byte == b'+') => return None,
        _ => return Some(0),
    };
    let offset = number(digits)?;
    (offset / 100).checked_mul(3600)?.checked_add(offset % 100 * 60)?.checked_mul(sign)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(text: &str) -> Option<i64> {
        parse(text).map(Stamp::seconds)
    }

    /// Cases and answers of Python's `email.utils`; see `tests/data/dates.py`.
    #[test]
    fn dates_mean_what_they_meant_to_the_old_server() {
        let table = include_str!("../../../tests/data/dates.tsv");
        let mut cases = 0;
        for line in table.lines().filter(|line| !line.starts_with('#')) {
            let (answer, text) = line.split_once('\t').unwrap();
            assert_eq!(seconds(text), answer.parse().ok(), "{text:?}");
            cases += 1;
        }
        assert!(cases > 300, "the table holds {cases} cases only");
    }

    #[test]
    fn guesses_of_the_old_server_are_refused() {
        for text in [
            "Tue, 14 Nov 2023 22:13:20 +02:00",
            "Tue, 14 Nov 2023 22:13:20 GMT+2",
            "Tue, 14 Nov 2023 22:13:20 -0000 junk",
            "Tue, 14 Nov 2023 22:13:2_0 -0000",
            "Tue, 14 Nov yyyy 22:13:20 -0000",
            "Tue, -1 Nov 2023 22:13:20 -0000",
            "Tue, 14 Nov 2023 22:13:20 --200",
            "Fri, 31 Dec 9999 23:59:59 -0100",
            "Fri, 31 Dec 10000 23:59:59 -0000",
            "Fri, 31 Dec 9999 99999999999999999999:00 -0000",
            "99999999999999 Dec 9999 00:00 -0000",
        ] {
            assert_eq!(seconds(text), None, "{text:?}");
        }
    }

    #[test]
    fn what_is_printed_reads_back() {
        for (version, text) in [
            (1_700_000_000, "Tue, 14 Nov 2023 22:13:20 -0000"),
            (0, "Thu, 01 Jan 1970 00:00:00 -0000"),
            (-1, "Wed, 31 Dec 1969 23:59:59 -0000"),
            (SECONDS_MAX, "Fri, 31 Dec 9999 23:59:59 -0000"),
        ] {
            assert_eq!(print(Stamp::from_seconds(version)), text);
            assert_eq!(seconds(text), Some(version));
        }
        assert_eq!(print(Stamp::from_seconds(SECONDS_MIN)), "Mon, 01 Jan 0001 00:00:00 -0000");
        assert_eq!(print(Stamp::from_seconds(i64::MIN)), "Mon, 01 Jan 0001 00:00:00 -0000");
    }
}
