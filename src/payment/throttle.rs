//! How much one key may ask for: requests and tokens a minute, streams at a time.
//!
//! A minute is the last 60 s, so no minute, wherever it begins, sees more. Tokens are counted as estimated
//! when a request begins, and as used when it has ended. Each vendor's endpoints count by themselves, so that a
//! burst at one of them stops nobody at another. A token that pays for one request is no key, and
//! is limited by itself. Kept in memory, for one process, by a salted hash of the key.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest, Sha256};

use super::Payment;
use crate::clock::SharedClock;
use crate::config::{KeyLimits, Live};
use crate::dialect::Protocol;

const WINDOW_MS: i64 = 60_000;
/// Seconds after which a place for another stream may be free.
const STREAM_SECS: u64 = 1;
/// Above so many keys, those that are quiet are forgotten.
const TIDY_ABOVE: usize = 10_000;
/// Most keys that are counted at a time: whoever invents keys must not fill the memory.
const MOST_KEYS: usize = 100_000;

/// It would be too much now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooFast {
    pub what: &'static str,
    /// Seconds after which it would not be.
    pub secs: u64,
}

/// What is left of one allowance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    pub limit: u64,
    pub remaining: u64,
    /// Seconds until all of it is there again.
    pub reset_secs: u64,
}

/// What is left of a key's allowances, where there are any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowances {
    pub requests: Option<Left>,
    pub tokens: Option<Left>,
}

/// What was spent of an allowance in the last minute, the oldest first.
#[derive(Debug, Default)]
struct Window {
    spent: VecDeque<Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    at_ms: i64,
    pass: u64,
    amount: u64,
}

#[derive(Debug, Default)]
struct Key {
    requests: Window,
    tokens: Window,
    streams: usize,
}

/// What is left of a key, and of whose endpoints it asks.
type Name = [u8; 32];

/// All keys of the last minute.
#[derive(Debug)]
pub struct KeyThrottle {
    salt: [u8; 32],
    limits: Live<KeyLimits>,
    clock: SharedClock,
    keys: Mutex<Keys>,
}

#[derive(Debug, Default)]
struct Keys {
    by_name: HashMap<Name, Key>,
    passes: u64,
}

/// The leave to make one request. Dropped, it gives its stream's place back.
#[derive(Debug)]
pub struct Pass {
    throttle: Arc<KeyThrottle>,
    /// `None`: nothing is counted.
    key: Option<Name>,
    id: u64,
    streams: bool,
}

impl Window {
    /// Forgets what is over; and what is in the future, since the clock was set back.
    fn tidy(&mut self, now_ms: i64) {
        self.spent.retain(|entry| (0..WINDOW_MS).contains(&now_ms.saturating_sub(entry.at_ms)));
    }

    fn sum(&self) -> u64 {
        self.spent.iter().fold(0, |sum, entry| sum.saturating_add(entry.amount))
    }

    /// How long until `amount` fits, in ms. What is more than the limit itself fits into an empty minute.
    fn wait_ms(&self, now_ms: i64, limit: u64, amount: u64) -> i64 {
        let amount = amount.min(limit);
        let mut left = self.sum().saturating_add(amount);
        let mut wait_ms = 0;
        for entry in &self.spent {
            if left <= limit {
                break;
            }
            left = left.saturating_sub(entry.amount);
            wait_ms = entry.at_ms.saturating_add(WINDOW_MS).saturating_sub(now_ms);
        }
        wait_ms
    }

    fn left(&self, now_ms: i64, limit: u64) -> Left {
        let last_ms = self.spent.back().map_or(now_ms, |entry| entry.at_ms.saturating_add(WINDOW_MS));
        Left { limit, remaining: limit.saturating_sub(self.sum()), reset_secs: secs(last_ms.saturating_sub(now_ms)) }
    }
}

impl Key {
    fn tidy(&mut self, now_ms: i64) {
        self.requests.tidy(now_ms);
        self.tokens.tidy(now_ms);
    }

    fn is_quiet(&self) -> bool {
        self.streams == 0 && self.requests.spent.is_empty() && self.tokens.spent.is_empty()
    }
}

impl KeyThrottle {
    #[must_use]
    pub fn new(limits: KeyLimits, clock: SharedClock) -> Arc<Self> {
        Arc::new(Self { salt: rand::random(), limits: Live::new(limits), clock, keys: Mutex::default() })
    }

    /// What one key may do.
    #[must_use]
    pub fn limits(&self) -> KeyLimits {
        *self.limits.get()
    }

    /// From now on these.
    pub fn set_limits(&self, limits: KeyLimits) {
        self.limits.put(limits);
    }

