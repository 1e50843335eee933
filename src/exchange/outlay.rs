//! What a request cost the operator, beside what its client was charged.

use std::sync::{MutexGuard, PoisonError};

use rust_decimal::Decimal;

use super::Job;
use crate::catalog::route::Candidate;
use crate::dialect::body::Lens;
use crate::ledger::Ledger;
use crate::money::rate::Conversion;
use crate::money::{Msat, Prices, Usage};
use crate::price::decimal;
use crate::upstream::{Outlay, Pool, Upstream};

/// The most that one request may have cost, in USD. The dearest fills a context of a million tokens at some hundred
/// dollars a million; what is far beyond is a mistake, and two of them would not fit into the sums of a day.
const MOST_USD: u32 = 10_000;

impl Job {
    /// What upstreams were asked, and what the one that answered takes for it.
    pub(super) fn outlay(&self, used: Option<&Usage>) -> Outlay {
        let (prices, fee) = (ListPrices::of(&self.candidate), self.lease.upstream().fee());
        let said = self.reported().map(|usd| (usd, prices.in_msat(usd)));
        let (usd, msat) = said.or_else(|| used.and_then(|usage| prices.cost(fee, usage))).unzip();
        Outlay {
            id: self.hold.id(),
            upstream: self.lease.upstream().name().clone(),
            model: self.lease.model().to_owned(),
            usd,
            msat: msat.flatten(),
            charged: 0,
            attempts: serde_json::to_string(&self.attempts).unwrap_or_default(),
            at_ms: self.exchange.ledger.clock().now_ms(),
        }
    }
}

impl Job {
    /// Looks in an answer, or an object of a stream, for what the upstream says that it takes.
    pub(super) fn look_for_cost(&self, object: &[u8]) {
        if !self.lease.upstream().reports_cost() || memchr::memmem::find(object, b"\"cost\"").is_none() {
            return;
        }
        let usage = Lens::parse(object).ok().and_then(|lens| lens.object("usage"));
        let said = usage.as_ref().and_then(|usage| usage.present("cost")).and_then(decimal::parse_json);
        match said {
            Some(usd) if can_be(usd) => {
                *self.reported() = Some(usd);
            }
            Some(usd) => tracing::warn!(
                request = %self.request_id, upstream = %self.lease.upstream().name(), %usd,
                "an upstream reported a cost that no request can have; it is not counted"
            ),
            None => {}
        }
    }

    /// Notes what an upstream takes for an answer that was of no use, before another one is asked: that one must not
    /// be charged with it. As for a probe, no client pays for it.
    pub(super) fn note_wasted(&self) {
        let Some(usd) = self.reported().take() else { return };
        let cost = (usd, ListPrices::of(&self.candidate).in_msat(usd));
        let (pool, ledger) = (&self.exchange.pool, &self.exchange.ledger);
        note_unpaid((pool, ledger), self.lease.upstream(), self.lease.model(), Some(cost));
    }

    fn reported(&self) -> MutexGuard<'_, Option<Decimal>> {
        self.reported.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What something costs, in USD, and in msat where the rate is known.
pub(super) type Cost = (Decimal, Option<u64>);

/// Notes what an upstream takes for what no client pays for.
pub(super) fn note_unpaid((pool, ledger): (&Pool, &Ledger), upstream: &Upstream, model: &str, cost: Option<Cost>) {
    let (usd, msat) = cost.unzip();
    pool.note(Outlay {
        id: ledger.next_id(),
        upstream: upstream.name().clone(),
        model: model.to_owned(),
        usd,
        msat: msat.flatten(),
        charged: 0,
        attempts: "[]".to_owned(),
        at_ms: ledger.clock().now_ms(),
    });
}

fn can_be(usd: Decimal) -> bool {
    !usd.is_sign_negative() && usd <= Decimal::from(MOST_USD)
}

/// What the list says that a model costs.
#[derive(Clone, Copy, Debug)]
pub(super) struct ListPrices<'a> {
    /// `None`: they are not in USD, so nobody knows.
    pub usd: Option<&'a Prices>,
    /// `None`: it is not known here.
    pub btc_usd: Option<Decimal>,
}

impl<'a> ListPrices<'a> {
    /// Those of a request, at its rate.
    pub fn of(candidate: &'a Candidate) -> Self {
        let card = &candidate.rate_card;
        match &card.conversion {
            Conversion::Usd { btc_usd, .. } => {
                Self { usd: Some(candidate.list.as_ref().unwrap_or(&card.prices)), btc_usd: Some(*btc_usd) }
            }
            Conversion::Sat => Self { usd: None, btc_usd: None },
        }
    }

    /// List price times the upstream's fee.
    pub fn cost(self, fee: Decimal, usage: &Usage) -> Option<Cost> {
        let usd = self.usd?.list_price(usage)?.checked_mul(fee)?;
        Some((usd, self.in_msat(usd)))
    }

    /// An amount in USD at the rate.
    fn in_msat(self, usd: Decimal) -> Option<u64> {
        let plain = Conversion::Usd { btc_usd: self.btc_usd?, exchange_fee: Decimal::ONE, provider_fee: Decimal::ONE };
        plain.ceil_msat(usd).map(Msat::get)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cost_that_no_request_can_have_is_not_believed() {
        for (usd, expected) in
            [("0", true), ("0.00123", true), ("10000", true), ("10000.01", false), ("9e9", false), ("-0.01", false)]
        {
            assert_eq!(decimal::parse(usd).map(can_be), Some(expected), "{usd}");
        }
    }
}
