//! From a request to a candidate: which model, at which price, and how much must be set aside.

use std::sync::Arc;

use rust_decimal::Decimal;

use super::Shelf;
use super::limits::{self, Limits, WorstCase};
use super::listing::{self, Terms};
use super::model::Model;
use super::support;
use crate::clock::SharedClock;
use crate::config::Pricing;
use crate::dialect::{Feature, Needs};
use crate::money::rate::Exchange;
use crate::money::{Msat, Prices, RateCard};
use crate::price::{PriceBook, Rate, Source, StaleRate};
use crate::upstream::{Names, Pool};

/// What serves a request, and on which terms. The rate card is frozen here.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The model as the price list has it, or else as it was asked for.
    pub id: String,
    /// The model as the price list says that upstreams know it.
    pub forwarded: String,
    /// Tags that an upstream must have to be asked for it.
    pub upstream_tags: Vec<String>,
    pub rate_card: RateCard,
    /// BTC/USD that was used, where prices are in USD.
    pub btc_usd: Option<Decimal>,
    /// How old that rate may be: when the oldest answer behind it was fetched, in ms since the Unix
    /// epoch; `None` for one that the operator fixed.
    pub btc_usd_as_of_ms: Option<i64>,
    /// What is set aside: the worst case of this request.
    pub hold: Msat,
}

/// Why a request has no price.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    #[error("Model '{0}' not found")]
    UnknownModel(String),
    #[error("The price of bitcoin is not known well enough right now.")]
    NoRate,
    #[error("The cost of this request is out of range.")]
    OutOfRange,
    /// What the model would have to do has no price.
    #[error("Model '{model}' is not sold with {what} here.")]
    Unpriced { model: String, what: &'static str },
}

/// Which pictures are asked for, as far as their price depends on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Picture {
    pub quality: String,
    /// Like `1024x1024`.
    pub size: String,
}

/// The rate as it may be shown to anybody.
#[derive(Clone, Debug)]
pub struct RateView {
    /// When it was looked at, in ms since the Unix epoch.
    pub now_ms: i64,
    pub rate: Result<Rate, StaleRate>,
    pub sources: Vec<Source>,
    pub exchange_fee: Decimal,
    pub provider_fee: Decimal,
}

/// The price list and the rate.
#[derive(Debug)]
pub struct Market {
    catalog: Shelf,
    book: Arc<PriceBook>,
    pricing: Pricing,
    /// Prices are the list's; otherwise the operator's own per request and token.
    model_based: bool,
    clock: SharedClock,
}

impl Market {
    #[must_use]
    pub fn new(catalog: Shelf, book: Arc<PriceBook>, pricing: Pricing, clock: SharedClock) -> Self {
        let model_based = pricing.model_based.unwrap_or(!catalog.is_empty());
        Self { catalog, book, pricing, model_based, clock }
    }

    #[must_use]
    pub fn book(&self) -> &Arc<PriceBook> {
        &self.book
    }

    /// Whether a request could be priced now.
    #[must_use]
    pub fn is_priced(&self) -> bool {
        !self.model_based || self.exchange().is_some()
    }

    /// The rate that is billed at now, why there is none, and what it rests on.
    #[must_use]
    pub fn rate(&self) -> RateView {
        let now_ms = self.clock.now_ms();
        RateView {
            now_ms,
            rate: self.book.current(now_ms),
            sources: self.book.sources(now_ms),
            exchange_fee: self.pricing.exchange_fee,
            provider_fee: self.pricing.provider_fee,
        }
    }

    /// Whether the node sells any model at all.
    #[must_use]
    pub fn has_models(&self) -> bool {
        !self.model_based || !self.catalog.is_empty()
    }

    /// Finds and prices the model, and the worst case of this request.
    ///
    /// # Errors
    /// See [`RouteError`].
    pub fn route(&self, model: &str, worst: &WorstCase, picture: &Picture) -> Result<Candidate, RouteError> {
        let found = self.catalog.find(model);
        let limits = found.as_ref().map_or_else(Limits::default, |model| model.limits());
        let forwarded = match &found {
            Some(found) => found.upstream_id().to_owned(),
            None if self.model_based => return Err(RouteError::UnknownModel(model.to_owned())),
            None => model.to_owned(),
        };
        let id = found.as_ref().map_or_else(|| model.to_owned(), |found| found.id.clone());
        let (rate_card, rate) = match &found {
            Some(found) if self.model_based => {
                let (exchange, rate) = self.exchange().ok_or(RouteError::NoRate)?;
                (found.rate_card(exchange, self.pricing.min_request), Some(rate))
            }
            _ => (self.static_card().ok_or(RouteError::OutOfRange)?, None),
        };
        let tokens = worst.demand.tokens_per_image;
        let prices = rate_card.prices.for_picture(&picture.quality, &picture.size, tokens);
        if !prices.sells(worst.demand.service) {
            return Err(RouteError::Unpriced { model: model.to_owned(), what: "service_tier priority" });
        }
        let prices = prices.for_service(worst.demand.service);
        let rate_card = RateCard { prices, ..rate_card };
        // The operator's own price for a request pays for whatever it is.
        let is_flat = matches!(rate_card.exchange, Exchange::Sat) && !rate_card.prices.request.is_zero();
        if let Some(what) = rate_card.prices.lacks(&worst.demand).filter(|_| !is_flat) {
            return Err(RouteError::Unpriced { model: model.to_owned(), what });
        }
        let hold =
            limits::hold(limits, &rate_card, worst, self.pricing.tolerance_percent).ok_or(RouteError::OutOfRange)?;
        // A hold of nothing could not be told from no hold.
        let hold = hold.max(Msat::new(1).unwrap_or_default());
        let btc_usd = rate.map(|rate| rate.btc_usd);
        let btc_usd_as_of_ms = rate.filter(|rate| rate.sources > 0).map(|rate| rate.as_of_ms);
        let upstream_tags = found.map(|found| found.upstream_tags.clone()).unwrap_or_default();
        Ok(Candidate { id, forwarded, upstream_tags, rate_card, btc_usd, btc_usd_as_of_ms, hold })
    }