    /// The key that a payment is limited as; `None` where nothing is limited.
    #[must_use]
    pub fn key_of<'a>(&self, payment: &'a Payment) -> Option<&'a str> {
        match payment {
            Payment::Key(_) | Payment::TokenKey(_) if self.limits() != KeyLimits::default() => payment.key_hex(),
            _ => None,
        }
    }

    /// Lets a request of about so many tokens through.
    ///
    /// # Errors
    /// When it is too much for its key now. Nothing is counted then.
    pub fn enter(
        self: &Arc<Self>,
        payment: &Payment,
        protocol: Protocol,
        tokens: u64,
        streams: bool,
    ) -> Result<Pass, TooFast> {
        let pass = |key, id| Pass { throttle: Arc::clone(self), key, id, streams };
        let Some(name) = self.key_of(payment).map(|key| self.name(key, protocol)) else { return Ok(pass(None, 0)) };
        let now_ms = self.clock.now_ms();
        let mut keys = self.lock();
        if keys.by_name.len() >= TIDY_ABOVE && !keys.by_name.contains_key(&name) {
            keys.by_name.retain(|_, key| {
                key.tidy(now_ms);
                !key.is_quiet()
            });
        }
        if keys.by_name.len() >= MOST_KEYS && !keys.by_name.contains_key(&name) {
            return Ok(pass(None, 0));
        }
        keys.passes = keys.passes.wrapping_add(1);
        let id = keys.passes;
        let key = keys.by_name.entry(name).or_default();
        key.tidy(now_ms);
        self.check(key, tokens, streams, now_ms)?;
        let limits = self.limits();
        if limits.requests_per_minute.is_some() {
            key.requests.spent.push_back(Entry { at_ms: now_ms, pass: id, amount: 1 });
        }
        if limits.tokens_per_minute.is_some() {
            key.tokens.spent.push_back(Entry { at_ms: now_ms, pass: id, amount: tokens });
        }
        key.streams = key.streams.saturating_add(usize::from(streams));
        Ok(pass(Some(name), id))
    }

    fn check(&self, key: &Key, tokens: u64, streams: bool, now_ms: i64) -> Result<(), TooFast> {
        let KeyLimits { requests_per_minute, tokens_per_minute, max_streams } = self.limits();
        if streams && max_streams.is_some_and(|most| key.streams >= most) {
            return Err(TooFast { what: "streams at a time", secs: STREAM_SECS });
        }
        let windows = [
            ("requests a minute", requests_per_minute, &key.requests, 1),
            ("tokens a minute", tokens_per_minute, &key.tokens, tokens),
        ];
        for (what, limit, window, amount) in windows {
            let wait_ms = limit.map_or(0, |limit| window.wait_ms(now_ms, limit, amount));
            if wait_ms > 0 {
                return Err(TooFast { what, secs: secs(wait_ms) });
            }
        }
        Ok(())
    }

    /// What is left to a key at these endpoints.
    #[must_use]
    pub fn allowances(&self, key: &str, protocol: Protocol) -> Allowances {
        let name = self.name(key, protocol);
        let now_ms = self.clock.now_ms();
        let mut keys = self.lock();
        let mut none = Key::default();
        let key = keys.by_name.get_mut(&name).unwrap_or(&mut none);
        key.tidy(now_ms);
        let limits = self.limits();
        Allowances {
            requests: limits.requests_per_minute.map(|limit| key.requests.left(now_ms, limit)),
            tokens: limits.tokens_per_minute.map(|limit| key.tokens.left(now_ms, limit)),
        }
    }

    fn name(&self, key: &str, protocol: Protocol) -> Name {
        let group: &[u8] = match protocol {
            Protocol::OpenAi => b"o",
            Protocol::Anthropic => b"a",
            Protocol::Gemini => b"g",
        };
        Sha256::new().chain_update(self.salt).chain_update(group).chain_update(key).finalize().into()
    }

    fn lock(&self) -> MutexGuard<'_, Keys> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pass {
    /// Counts what was really used.
    pub fn used(&self, tokens: u64) {
        let Some(name) = &self.key else { return };
        let mut keys = self.throttle.lock();
        let entry = keys
            .by_name
            .get_mut(name)
            .and_then(|key| key.tokens.spent.iter_mut().rev().find(|entry| entry.pass == self.id));
        if let Some(entry) = entry {
            entry.amount = tokens;
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let Some(name) = self.key.as_ref().filter(|_| self.streams) else { return };
        if let Some(key) = self.throttle.lock().by_name.get_mut(name) {
            key.streams = key.streams.saturating_sub(1);
        }
    }
}

