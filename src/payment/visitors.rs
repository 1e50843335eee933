//! What one address may ask for without paying: invoices, guesses at vouchers, and quotes.
//!
//! Kept in memory, for one process and at most [`MAX_VISITORS`] addresses, by a keyed hash of the
//! address (of its /64 for IPv6, which one customer has whole): no address is stored or logged.
//!
//! Who comes in by the node's own onion has no address but a circuit, which counts as one. Circuits cost
//! little, so all of Tor is counted as well, as [`ALL_OF_TOR`] addresses: a stranger who makes one circuit
//! after the other uses that up, and nobody else's. Behind a tor daemon all clients have one address; there
//! the operator turns the limits off.
//!
//! A voucher's code has too many letters to be guessed at any rate: what is bounded is what guessing
//! costs the node. A delay for all, as the operator's login has it, would let one stranger lock out
//! everybody's vouchers.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::clock::{HOUR_MS, MINUTE_MS, SharedClock};
use crate::config::{Clients, Live};
use crate::net::{self, Peer};
use crate::vault::Vault;

/// Most addresses that are remembered. The one that was longest quiet makes room.
pub const MAX_VISITORS: usize = 10_000;

/// As how many addresses all circuits together count.
pub const ALL_OF_TOR: usize = 20;

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

    /// Invoices of this visitor that were not known to be paid, and whose time is not over; where those of all
    /// of Tor stand in its way, also those.
    #[must_use]
    pub fn waiting(&self, peer: Option<Peer>) -> Vec<String> {
        let now_ms = self.clock.now_ms();
        let most = self.allowance().max_pending;
        let mut waiting = Vec::new();
        self.with(peer, |visitor, times| {
            visitor.waiting.retain(|(_, end)| *end > now_ms);
            let is_full = most.is_some_and(|most| visitor.waiting.len() >= most.saturating_mul(times));
            if times == 1 || is_full {
                waiting.extend(visitor.waiting.iter().map(|(id, _)| id.clone()));
            }
        });
        waiting
    }

    /// Counts an invoice that is about to be made and offered until `end_ms`; `is_new`: for a key that nothing was paid
    /// for yet.
    ///
    /// # Errors
    /// When the visitor has made too many new ones, or has too many waiting.
    pub fn admit_invoice(&self, peer: Option<Peer>, id: &str, end_ms: i64, is_new: bool) -> Result<(), TooMuch> {
        let now_ms = self.clock.now_ms();
        let Clients { creates_per_hour, max_pending, .. } = self.allowance();
        let creates_per_hour = creates_per_hour.filter(|_| is_new);
        let look = |visitor: &mut Visitor, times: usize| {
            visitor.waiting.retain(|(_, end)| *end > now_ms);
            // Who pays for a key is kept from it by what others do as little as can be.
            let max_pending = max_pending.filter(|_| is_new || times == 1);
            if max_pending.is_some_and(|most| visitor.waiting.len() >= most.saturating_mul(times)) {
                let first = visitor.waiting.iter().map(|(_, end)| *end).min().unwrap_or(now_ms);
                return Err(TooMuch::after_ms(first.saturating_sub(now_ms)));
            }
            let room = creates_per_hour.map(|most| visitor.created.room(now_ms, most.saturating_mul(times)));
            room.unwrap_or(Ok(())).map_err(TooMuch::after_ms)
        };
        self.admit(peer, look, |visitor, times| {
            if creates_per_hour.is_some() {
                visitor.created.count(now_ms);
            }
            if max_pending.is_some() && (is_new || times == 1) {
                visitor.waiting.push((id.to_owned(), end_ms));
            }
        })
    }

    /// Forgets invoices that wait no more.
    pub fn ended(&self, peer: Option<Peer>, ids: &[String]) {
        self.with(peer, |visitor, _| visitor.waiting.retain(|(id, _)| !ids.contains(id)));
    }

    /// An invoice that was admitted did not come about.
    pub fn not_made(&self, peer: Option<Peer>, id: &str, is_new: bool) {
        self.with(peer, |visitor, _| {
            visitor.waiting.retain(|(waiting, _)| waiting != id);
            if is_new {
                visitor.created.take_back();
            }
        });
    }

    /// Whether the visitor may send a voucher's code. Codes that are good cost it nothing, however many
    /// come at once.
    ///
    /// # Errors
    /// When it has sent too many that were none.
    pub fn admit_guess(&self, peer: Option<Peer>) -> Result<(), TooMuch> {
        let Some(most) = self.allowance().wrong_vouchers_per_hour else { return Ok(()) };
        let now_ms = self.clock.now_ms();
        let look = |visitor: &mut Visitor, times| visitor.wrong.room(now_ms, most.saturating_mul(times));
        self.admit(peer, |visitor, times| look(visitor, times).map_err(TooMuch::after_ms), |_, _| {})
    }

    /// Counts a quote that is about to be made.
    ///
    /// # Errors
    /// When the visitor has had too many.
    pub fn admit_quote(&self, peer: Option<Peer>) -> Result<(), TooMuch> {
        let Some(most) = self.allowance().quotes_per_minute else { return Ok(()) };
        let now_ms = self.clock.now_ms();
        let look = |visitor: &mut Visitor, times| visitor.quoted.room(now_ms, most.saturating_mul(times));
        let count = |visitor: &mut Visitor, _| visitor.quoted.count(now_ms);
        self.admit(peer, |visitor, times| look(visitor, times).map_err(TooMuch::after_ms), count)
    }

    /// The code was none.
    pub fn guessed_wrong(&self, peer: Option<Peer>) {
        if self.allowance().wrong_vouchers_per_hour.is_some() {
            let now_ms = self.clock.now_ms();
            self.with(peer, |visitor, _| visitor.wrong.count(now_ms));
        }
    }

    /// Counts something under all names of a visitor, if there is room under each of them.
    fn admit(
        &self,
        peer: Option<Peer>,
        look: impl Fn(&mut Visitor, usize) -> Result<(), TooMuch>,
        count: impl Fn(&mut Visitor, usize),
    ) -> Result<(), TooMuch> {
        let names = self.names(peer);
        let mut seen = self.seen();
        for (name, times) in &names {
            look(self.entry(&mut seen, name), *times)?;
        }
        names.iter().for_each(|(name, times)| count(self.entry(&mut seen, name), *times));
        Ok(())
    }

    /// Does something under all names of a visitor.
    fn with(&self, peer: Option<Peer>, mut work: impl FnMut(&mut Visitor, usize)) {
        let names = self.names(peer);
        let mut seen = self.seen();
        names.iter().for_each(|(name, times)| work(self.entry(&mut seen, name), *times));
    }

    fn entry<'a>(&self, seen: &'a mut HashMap<String, Visitor>, name: &str) -> &'a mut Visitor {
        let now_ms = self.clock.now_ms();
        if seen.len() >= MAX_VISITORS && !seen.contains_key(name) {
            seen.retain(|_, visitor| (0..HOUR_MS).contains(&now_ms.saturating_sub(visitor.last_ms)));
            if seen.len() >= MAX_VISITORS {
                let quietest = seen.iter().min_by_key(|(_, visitor)| visitor.last_ms).map(|(name, _)| name.clone());
                quietest.map(|name| seen.remove(&name));
            }
        }
        let visitor = seen.entry(name.to_owned()).or_default();
        visitor.last_ms = now_ms;
        visitor
    }

    /// The names under which a visitor is counted, and as how many addresses each counts. None for a request
    /// that came in by no socket: there is nothing to hold it to.
    fn names(&self, peer: Option<Peer>) -> Vec<(String, usize)> {
        let name = |kind: &[u8], bytes: &[u8]| self.vault.digest(&[kind, bytes]);
        match peer {
            None => Vec::new(),
            Some(Peer::Address(address)) => {
                let bytes = match net::customer(address) {
                    IpAddr::V4(address) => address.octets().to_vec(),
                    IpAddr::V6(address) => address.octets().to_vec(),
                };
                vec![(name(b"visitor", &bytes), 1)]
            }
            Some(Peer::Circuit(number)) => {
                vec![(name(b"tor", b""), ALL_OF_TOR), (name(b"circuit", &number.to_be_bytes()), 1)]
            }
        }
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

    fn at(text: &str) -> Option<Peer> {
        Some(Peer::Address(text.parse().unwrap()))
    }

    #[test]
    fn a_circuit_counts_as_an_address_and_all_of_tor_as_some() {
        let allowance = Clients {
            quotes_per_minute: Some(2),
            creates_per_hour: Some(1),
            max_pending: Some(1),
            ..Clients::default()
        };
        let (visitors, clock) = visitors(allowance);
        let circuit = |number: usize| Some(Peer::Circuit(u64::try_from(number).unwrap()));
        for number in 0..ALL_OF_TOR {
            assert_eq!(visitors.admit_quote(circuit(number)), Ok(()));
            assert_eq!(visitors.admit_quote(circuit(number)), Ok(()), "{number}");
            assert!(visitors.admit_quote(circuit(number)).is_err(), "a circuit has no more than an address");
            assert_eq!(
                visitors.admit_invoice(circuit(number), &format!("i{number}"), clock.now_ms() + 60_000, true),
                Ok(())
            );
        }
        let fresh = circuit(ALL_OF_TOR);
        assert!(visitors.admit_quote(fresh).is_err(), "new circuits do not help");
        assert!(visitors.admit_invoice(fresh, "i", 0, true).is_err());
        assert_eq!(visitors.admit_quote(at("192.0.2.1")), Ok(()), "who is not in Tor is not touched");
        // Whoever is kept out because of others may look whether theirs still wait.
        assert_eq!(visitors.waiting(fresh).len(), ALL_OF_TOR);
        assert_eq!(visitors.waiting(circuit(0)).iter().filter(|id| *id == "i0").count(), 2);
        // Whoever pays for a key already waits for nobody else.
        let (customer, end_ms) = (circuit(ALL_OF_TOR + 1), clock.now_ms() + 60_000);
        assert!(visitors.admit_invoice(customer, "n", end_ms, true).is_err());
        assert_eq!(visitors.admit_invoice(customer, "t", end_ms, false), Ok(()));
        assert!(visitors.admit_invoice(customer, "u", end_ms, false).is_err(), "more than its own");
        visitors.ended(fresh, &["i3".to_owned()]);
        clock.0.fetch_add(60_000, Ordering::SeqCst);
        assert_eq!(visitors.admit_quote(fresh), Ok(()));
    }

    #[test]
    fn an_address_has_its_own_allowance_by_the_hour() {
        let allowance = Clients { creates_per_hour: Some(3), wrong_vouchers_per_hour: Some(2), ..Clients::default() };
        let (visitors, clock) = visitors(allowance);
        for _ in 0..3 {
            assert_eq!(visitors.admit_invoice(at("192.0.2.1"), "i", 0, true), Ok(()));
        }
        clock.0.fetch_add(600_000, Ordering::SeqCst);
        assert_eq!(visitors.admit_invoice(at("192.0.2.1"), "i", 0, true), Err(TooMuch(3000)));
        assert_eq!(visitors.admit_invoice(at("192.0.2.1"), "t", 0, false), Ok(()), "a key that is paid for");
        assert_eq!(
            visitors.admit_invoice(at("::ffff:192.0.2.1"), "i", 0, true),
            Err(TooMuch(3000)),
            "the same in IPv6"
        );
        assert_eq!(visitors.admit_invoice(at("192.0.2.2"), "i", 0, true), Ok(()));
        assert_eq!(visitors.admit_invoice(None, "i", 0, true), Ok(()));
        visitors.not_made(at("192.0.2.1"), "t", false);
        assert_eq!(visitors.admit_invoice(at("192.0.2.1"), "i", 0, true), Err(TooMuch(3000)));
        visitors.not_made(at("192.0.2.1"), "i", true);
        assert_eq!(visitors.admit_invoice(at("192.0.2.1"), "i", 0, true), Ok(()));
        clock.0.fetch_add(3_000_000, Ordering::SeqCst);
        assert_eq!(visitors.admit_invoice(at("192.0.2.1"), "i", 0, true), Ok(()));

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
        assert_eq!(visitors.admit_invoice(at("192.0.2.1"), "one", now + 60_000, true), Ok(()));
        assert_eq!(visitors.admit_invoice(at("192.0.2.1"), "two", now + 90_000, true), Ok(()));
        assert_eq!(visitors.admit_invoice(at("192.0.2.1"), "three", now + 90_000, true), Err(TooMuch(60)));
        assert_eq!(visitors.admit_invoice(at("192.0.2.1"), "three", now + 90_000, false), Err(TooMuch(60)));
        assert_eq!(visitors.waiting(at("192.0.2.1")), ["one", "two"]);
        visitors.ended(at("192.0.2.1"), &["two".to_owned()]);
        assert_eq!(visitors.admit_invoice(at("192.0.2.1"), "three", now + 90_000, true), Ok(()));
        clock.0.fetch_add(60_001, Ordering::SeqCst);
        assert_eq!(visitors.admit_invoice(at("192.0.2.1"), "four", now + 90_000, true), Ok(()));
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
            visitors.guessed_wrong(Some(Peer::Address(IpAddr::V4(number.into()))));
        }
        assert_eq!(visitors.seen().len(), MAX_VISITORS);
        assert!(visitors.admit_guess(Some(Peer::Address(IpAddr::V4(5_000.into())))).is_err());
        clock.0.store(1_000_000_000_000, Ordering::SeqCst);
        assert_eq!(visitors.admit_guess(Some(Peer::Address(IpAddr::V4(5_000.into())))), Ok(()));
    }
}
