//! Days and civil dates of the proleptic Gregorian calendar.
//!
//! The era arithmetic is Howard Hinnant's (`days_from_civil`, `civil_from_days`): a year starts in
//! March, so that the leap day is its last one and no table is needed.

/// Days from 1970-01-01 to the given day of a month (1..=12). `day` may lie outside of the month.
pub fn days_from_civil(year: i64, month: i64, day: i64) -> Option<i64> {
    let year = if month <= 2 { year.checked_sub(1)? } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = (month + 9).rem_euclid(12);
    let first_of_month = (153 * month_from_march + 2) / 5;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + first_of_month;
    era.checked_mul(146_097)?.checked_add(day_of_era)?.checked_add(day.checked_sub(1)?)?.checked_sub(719_468)
}

/// Year, month (1..=12) and day of the day `days` after 1970-01-01. `days` must be within a few
/// million years, which every four-digit year is.
pub fn civil_from_days(days: i64) -> (i64, usize, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, usize::try_from(month).unwrap_or(1), day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_days() {
        assert_eq!(days_from_civil(1970, 1, 1), Some(0));
        assert_eq!(days_from_civil(2000, 2, 29), Some(11_016));
        assert_eq!(days_from_civil(1, 1, 1), Some(-719_162));
        assert_eq!(days_from_civil(9999, 12, 31), Some(2_932_896));
    }

    #[test]
    fn every_day_of_four_digit_years_goes_there_and_back() {
        for days in -719_162..=2_932_896 {
            let (year, month, day) = civil_from_days(days);
            assert_eq!(days_from_civil(year, month as i64, day), Some(days));
            assert!((1..=12).contains(&month) && (1..=31).contains(&day));
        }
    }

    #[test]
    fn a_day_outside_of_its_month_wraps() {
        assert_eq!(days_from_civil(2023, 2, 30), days_from_civil(2023, 3, 2));
        assert_eq!(days_from_civil(2023, 3, 0), days_from_civil(2023, 2, 28));
    }
}
