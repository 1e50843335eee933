//! A delay that doubles with every failed login, for all who come the same way.
//!
//! An attempt counts as failed when it is admitted, and success takes that back: so attempts that
//! arrive together, or whose client hangs up, are not free.

use std::time::Duration;

const FIRST_MS: i64 = 1_000;
const LONGEST_MS: i64 = 60_000;

#[derive(Debug, Default)]
pub(super) struct Throttle {
    failures: u32,
    last_ms: i64,
}

impl Throttle {
    /// Admits an attempt, or says how long to wait.
    pub(super) fn admit(&mut self, now_ms: i64) -> Result<(), Duration> {
        let since = now_ms.saturating_sub(self.last_ms);
        let wait = self.delay_ms().saturating_sub(since);
        // A clock that was set back must not lock the operator out for as long.
        if since >= 0 && wait > 0 {
            return Err(Duration::from_millis(wait.unsigned_abs()));
        }
        self.failures = self.failures.saturating_add(1);
        self.last_ms = now_ms;
        Ok(())
    }

    pub(super) fn succeeded(&mut self) {
        *self = Self::default();
    }

    fn delay_ms(&self) -> i64 {
        match self.failures.checked_sub(1) {
            None => 0,
            Some(doublings) => FIRST_MS.saturating_mul(1_i64 << doublings.min(10)).min(LONGEST_MS),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_doubles_up_to_a_minute_and_success_ends_it() {
        let mut throttle = Throttle::default();
        let mut now = 1_790_000_000_000;
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60, 60] {
            assert_eq!(throttle.admit(now), Ok(()));
            assert_eq!(throttle.admit(now), Err(Duration::from_secs(seconds)));
            now += i64::try_from(seconds).unwrap() * 1000;
            assert_eq!(throttle.admit(now - 1), Err(Duration::from_millis(1)));
        }
        throttle.admit(now).unwrap();
        throttle.succeeded();
        assert_eq!(throttle.admit(now), Ok(()));
    }

    #[test]
    fn a_clock_set_back_does_not_lock_for_long() {
        let mut throttle = Throttle::default();
        throttle.admit(1_790_000_000_000).unwrap();
        assert_eq!(throttle.admit(1_000_000_000_000), Ok(()));
        assert_eq!(throttle.admit(1_000_000_000_001), Err(Duration::from_millis(1_999)));
    }
}
