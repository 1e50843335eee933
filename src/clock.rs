//! Time as an argument. The only reader of the wall clock, and the calendar.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A minute, an hour and a day, in ms.
pub const MINUTE_MS: i64 = 60 * 1000;
pub const HOUR_MS: i64 = 60 * MINUTE_MS;
pub const DAY_MS: i64 = 24 * HOUR_MS;

/// Whether a time that was set at most `longest_ms` ahead has come. One that is further ahead was set by a clock that
/// was ahead itself, and set back since: whoever waited for it would wait as long as that was wrong.
#[must_use]
pub const fn has_come(at_ms: i64, now_ms: i64, longest_ms: i64) -> bool {
    at_ms <= now_ms || at_ms.saturating_sub(now_ms) > longest_ms
}

/// A pause that was doubled so often, as far as the longest one.
#[must_use]
pub fn doubled(first_ms: i64, times: u32, longest_ms: i64) -> i64 {
    first_ms.saturating_mul(1 << times.min(62)).min(longest_ms)
}

/// A time as ISO 8601 in UTC, to the second.
#[must_use]
pub fn utc(time_ms: i64) -> String {
    let (days, rest) = (time_ms.div_euclid(DAY_MS), time_ms.rem_euclid(DAY_MS) / 1000);
    let (year, month, day) = civil(days);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

/// The date of a day since 1970-01-01, by Howard Hinnant's `civil_from_days`: years begin in
/// March, so that the leap day is the last of its year.
#[must_use]
pub fn civil(days: i64) -> (i64, i64, i64) {
    let days = days.saturating_add(719_468);
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// Wall-clock time, in the resolution that the node stores.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// Milliseconds since the Unix epoch.
    fn now_ms(&self) -> i64;

    /// Seconds since the Unix epoch.
    fn now_secs(&self) -> i64 {
        self.now_ms() / 1000
    }
}

/// The clock of the machine.
#[derive(Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
    fn now_ms(&self) -> i64 {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
    }
}

/// A shared clock.
pub type SharedClock = Arc<dyn Clock>;

#[cfg(test)]
mod tests {
    use super::{civil, doubled, has_come, utc};

    #[test]
    fn a_time_comes_and_one_that_nobody_can_have_meant_is_here() {
        for (at_ms, is_here) in [(i64::MIN, true), (99, true), (100, true), (101, false), (150, false), (151, true)] {
            assert_eq!(has_come(at_ms, 100, 50), is_here, "{at_ms}");
        }
        assert!(has_come(i64::MAX, i64::MIN, 50));
    }

    #[test]
    fn a_pause_is_doubled_up_to_the_longest() {
        for (times, pause_ms) in [(0, 30), (1, 60), (4, 480), (5, 500), (62, 500), (64, 500), (u32::MAX, 500)] {
            assert_eq!(doubled(30, times, 500), pause_ms, "{times}");
        }
    }

    #[test]
    fn days_have_dates_and_times_are_written_in_utc() {
        for (day, written) in [(0, (1970, 1, 1)), (-1, (1969, 12, 31)), (11_016, (2000, 2, 29)), (47_541, (2100, 3, 1))]
        {
            assert_eq!(civil(day), written, "{day}");
        }
        for (time_ms, text) in [
            (-1, "1969-12-31T23:59:59Z"),
            (951_782_400_000, "2000-02-29T00:00:00Z"),
            (951_868_800_000, "2000-03-01T00:00:00Z"),
            (1_790_000_000_123, "2026-09-21T14:13:20Z"),
        ] {
            assert_eq!(utc(time_ms), text, "{time_ms}");
        }
    }
}
