//! What one address may ask for without paying: invoices that make keys, guesses at vouchers, and quotes.
//!
//! Kept in memory, for one process and at most [`MAX_VISITORS`] addresses, by a keyed hash of the
//! address (of its /64 for IPv6, which one customer has whole): no address is stored or logged. In
//! Tor all clients have one address and share one allowance; there the operator turns it off.
//!
//! A voucher's code has too many letters to be guessed at any rate: what is bounded is what guessing
//! costs the node. A delay for all, as the operator's login has it, would let one stranger lock out
//! everybody's vouchers.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::clock::SharedClock;
use crate::config::{Clients, Live};
use crate::vault::Vault;

/// Most addresses that are remembered. The one that was longest quiet makes room.
pub const MAX_VISITORS: usize = 10_000;

const HOUR_MS: i64 = 60 * 60 * 1000;
const MINUTE_MS: i64 = 60 * 1000;

/// The allowance of addresses, and how much of it they have used.
#[derive(Debug)]
pub struct Visitors {
    vault: Vault,
    clock: SharedClock,
    allowance: Live<Clients>,
    seen: Mutex<HashMap<String, Visitor>>,
}

/// What one address did lately.
#[derive(Debug, Default)]
struct Visitor {
    created: Window<HOUR_MS>,
    wrong: Window<HOUR_MS>,
    quoted: Window<MINUTE_MS>,
    /// Invoices that may still wait to be paid, and when their time is over.
    waiting: Vec<(String, i64)>,
    last_ms: i64,
}

/// The moments of the last so many ms at which something was done.
#[derive(Debug, Default)]
struct Window<const SPAN_MS: i64>(VecDeque<i64>);

impl<const SPAN_MS: i64> Window<SPAN_MS> {
    /// Forgets what is over; and what is in the future, since the clock was set back.
    fn tidy(&mut self, now_ms: i64) {
        self.0.retain(|at| (0..SPAN_MS).contains(&now_ms.saturating_sub(*at)));
    }

    /// Whether there is room for one more, or how many ms to wait for it.
    fn room(&mut self, now_ms: i64, most: usize) -> Result<(), i64> {
        self.tidy(now_ms);
        // What makes room is the oldest of those that fill it.
        let filling = self.0.len().checked_sub(most).and_then(|first| self.0.get(first));
        match filling {
            None => Ok(()),
            Some(oldest) => Err(oldest.saturating_add(SPAN_MS).saturating_sub(now_ms)),
        }
    }

    fn count(&mut self, now_ms: i64) {
        self.0.push_back(now_ms);
    }

    /// It does not count after all.
    fn take_back(&mut self) {
        self.0.pop_back();
    }
}

/// It would be too much now; seconds after which it would not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMuch(pub u64);

impl TooMuch {
    fn after_ms(ms: i64) -> Self {
        Self(u64::try_from(ms.max(0)).unwrap_or(0).div_ceil(1000).max(1))
    }
}

impl Visitors {
    #[must_use]
    pub fn new(vault: Vault, clock: SharedClock, allowance: Clients) -> Self {
        Self { vault, clock, allowance: Live::new(allowance), seen: Mutex::default() }
    }

    /// What one address may do.
    #[must_use]
    pub fn allowance(&self) -> Clients {
        *self.allowance.get()
    }

    /// From now on this.
    pub fn set_allowance(&self, allowance: Clients) {
        self.allowance.put(allowance);
    }

    /// Invoices of this address that were not known to be paid, and whose time is not over.
    #[must_use]
    pub fn waiting(&self, address: Option<IpAddr>) -> Vec<String> {
        let now_ms = self.clock.now_ms();
        let mut waiting = Vec::new();
        self.with(address, |visitor| {
            visitor.waiting.retain(|(_, end)| *end > now_ms);
            waiting.extend(visitor.waiting.iter().map(|(id, _)| id.clone()));
        });
        waiting
    }

