//! What upstreams cost the operator: per request, and in sums that spend caps look at.
//!
//! Kept in memory and written every few seconds, a batch in one transaction. That is statistics: a crash
//! may lose the last seconds of it, and no client's money depends on it. Days and months are UTC's.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive as _;

use super::repo;
use crate::clock::{DAY_MS, civil};
use crate::store::{Store, StoreError};

/// What one request cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outlay {
    /// The id of the hold of the request; see [`crate::store::ids`].
    pub id: i64,
    pub upstream: Arc<str>,
    /// As the upstream calls it.
    pub model: String,
    /// `None`: nothing that is known.
    pub usd: Option<Decimal>,
    /// What it cost in msat, at the rate of the request.
    pub msat: Option<u64>,
    /// What the client was charged, in msat.
    pub charged: u64,
    /// Who was asked, and how it went, as JSON.
    pub attempts: String,
    pub at_ms: i64,
}

/// What was spent at one upstream, in nanodollars.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Spent {
    /// In days since the Unix epoch.
    day: i64,
    pub today: i64,
    pub month: i64,
}

/// What was spent.
#[derive(Debug, Default)]
pub(super) struct Outlays {
    waiting: Mutex<Vec<Outlay>>,
    spent: Mutex<HashMap<Arc<str>, Spent>>,
}

impl Outlay {
    /// Rounded up: a cap errs on the side of the operator.
    #[must_use]
    pub fn nano_usd(&self) -> Option<i64> {
        self.usd.and_then(nano)
    }

    pub(super) fn day(&self) -> i64 {
        self.at_ms.div_euclid(DAY_MS)
    }
}

impl Outlays {
    pub(super) fn note(&self, outlay: Outlay) {
        let (cost, day) = (outlay.nano_usd().unwrap_or(0), outlay.day());
        {
            let mut spent = self.spent();
            let sum = spent.entry(Arc::clone(&outlay.upstream)).or_default();
            *sum = sum.on(day);
            sum.today = sum.today.saturating_add(cost);
            sum.month = sum.month.saturating_add(cost);
        }
        self.waiting().push(outlay);
    }

    /// Whether these caps are reached.
    pub(super) fn is_capped(
        &self,
        upstream: &Arc<str>,
        daily: Option<Decimal>,
        monthly: Option<Decimal>,
        now_ms: i64,
    ) -> bool {
        if daily.is_none() && monthly.is_none() {
            return false;
        }
        let spent = self.spent().get(upstream).copied().unwrap_or_default().on(now_ms.div_euclid(DAY_MS));
        let reached = |cap: Option<Decimal>, sum: i64| cap.and_then(nano).is_some_and(|cap| sum >= cap);
        reached(daily, spent.today) || reached(monthly, spent.month)
    }

    /// What was spent at an upstream today and this month, in USD.
    pub(super) fn spent_usd(&self, upstream: &Arc<str>, now_ms: i64) -> (Decimal, Decimal) {
        let spent = self.spent().get(upstream).copied().unwrap_or_default().on(now_ms.div_euclid(DAY_MS));
        (Decimal::new(spent.today, 9), Decimal::new(spent.month, 9))
    }

    /// Writes what waits, and reads the sums anew: other processes spend too.
    pub(super) async fn flush(&self, store: &Store, now_ms: i64) -> Result<(), StoreError> {
        let mut taken = std::mem::take(&mut *self.waiting());
        let mut written = 0_usize;
        let mut outcome = Ok(());
        for batch in taken.chunks(repo::MAX_ROWS) {
            // A batch may keep its thread from everybody else until it is written: others go first.
            tokio::task::yield_now().await;
            outcome = repo::write_outlays(store, batch).await;
            if outcome.is_err() {
                break;
            }
            written = written.saturating_add(batch.len());
        }
        if outcome.is_err() {
            let mut waiting = self.waiting();
            taken.drain(..written);
            taken.append(&mut waiting);
            *waiting = taken;
            return outcome;
        }
        drop(taken);
        let day = now_ms.div_euclid(DAY_MS);
        let sums = repo::sums(store, day, first_of_month(day)).await?;
        let waiting = self.waiting();
        let mut spent = self.spent();
        spent.clear();
        for (upstream, today, month) in sums {
            spent.insert(upstream.into(), Spent { day, today, month });
        }
        // What came in meanwhile is not in the sums.
        for outlay in waiting.iter().filter(|outlay| outlay.day() == day) {
            let cost = outlay.nano_usd().unwrap_or(0);
            let sum = spent.entry(Arc::clone(&outlay.upstream)).or_insert(Spent { day, today: 0, month: 0 });
            sum.today = sum.today.saturating_add(cost);
            sum.month = sum.month.saturating_add(cost);
        }
        Ok(())
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Outlay>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spent(&self) -> MutexGuard<'_, HashMap<Arc<str>, Spent>> {
        self.spent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Spent {
    /// The sums as they are on this day: what is over is forgotten.
    fn on(self, day: i64) -> Self {
        if self.day == day {
            return self;
        }
        let same_month = first_of_month(self.day) == first_of_month(day);
        Self { day, today: 0, month: if same_month { self.month } else { 0 } }
    }
}

fn nano(usd: Decimal) -> Option<i64> {
    usd.checked_mul(Decimal::from(1_000_000_000))?.ceil().to_i64()
}

/// The first day of the month that this day is in, in days since the Unix epoch.
fn first_of_month(day: i64) -> i64 {
    let (_, _, day_of_month) = civil(day);
    day.saturating_sub(day_of_month).saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_begin_on_their_first() {
        // 1970-01-01, 1970-02-28, 2000-02-29, 2024-03-01, 2026-11-26, 2100-03-01
        for (day, first) in
            [(0, 0), (58, 31), (11_016, 10_988), (19_783, 19_783), (20_783, 20_758), (47_541, 47_541), (-1, -31)]
        {
            assert_eq!(first_of_month(day), first, "{day}");
        }
        let firsts: std::collections::BTreeSet<_> = (0..146_097).map(first_of_month).collect();
        assert_eq!(firsts.len(), 4800, "400 years");
    }

    #[test]
    fn caps_begin_anew_with_their_day_and_month() {
        let outlays = Outlays::default();
        let name: Arc<str> = "a".into();
        let outlay = |usd: &str, at_ms| Outlay {
            id: 1,
            upstream: Arc::clone(&name),
            model: "m".to_owned(),
            usd: Some(usd.parse().unwrap()),
            msat: None,
            charged: 0,
            attempts: String::new(),
            at_ms,
        };
        let cap = |text: &str| Some(text.parse::<Decimal>().unwrap());
        outlays.note(outlay("0.6", 0));
        assert!(!outlays.is_capped(&name, cap("1"), cap("1"), 0));
        outlays.note(outlay("0.4", DAY_MS - 1));
        assert!(outlays.is_capped(&name, cap("1"), None, 1));
        assert!(!outlays.is_capped(&name, cap("1"), None, DAY_MS), "a new day");
        assert!(outlays.is_capped(&name, None, cap("1"), DAY_MS), "the same month");
        assert!(!outlays.is_capped(&name, None, cap("1"), 31 * DAY_MS), "a new month");
        assert!(outlays.is_capped(&name, cap("0"), None, 31 * DAY_MS), "nothing may be spent");
        assert!(!outlays.is_capped(&name, None, None, 0));
        assert_eq!(outlay("0.0000000001", 0).nano_usd(), Some(1));
    }
}
