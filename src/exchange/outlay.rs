//! What a request cost the operator, beside what its client was charged.

use rust_decimal::Decimal;

use super::Job;
use crate::money::rate::Exchange;
use crate::money::{Msat, RateCard, Usage};
use crate::upstream::Outlay;

impl Job {
    /// What upstreams were asked, and what the one that answered takes for it.
    pub(super) fn outlay(&self, used: Option<&Usage>) -> Outlay {
        let fee = self.lease.upstream().fee();
        let (usd, msat) = used.and_then(|usage| of(&self.candidate.rate_card, fee, usage)).unzip();
        Outlay {
            request: self.request_id.clone(),
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

/// List price times the upstream's fee, in USD, and in msat at the rate of the card. `None` where prices are
/// not in USD: then nobody knows.
pub(super) fn of(card: &RateCard, fee: Decimal, usage: &Usage) -> Option<(Decimal, Option<u64>)> {
    let Exchange::Usd { btc_usd, .. } = &card.exchange else { return None };
    let plain = Exchange::Usd { btc_usd: *btc_usd, exchange_fee: Decimal::ONE, provider_fee: Decimal::ONE };
    let at_list = RateCard { prices: card.prices.clone(), exchange: plain.clone(), minimum: Msat::ZERO };
    let usd = at_list.price(usage)?.usd?.checked_mul(fee)?;
    Some((usd, plain.ceil_msat(usd).map(Msat::get)))
}
