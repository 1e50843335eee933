//! A worked example: one request to one model, reckoned as every request is.

use rust_decimal::Decimal;

use super::prices::exact;
use crate::catalog::route::{Buyer, Market};
use crate::money::rate::Conversion;
use crate::money::{RateCard, Usage};
use crate::pages::format;

/// What the request of the example uses.
pub(super) const INPUT: u64 = 1_000;
pub(super) const OUTPUT: u64 = 500;

/// The example, step by step.
#[derive(Debug)]
pub(super) struct Example {
    pub model: String,
    pub steps: Vec<Step>,
    /// What is charged, in msat and in sat.
    pub msat: u64,
    pub sat: String,
}

/// One line of the reckoning.
#[derive(Debug)]
pub(super) struct Step {
    pub what: &'static str,
    pub sum: String,
    pub result: String,
}

/// The example for this model; `None` when it has no price now.
pub(super) fn of(market: &Market, buyer: Buyer<'_>, model: &str) -> Option<Example> {
    let (card, multiplier) = market.rate_card(model, buyer)?;
    let usage = Usage { input: INPUT, output: OUTPUT, ..Usage::default() };
    let total = card.price(&usage)?.total;
    Some(Example {
        model: model.to_owned(),
        steps: steps(&card, multiplier)?,
        msat: total.get(),
        sat: format::sat(total.to_db()),
    })
}

fn steps(card: &RateCard, multiplier: Decimal) -> Option<Vec<Step>> {
    let prices = &card.prices;
    let input = Decimal::from(INPUT).checked_mul(prices.prompt)?;
    let output = Decimal::from(OUTPUT).checked_mul(prices.completion)?;
    let list = input.checked_add(output)?.checked_add(prices.request)?;
    let mut sum =
        format!("{} × {} + {} × {}", figure(INPUT), exact(prices.prompt), figure(OUTPUT), exact(prices.completion));
    if !prices.request.is_zero() {
        sum = format!("{sum} + {}", exact(prices.request));
    }
    let msat = card.conversion.to_sat_decimal(list)?.checked_mul(Decimal::ONE_THOUSAND)?;
    let mut steps = Vec::new();
    let what = match multiplier == Decimal::ONE {
        true => "Tokens at list price",
        false => "Tokens at the price of this hour",
    };
    match &card.conversion {
        Conversion::Usd { btc_usd, exchange_fee, provider_fee } => {
            steps.push(Step { what, sum, result: format!("{} USD", exact(list)) });
            let dearer = list.checked_mul(*provider_fee)?.checked_mul(*exchange_fee)?;
            steps.push(Step {
                what: "Times the node’s fee and the exchange fee",
                sum: format!("{} × {} × {}", exact(list), exact(*provider_fee), exact(*exchange_fee)),
                result: format!("{} USD", exact(dearer)),
            });
            steps.push(Step {
                what: "At the bitcoin rate",
                sum: format!("{} ÷ {} × 100,000,000,000", exact(dearer), exact(*btc_usd)),
                result: format!("{} msat", exact(msat.round_dp(6))),
            });
        }
        Conversion::Sat => {
            steps.push(Step { what: "Tokens at the node’s price", sum, result: format!("{} sat", exact(list)) });
        }
    }
    Some(steps)
}

/// A count with thousands separated.
pub(super) fn figure(count: u64) -> String {
    i64::try_from(count).map_or_else(|_| count.to_string(), format::count)
}
