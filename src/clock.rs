//! Time as an argument. The only reader of the ambient clock.

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
    use super::{doubled, has_come};

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
}
