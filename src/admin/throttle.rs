//! A delay that doubles with every failed login.
//!
//! An attempt counts as failed when it is admitted, and success takes that back: so attempts that
//! arrive together, or whose client hangs up, are not free.
//!
//! A stranger who guesses all the time shall not keep the operator out, so who is refused is asked of the narrowest
//! first: the machine itself and the onion have a delay of their own, and so has every address. Strangers of all
//! addresses together have one more, or new addresses would be new guesses. It ends long before that of an address
//! which guesses on, and an address from which somebody has logged in is none of theirs.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use super::password::Door;
use crate::clock::{MINUTE_MS, doubled};
use crate::net::public::is_public;

const FIRST_MS: i64 = 1_000;
/// Longest delay of an address on the public internet. Behind any other there may be a proxy, and all clients.
const LONGEST_OF_ONE_MS: i64 = 15 * MINUTE_MS;
/// Most addresses that are remembered. An address is only remembered once an attempt of it is admitted, so strangers
/// need as many minutes to fill it.
const MOST_ADDRESSES: usize = 1_000;

/// All delays of a login.
#[derive(Debug, Default)]
pub(super) struct Throttles {
    machine: Throttle,
    onion: Throttle,
    strangers: Throttle,
    addresses: HashMap<IpAddr, Caller>,
}

/// Who came from one address.
#[derive(Debug)]
struct Caller {
    throttle: Throttle,
    has_logged_in: bool,
}

impl Throttles {
    /// Admits an attempt, or says how long to wait.
    pub(super) fn admit(&mut self, door: Door, now_ms: i64) -> Result<(), Duration> {
        let address = match door {
            Door::Machine => return self.machine.admit(now_ms),
            Door::Onion => return self.onion.admit(now_ms),
            Door::Address(address) => address,
        };
        let caller = self.addresses.get(&address);
        caller.map_or(Ok(()), |caller| caller.throttle.look(now_ms))?;
        if !caller.is_some_and(|caller| caller.has_logged_in) {
            self.strangers.admit(now_ms)?;
        }
        self.caller(address).throttle.count(now_ms);
        Ok(())
    }

    pub(super) fn succeeded(&mut self, door: Door) {
        let address = match door {
            Door::Machine => return self.machine.succeeded(),
            Door::Onion => return self.onion.succeeded(),
            Door::Address(address) => address,
        };
        let caller = self.caller(address);
        caller.throttle.succeeded();
        if !std::mem::replace(&mut caller.has_logged_in, true) {
            self.strangers.succeeded();
        }
    }

    fn caller(&mut self, address: IpAddr) -> &mut Caller {
        if self.addresses.len() >= MOST_ADDRESSES && !self.addresses.contains_key(&address) {
            // Who has logged in makes room last.
            let quietest = self.addresses.iter().min_by_key(|(_, other)| (other.has_logged_in, other.throttle.last_ms));
            if let Some(quietest) = quietest.map(|(address, _)| *address) {
                self.addresses.remove(&quietest);
            }
        }
        self.addresses.entry(address).or_insert_with(|| {
            let longest_ms = if is_public(address) { LONGEST_OF_ONE_MS } else { MINUTE_MS };
            Caller { throttle: Throttle::up_to(longest_ms), has_logged_in: false }
        })
    }
}

/// One delay.
#[derive(Debug)]
struct Throttle {
    failures: u32,
    last_ms: i64,
    longest_ms: i64,
}

impl Default for Throttle {
    fn default() -> Self {
        Self::up_to(MINUTE_MS)
    }
}

impl Throttle {
    const fn up_to(longest_ms: i64) -> Self {
        Self { failures: 0, last_ms: 0, longest_ms }
    }

    /// Whether an attempt would be admitted, or how long to wait for that.
    fn look(&self, now_ms: i64) -> Result<(), Duration> {
        let since = now_ms.saturating_sub(self.last_ms);
        let wait = self.delay_ms().saturating_sub(since);
        // A clock that was set back must not lock the operator out for as long.
        if since >= 0 && wait > 0 { Err(Duration::from_millis(wait.unsigned_abs())) } else { Ok(()) }
    }

    fn count(&mut self, now_ms: i64) {
        self.failures = self.failures.saturating_add(1);
        self.last_ms = now_ms;
    }

    fn admit(&mut self, now_ms: i64) -> Result<(), Duration> {
        self.look(now_ms)?;
        self.count(now_ms);
        Ok(())
    }

    fn succeeded(&mut self) {
        self.failures = 0;
    }

    fn delay_ms(&self) -> i64 {
        match self.failures.checked_sub(1) {
            None => 0,
            Some(doublings) => doubled(FIRST_MS, doublings, self.longest_ms),
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

    #[test]
    fn so_many_addresses_are_remembered_and_those_longest_that_logged_in() {
        let door = |number: u32| Door::Address(IpAddr::from(number.to_be_bytes()));
        let (mut throttles, mut now) = (Throttles::default(), 1_790_000_000_000);
        let (home, most) = (u32::from_be_bytes([9, 9, 9, 9]), u32::try_from(MOST_ADDRESSES).unwrap());
        throttles.admit(door(home), now).unwrap();
        throttles.succeeded(door(home));
        for stranger in 0..most + 5 {
            now += MINUTE_MS;
            throttles.admit(door(u32::from_be_bytes([8, 0, 0, 0]) + stranger), now).unwrap();
            let refused = throttles.admit(door(1), now).unwrap_err();
            assert!(
                refused <= Duration::from_secs(60) && !throttles.addresses.contains_key(&IpAddr::from([0, 0, 0, 1]))
            );
        }
        assert_eq!(throttles.addresses.len(), MOST_ADDRESSES);
        assert!(throttles.addresses.contains_key(&IpAddr::from([9, 9, 9, 9])));
        assert_eq!(throttles.admit(door(home), now), Ok(()));
    }
}
