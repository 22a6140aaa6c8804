//! Versions: every operation has one of its own, so that it is always decided which is the newest.

/// Seconds since the beginning of Wednesday, 15 November 2023.
pub type Stamp = u64;

/// Newer than every version that is used.
pub const LAST: Stamp = 1_000_000;

const DAY_SECONDS: u64 = 86_400;
const FIRST_DAY: u64 = 15;
const WEEKDAYS: [&str; 7] = ["Wed", "Thu", "Fri", "Sat", "Sun", "Mon", "Tue"];
/// The epoch's second 0 of versions.
const FIRST_SECOND: i64 = 1_700_006_400;

/// As an answer shows it.
pub fn shown(stamp: Stamp) -> String {
    let (day, second) = (stamp / DAY_SECONDS, stamp % DAY_SECONDS);
    assert!(FIRST_DAY + day <= 30, "November is over");
    let weekday = WEEKDAYS[day as usize % 7];
    let (hour, minute) = (second / 3600, second / 60 % 60);
    format!("{weekday}, {:02} Nov 2023 {hour:02}:{minute:02}:{:02} -0000", FIRST_DAY + day, second % 60)
}

/// As a client writes it in a query.
pub fn query(stamp: Stamp) -> String {
    shown(stamp).replace(',', "%2C").replace(':', "%3A").replace(' ', "+")
}

/// Reads what an answer shows; `None` when that is no version of ours.
pub fn read(shown_text: &str) -> Option<Stamp> {
    let words: Vec<&str> = shown_text.split([' ', ':']).collect();
    let [_, day, "Nov", "2023", hour, minute, second, "-0000"] = words[..] else { return None };
    let number = |text: &str| text.parse::<u64>().ok();
    let day = number(day)?.checked_sub(FIRST_DAY)?;
    let stamp = day * DAY_SECONDS + number(hour)? * 3600 + number(minute)? * 60 + number(second)?;
    (shown(stamp) == shown_text).then_some(stamp)
}

/// As the database has it.
pub fn stored(stamp: Stamp) -> i64 {
    FIRST_SECOND + i64::try_from(stamp).unwrap()
}

#[test]
fn versions_are_read_as_they_are_shown() {
    assert_eq!(shown(0), "Wed, 15 Nov 2023 00:00:00 -0000");
    for stamp in [0, 59, 3_599, 86_399, 86_400, 7 * 86_400 + 4_000, 1_300_000] {
        assert_eq!(read(&shown(stamp)), Some(stamp));
    }
    assert_eq!(read("Thu, 15 Nov 2023 00:00:00 -0000"), None);
}