    /// `/v1/models`, at the present rate: what some upstream serves. Without any upstream, what would be.
    #[must_use]
    pub fn listing(&self, pool: &Pool) -> serde_json::Value {
        let exchange = self.exchange().map(|(exchange, _)| exchange);
        let prices = self.static_card().map(|card| card.prices);
        let terms = Terms {
            provider_fee: self.pricing.provider_fee,
            exchange: exchange.as_ref(),
            static_prices: if self.model_based { None } else { prices.as_ref() },
            minimum: self.pricing.min_request,
            provider: pool.label(),
        };
        let is_served = |model: &Model| {
            let names = Names { asked: &model.id, id: &model.id, forwarded: model.upstream_id() };
            pool.serves(names, &model.upstream_tags)
        };
        let catalog = self.catalog.now();
        let served = catalog.offered().filter(|model| pool.is_empty() || is_served(model));
        let data: Vec<_> = served.map(|model| listing::entry(model, &catalog.aliases(model), &terms)).collect();
        serde_json::json!({ "object": "list", "data": data })
    }

    /// The models of the listing, and the kinds of upstream that serve each.
    #[must_use]
    pub fn reached(&self, pool: &Pool) -> Vec<(String, Vec<&'static str>)> {
        let kinds = |model: &Model| {
            let names = Names { asked: &model.id, id: &model.id, forwarded: model.upstream_id() };
            pool.kinds_serving(names, &model.upstream_tags)
        };
        let catalog = self.catalog.now();
        let reached = catalog.offered().map(|model| (model.id.clone(), kinds(model)));
        reached.filter(|(_, kinds)| !kinds.is_empty()).collect()
    }

    /// What any request costs, where the operator's own prices replace those of every model.
    #[must_use]
    pub fn static_prices(&self) -> Option<RateCard> {
        if self.model_based { None } else { self.static_card() }
    }

    /// What requests to this model are charged by now; `None` when it has no price.
    #[must_use]
    pub fn rate_card(&self, model: &str) -> Option<RateCard> {
        match self.catalog.find(model).filter(|_| self.model_based) {
            Some(found) => Some(found.rate_card(self.exchange()?.0, self.pricing.min_request)),
            None => self.static_prices(),
        }
    }

    /// The first of these features that the model is known to lack.
    #[must_use]
    pub fn lacks(&self, model: &str, needs: Needs) -> Option<Feature> {
        if needs.is_empty() {
            return None;
        }
        self.catalog.find(model).and_then(|found| support::lacks(&found, needs))
    }

    /// The id of the model that this name, id or alias means.
    #[must_use]
    pub fn canonical(&self, name: &str) -> Option<String> {
        self.catalog.find(name).map(|model| model.id.clone())
    }

    fn exchange(&self) -> Option<(Exchange, Rate)> {
        let rate = self.book.current(self.clock.now_ms()).ok()?;
        let exchange = Exchange::Usd {
            btc_usd: rate.btc_usd,
            exchange_fee: self.pricing.exchange_fee,
            provider_fee: self.pricing.provider_fee,
        };
        Some((exchange, rate))
    }

    /// `COST_PER_REQUEST` and `COST_PER_1K_*`, in sats.
    fn static_card(&self) -> Option<RateCard> {
        let per_token = |per_1k: Decimal| per_1k.checked_div(Decimal::ONE_THOUSAND);
        Some(RateCard {
            prices: Prices {
                request: self.pricing.cost_per_request,
                prompt: per_token(self.pricing.cost_per_1k_input)?,
                completion: per_token(self.pricing.cost_per_1k_output)?,
                ..Prices::default()
            },
            exchange: Exchange::Sat,
            minimum: self.pricing.min_request,
        })
    }
}
