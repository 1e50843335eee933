//! Prices of one model, and the rate at which they become millisatoshi.
//!
//! A [`RateCard`] is frozen when a request is admitted and travels with the candidate that serves
//! it; settlement never looks a price up again.

use rust_decimal::Decimal;

use super::amount::{MAX_MSAT, Msat};
use super::cost::{Cost, Part};
use super::usage::Usage;

/// Price per unit of each bucket, in the currency of the [`Exchange`] beside it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prices {
    /// Per input token.
    pub prompt: Decimal,
    /// Per output token.
    pub completion: Decimal,
    /// Once per served request.
    pub request: Decimal,
    /// Per image part sent to the model.
    pub image: Decimal,
    /// Per web search.
    pub web_search: Decimal,
    /// Per reasoning token; `None` or zero: reasoning is ordinary output.
    pub internal_reasoning: Option<Decimal>,
    /// Per cached input token; `None`: the input price.
    pub input_cache_read: Option<Decimal>,
    /// Per input token written to a cache; `None`: the input price.
    pub input_cache_write: Option<Decimal>,
}

impl Prices {
    #[must_use]
    pub fn cache_read(&self) -> Decimal {
        self.input_cache_read.unwrap_or(self.prompt)
    }

    #[must_use]
    pub fn cache_write(&self) -> Decimal {
        self.input_cache_write.unwrap_or(self.prompt)
    }

    #[must_use]
    pub fn reasoning(&self) -> Decimal {
        match self.internal_reasoning {
            Some(price) if !price.is_zero() => price,
            _ => self.completion,
        }
    }
}

/// How the currency of [`Prices`] becomes msat. Both fees make it dearer for the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exchange {
    /// Prices in USD: `msat = usd × exchange_fee × provider_fee × 10¹¹ ÷ btc_usd`.
    Usd { btc_usd: Decimal, exchange_fee: Decimal, provider_fee: Decimal },
    /// Prices in satoshi, as set by the operator; no fee applies.
    Sat,
}

/// 1 bitcoin in msat.
const MSAT_PER_BTC: u64 = 100_000_000_000;

impl Exchange {
    /// Numerator and denominator of msat per unit of the currency.
    fn factor(&self) -> Option<(Decimal, Decimal)> {
        match self {
            Self::Usd { btc_usd, exchange_fee, provider_fee } => {
                let numerator = exchange_fee.checked_mul(*provider_fee)?.checked_mul(Decimal::from(MSAT_PER_BTC))?;
                Some((numerator, *btc_usd))
            }
            Self::Sat => Some((Decimal::ONE_THOUSAND, Decimal::ONE)),
        }
    }

    /// `amount` of the currency in msat, rounded up; `None` when out of range.
    #[must_use]
    pub fn ceil_msat(&self, amount: Decimal) -> Option<Msat> {
        let (quotient, exact) = self.divide(amount)?;
        if exact { Some(quotient) } else { Msat::new(quotient.get().checked_add(1)?) }
    }

    /// `amount` of the currency in msat, rounded down; `None` when out of range.
    #[must_use]
    pub fn floor_msat(&self, amount: Decimal) -> Option<Msat> {
        self.divide(amount).map(|(quotient, _)| quotient)
    }

    /// `amount` of the currency in satoshi, as the decimal that price lists show.
    #[must_use]
    pub fn to_sat_decimal(&self, amount: Decimal) -> Option<Decimal> {
        let (numerator, denominator) = self.factor()?;
        amount.checked_mul(numerator)?.checked_div(denominator)?.checked_div(Decimal::ONE_THOUSAND)
    }

    /// Whole quotient, and whether nothing was left over.
    fn divide(&self, amount: Decimal) -> Option<(Msat, bool)> {
        let (numerator, denominator) = self.factor()?;
        if amount.is_sign_negative() && !amount.is_zero() || denominator <= Decimal::ZERO {
            return None;
        }
        let product = amount.checked_mul(numerator)?;
        let quotient = product.checked_div(denominator)?.floor();
        if quotient > Decimal::from(MAX_MSAT) {
            return None;
        }
        let exact = quotient.checked_mul(denominator)? == product;
        let whole = u64::try_from(quotient).ok()?;
        Msat::new(whole).map(|msat| (msat, exact))
    }
}

/// The prices of one model at one upstream, at one exchange rate, and the least a request costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateCard {
    pub prices: Prices,
    pub exchange: Exchange,
    /// `MIN_REQUEST_MSAT`: what a served request costs at least.
    pub minimum: Msat,
}

impl RateCard {
    /// Cost of `usage`: the sum of all buckets, rounded up to the next msat once.
    ///
    /// `None` when the result is out of any sensible range; the caller then releases the hold and
    /// raises an alarm rather than charge a made-up number.
    #[must_use]
    pub fn price(&self, usage: &Usage) -> Option<Cost> {
        let p = &self.prices;
        let times = |count: u64, price: Decimal| Decimal::from(count).checked_mul(price);
        let base = p
            .request
            .checked_add(times(usage.images, p.image)?)?
            .checked_add(times(usage.web_searches, p.web_search)?)?;
        let output = times(usage.output, p.completion)?.checked_add(times(usage.reasoning, p.reasoning())?)?;
        let parts = [
            (Part::Base, base),
            (Part::Input, times(usage.input, p.prompt)?),
            (Part::CacheRead, times(usage.cache_read, p.cache_read())?),
            (Part::CacheWrite, times(usage.cache_write, p.cache_write())?),
            (Part::Output, output),
        ];
        let mut cost = Cost::new(*usage, self.list_price_usd(&parts)?);
        let mut sum = Decimal::ZERO;
        for (part, amount) in parts {
            sum = sum.checked_add(amount)?;
            cost.grow_to(part, self.exchange.ceil_msat(sum)?)?;
        }
        cost.grow_to(Part::Base, cost.total.max(self.minimum))?;
        Some(cost)
    }

    /// The sum in USD as the price list shows it (provider fee included, exchange fee not), where
    /// prices are in USD at all.
    fn list_price_usd(&self, parts: &[(Part, Decimal)]) -> Option<Option<Decimal>> {
        let Exchange::Usd { provider_fee, .. } = &self.exchange else {
            return Some(None);
        };
        let mut sum = Decimal::ZERO;
        for (_, amount) in parts {
            sum = sum.checked_add(*amount)?;
        }
        let usd = sum.checked_mul(*provider_fee)?;
        Some(Some(usd.round_dp(12).normalize()))
    }
}