    /// Counts an invoice that is about to be made and offered until `end_ms`.
    ///
    /// # Errors
    /// When the address has made, or has waiting, too many.
    pub fn admit_invoice(&self, address: Option<IpAddr>, id: &str, end_ms: i64) -> Result<(), TooMuch> {
        let now_ms = self.clock.now_ms();
        let Clients { creates_per_hour, max_pending, .. } = self.allowance();
        let mut outcome = Ok(());
        self.with(address, |visitor| {
            visitor.waiting.retain(|(_, end)| *end > now_ms);
            if max_pending.is_some_and(|most| visitor.waiting.len() >= most) {
                let first = visitor.waiting.iter().map(|(_, end)| *end).min().unwrap_or(now_ms);
                outcome = Err(TooMuch::after_ms(first.saturating_sub(now_ms)));
                return;
            }
            if let Some(most) = creates_per_hour {
                if let Err(wait_ms) = visitor.created.room(now_ms, most) {
                    outcome = Err(TooMuch::after_ms(wait_ms));
                    return;
                }
                visitor.created.count(now_ms);
            }
            if max_pending.is_some() {
                visitor.waiting.push((id.to_owned(), end_ms));
            }
        });
        outcome
    }

    /// Forgets invoices that wait no more.
    pub fn ended(&self, address: Option<IpAddr>, ids: &[String]) {
        self.with(address, |visitor| visitor.waiting.retain(|(id, _)| !ids.contains(id)));
    }

    /// An invoice that was admitted did not come about.
    pub fn not_made(&self, address: Option<IpAddr>, id: &str) {
        self.with(address, |visitor| {
            visitor.waiting.retain(|(waiting, _)| waiting != id);
            visitor.created.take_back();
        });
    }

    /// Whether the address may send a voucher's code. Codes that are good cost it nothing, however many
    /// come at once.
    ///
    /// # Errors
    /// When it has sent too many that were none.
    pub fn admit_guess(&self, address: Option<IpAddr>) -> Result<(), TooMuch> {
        let Some(most) = self.allowance().wrong_vouchers_per_hour else { return Ok(()) };
        let now_ms = self.clock.now_ms();
        let mut outcome = Ok(());
        self.with(address, |visitor| outcome = visitor.wrong.room(now_ms, most).map_err(TooMuch::after_ms));
        outcome
    }

    /// Counts a quote that is about to be made.
    ///
    /// # Errors
    /// When the address has had too many.
    pub fn admit_quote(&self, address: Option<IpAddr>) -> Result<(), TooMuch> {
        let Some(most) = self.allowance().quotes_per_minute else { return Ok(()) };
        let now_ms = self.clock.now_ms();
        let mut outcome = Ok(());
        self.with(address, |visitor| {
            outcome = visitor.quoted.room(now_ms, most).map_err(TooMuch::after_ms);
            if outcome.is_ok() {
                visitor.quoted.count(now_ms);
            }
        });
        outcome
    }

    /// The code was none.
    pub fn guessed_wrong(&self, address: Option<IpAddr>) {
        if self.allowance().wrong_vouchers_per_hour.is_some() {
            let now_ms = self.clock.now_ms();
            self.with(address, |visitor| visitor.wrong.count(now_ms));
        }
    }

    fn with(&self, address: Option<IpAddr>, work: impl FnOnce(&mut Visitor)) {
        // A request that came in by no socket has no address to hold it to.
        let Some(address) = address else { return };
        let name = self.name(address);
        let now_ms = self.clock.now_ms();
        let mut seen = self.seen();
        if seen.len() >= MAX_VISITORS && !seen.contains_key(&name) {
            seen.retain(|_, visitor| (0..HOUR_MS).contains(&now_ms.saturating_sub(visitor.last_ms)));
            if seen.len() >= MAX_VISITORS {
                let quietest = seen.iter().min_by_key(|(_, visitor)| visitor.last_ms).map(|(name, _)| name.clone());
                quietest.map(|name| seen.remove(&name));
            }
        }
        let visitor = seen.entry(name).or_default();
        visitor.last_ms = now_ms;
        work(visitor);
    }

    fn name(&self, address: IpAddr) -> String {
        let bytes = match address.to_canonical() {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().into_iter().take(8).collect(),
        };
        self.vault.digest(&[b"visitor", &bytes])
    }

    fn seen(&self) -> MutexGuard<'_, HashMap<String, Visitor>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;
    use crate::clock::Clock;
    use crate::config::Secret;

    #[derive(Debug)]
    struct Stepped(AtomicI64);

    impl Clock for Stepped {
        fn now_ms(&self) -> i64 {
            self.0.load(Ordering::SeqCst)
        }
    }