fn secs(ms: i64) -> u64 {
    u64::try_from(ms.max(0)).unwrap_or(0).div_ceil(1_000)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use Protocol::{Anthropic, OpenAi};

    use super::*;
    use crate::clock::Clock;

    #[derive(Debug, Default)]
    struct Hands(AtomicI64);

    impl Clock for Hands {
        fn now_ms(&self) -> i64 {
            self.0.load(Ordering::SeqCst)
        }
    }

    fn throttle(requests: u64, tokens: u64, streams: usize) -> (Arc<Hands>, Arc<KeyThrottle>) {
        let some = |limit| (limit > 0).then_some(limit);
        let limits = KeyLimits {
            requests_per_minute: some(requests),
            tokens_per_minute: some(tokens),
            max_streams: (streams > 0).then_some(streams),
        };
        let hands = Arc::new(Hands::default());
        (Arc::clone(&hands), KeyThrottle::new(limits, hands))
    }

    fn key(name: &str) -> Payment {
        Payment::Key(name.to_owned())
    }

    #[test]
    fn no_minute_sees_more_requests() {
        let (hands, throttle) = throttle(3, 0, 0);
        let (mut let_through, mut promised): (Vec<i64>, i64) = (Vec::new(), i64::MAX);
        for now_ms in (0..600_000).step_by(7_001) {
            hands.0.store(now_ms, Ordering::SeqCst);
            match throttle.enter(&key("a"), OpenAi, 1, false) {
                Ok(_) => {
                    let_through.push(now_ms);
                    promised = i64::MAX;
                }
                Err(TooFast { secs, .. }) => {
                    assert!(now_ms < promised, "it was told to come now");
                    promised = now_ms + i64::try_from(secs).unwrap() * 1_000;
                }
            }
            if now_ms < 14_003 {
                assert!(throttle.enter(&key("b"), OpenAi, 1, false).is_ok(), "each key for itself");
            }
        }
        for first in &let_through {
            assert!(let_through.iter().filter(|at| (0..60_000).contains(&(**at - first))).count() <= 3);
        }
        assert!(let_through.len() >= 27, "{let_through:?}");
    }

    #[test]
    fn tokens_are_settled_and_a_large_request_fits_an_empty_minute() {
        let (hands, throttle) = throttle(0, 100, 0);
        let first = throttle.enter(&key("a"), OpenAi, 90, false).unwrap();
        assert_eq!(
            throttle.enter(&key("a"), OpenAi, 20, false).unwrap_err(),
            TooFast { what: "tokens a minute", secs: 60 }
        );
        first.used(10);
        drop(first);
        assert_eq!(
            throttle.allowances("a", OpenAi).tokens.unwrap(),
            Left { limit: 100, remaining: 90, reset_secs: 60 }
        );
        assert!(throttle.enter(&key("a"), OpenAi, 500, false).is_err());
        hands.0.store(60_000, Ordering::SeqCst);
        assert!(throttle.enter(&key("a"), OpenAi, 500, false).is_ok());
        assert_eq!(throttle.allowances("a", OpenAi).tokens.unwrap().remaining, 0);
    }

    #[test]
    fn a_stream_gives_its_place_back() {
        let (_, throttle) = throttle(0, 0, 1);
        let running = throttle.enter(&key("a"), OpenAi, 1, true).unwrap();
        assert_eq!(throttle.enter(&key("a"), OpenAi, 1, true).unwrap_err().what, "streams at a time");
        assert!(throttle.enter(&key("a"), OpenAi, 1, false).is_ok());
        drop(running);
        assert!(throttle.enter(&key("a"), OpenAi, 1, true).is_ok());
        assert_eq!(throttle.allowances("a", OpenAi), Allowances::default());
    }

    #[test]
    fn a_burst_at_one_vendors_endpoints_stops_nobody_at_anothers() {
        let (_, throttle) = throttle(1, 0, 1);
        let running = throttle.enter(&key("a"), Anthropic, 1, true).unwrap();
        assert!(throttle.enter(&key("a"), Anthropic, 1, false).is_err());
        let other = throttle.enter(&key("a"), OpenAi, 1, true).unwrap();
        assert!(throttle.enter(&key("a"), OpenAi, 1, false).is_err());
        drop((running, other));
        for protocol in [Anthropic, OpenAi] {
            assert_eq!(throttle.allowances("a", protocol).requests.unwrap().remaining, 0);
        }
    }

    #[test]
    fn quiet_keys_are_forgotten() {
        let (hands, throttle) = throttle(5, 0, 0);
        for name in 0..TIDY_ABOVE {
            drop(throttle.enter(&key(&name.to_string()), OpenAi, 1, false));
        }
        hands.0.store(60_000, Ordering::SeqCst);
        drop(throttle.enter(&key("another"), OpenAi, 1, false));
        assert_eq!(throttle.lock().by_name.len(), 1);
    }
}
