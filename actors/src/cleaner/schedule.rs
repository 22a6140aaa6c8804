//! When the full scan is due.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, Utc};
use croner::Cron;

use crate::model::Stamp;

/// Fields of an expression: minute, hour, day of the month, month, day of the week.
const FIELDS: usize = 5;

/// A cron expression of five fields; times are in UTC.
#[derive(Clone, Debug)]
pub struct Schedule(Cron);

/// A text that is no such expression; says why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WrongSchedule(String);

impl fmt::Display for WrongSchedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for WrongSchedule {}

impl FromStr for Schedule {
    type Err = WrongSchedule;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fields = text.split_ascii_whitespace().count();
        if fields != FIELDS {
            return Err(WrongSchedule(format!("has {fields} fields instead of {FIELDS}")));
        }
        let schedule = text.parse().map(Self).map_err(|error| WrongSchedule(format!("is no schedule: {error}")))?;
        match schedule.next_after(Stamp::from_seconds(0)) {
            Some(_) => Ok(schedule),
            None => Err(WrongSchedule("never comes".to_owned())),
        }
    }
}

impl Schedule {
    /// How long from `now` to the next time, which is after `now`.
    pub fn wait_from(&self, now: Stamp) -> Option<Duration> {
        let next = self.next_after(now)?;
        u64::try_from(next.seconds() - now.seconds()).ok().map(Duration::from_secs)
    }

    fn next_after(&self, now: Stamp) -> Option<Stamp> {
        let now: DateTime<Utc> = DateTime::from_timestamp(now.seconds(), 0)?;
        let next = self.0.find_next_occurrence(&now, false).ok()?;
        Some(Stamp::from_seconds(next.timestamp()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_time_is_found() {
        // 2023-11-14 22:13:20 UTC, a Tuesday
        let now = Stamp::from_seconds(1_700_000_000);
        let wait = |text: &str| text.parse::<Schedule>().unwrap().wait_from(now).unwrap().as_secs();
        assert_eq!(wait("* * * * *"), 40);
        assert_eq!(wait("30 3 * * *"), 5 * 3600 + 16 * 60 + 40);
        assert_eq!(wait("*/15 22 * * TUE"), 100);
        assert_eq!(wait("0 0 * * 3"), 3600 + 46 * 60 + 40);
    }

    #[test]
    fn what_is_no_schedule_of_five_fields_is_refused() {
        for wrong in ["", "* * * *", "* * * * * *", "61 * * * *", "x * * * *", "@daily", "* * 31 2 *"] {
            assert!(wrong.parse::<Schedule>().is_err(), "{wrong}");
        }
        let error = "0 3 * *".parse::<Schedule>().unwrap_err().to_string();
        assert_eq!(error, "has 4 fields instead of 5");
    }
}