    fn visitors(allowance: Clients) -> (Visitors, Arc<Stepped>) {
        let dir = tempfile::tempdir().unwrap();
        let vault = Vault::open(dir.path(), Some(&Secret::new("a key".to_owned()))).unwrap();
        let clock = Arc::new(Stepped(AtomicI64::new(1_790_000_000_000)));
        (Visitors::new(vault, clock.clone(), allowance), clock)
    }

    fn at(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn an_address_has_its_own_allowance_by_the_hour() {
        let allowance = Clients { creates_per_hour: Some(3), wrong_vouchers_per_hour: Some(2), ..Clients::default() };
        let (visitors, clock) = visitors(allowance);
        for _ in 0..3 {
            assert_eq!(visitors.admit_invoice(at("192.0.2.1"), "i", 0), Ok(()));
        }
        clock.0.fetch_add(600_000, Ordering::SeqCst);
        assert_eq!(visitors.admit_invoice(at("192.0.2.1"), "i", 0), Err(TooMuch(3000)));
        assert_eq!(visitors.admit_invoice(at("::ffff:192.0.2.1"), "i", 0), Err(TooMuch(3000)), "the same in IPv6");
        assert_eq!(visitors.admit_invoice(at("192.0.2.2"), "i", 0), Ok(()));
        assert_eq!(visitors.admit_invoice(None, "i", 0), Ok(()));
        visitors.not_made(at("192.0.2.1"), "i");
        assert_eq!(visitors.admit_invoice(at("192.0.2.1"), "i", 0), Ok(()));
        clock.0.fetch_add(3_000_000, Ordering::SeqCst);
        assert_eq!(visitors.admit_invoice(at("192.0.2.1"), "i", 0), Ok(()));

        for address in ["2001:db8::1", "2001:db8::ffff:1"] {
            for _ in 0..5 {
                assert_eq!(visitors.admit_guess(at(address)), Ok(()), "a good code is no guess");
            }
            visitors.guessed_wrong(at(address));
        }
        assert_eq!(visitors.admit_guess(at("2001:db8::2")), Err(TooMuch(3600)), "one /64 is one customer");
        assert_eq!(visitors.admit_guess(at("2001:db8:0:1::2")), Ok(()));
    }

    #[test]
    fn only_so_many_invoices_wait() {
        let allowance = Clients { max_pending: Some(2), ..Clients::default() };
        let (visitors, clock) = visitors(allowance);
        let now = clock.now_ms();
        assert_eq!(visitors.admit_invoice(at("192.0.2.1"), "one", now + 60_000), Ok(()));
        assert_eq!(visitors.admit_invoice(at("192.0.2.1"), "two", now + 90_000), Ok(()));
        assert_eq!(visitors.admit_invoice(at("192.0.2.1"), "three", now + 90_000), Err(TooMuch(60)));
        assert_eq!(visitors.waiting(at("192.0.2.1")), ["one", "two"]);
        visitors.ended(at("192.0.2.1"), &["two".to_owned()]);
        assert_eq!(visitors.admit_invoice(at("192.0.2.1"), "three", now + 90_000), Ok(()));
        clock.0.fetch_add(60_001, Ordering::SeqCst);
        assert_eq!(visitors.admit_invoice(at("192.0.2.1"), "four", now + 90_000), Ok(()));
        for _ in 0..9 {
            assert_eq!(visitors.admit_guess(at("192.0.2.1")), Ok(()), "no limit");
        }
    }

    #[test]
    fn memory_is_bounded_and_a_clock_set_back_locks_nobody_out() {
        let allowance = Clients { wrong_vouchers_per_hour: Some(1), ..Clients::default() };
        let (visitors, clock) = visitors(allowance);
        for number in 0..u32::try_from(MAX_VISITORS).unwrap() + 10 {
            clock.0.fetch_add(1, Ordering::SeqCst);
            visitors.guessed_wrong(Some(IpAddr::V4(number.into())));
        }
        assert_eq!(visitors.seen().len(), MAX_VISITORS);
        assert!(visitors.admit_guess(Some(IpAddr::V4(5_000.into()))).is_err());
        clock.0.store(1_000_000_000_000, Ordering::SeqCst);
        assert_eq!(visitors.admit_guess(Some(IpAddr::V4(5_000.into()))), Ok(()));
    }
}
