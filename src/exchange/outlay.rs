//! What a request cost the operator, beside what its client was charged.

use std::sync::PoisonError;

use rust_decimal::Decimal;

use super::Job;
use crate::catalog::route::Candidate;
use crate::dialect::body::Lens;
use crate::money::rate::Exchange;
use crate::money::{Msat, RateCard, Usage};
use crate::price::decimal;
use crate::upstream::Outlay;

impl Job {
    /// What upstreams were asked, and what the one that answered takes for it.
    pub(super) fn outlay(&self, used: Option<&Usage>) -> Outlay {
        let (candidate, fee) = (&self.candidate, self.lease.upstream().fee());
        let card = &candidate.rate_card;
        let said = self.reported_usd().map(|usd| (usd, in_msat(card, usd)));
        let (usd, msat) = said.or_else(|| used.and_then(|usage| of(candidate, fee, usage))).unzip();
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
        if let Some(usd) = said.filter(|usd| !usd.is_sign_negative()) {
            *self.reported.lock().unwrap_or_else(PoisonError::into_inner) = Some(usd);
        }
    }

    fn reported_usd(&self) -> Option<Decimal> {
        *self.reported.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An amount in USD at the rate of the card.
fn in_msat(card: &RateCard, usd: Decimal) -> Option<u64> {
    let Exchange::Usd { btc_usd, .. } = &card.exchange else { return None };
    let plain = Exchange::Usd { btc_usd: *btc_usd, exchange_fee: Decimal::ONE, provider_fee: Decimal::ONE };
    plain.ceil_msat(usd).map(Msat::get)
}

/// List price times the upstream's fee, in USD, and in msat at the rate of the card. `None` where prices are
/// not in USD: then nobody knows.
pub(super) fn of(candidate: &Candidate, fee: Decimal, usage: &Usage) -> Option<(Decimal, Option<u64>)> {
    let card = &candidate.rate_card;
    if !matches!(card.exchange, Exchange::Usd { .. }) {
        return None;
    }
    let list = candidate.list.as_ref().unwrap_or(&card.prices);
    let usd = list.list_price(usage)?.checked_mul(fee)?;
    Some((usd, in_msat(card, usd)))
}
