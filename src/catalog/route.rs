//! From a request to a candidate: which model, at which price, and how much must be set aside.

use std::sync::{Arc, PoisonError, RwLock};

use rust_decimal::Decimal;

use super::Shelf;
use super::limits::{self, Limits, WorstCase};
use super::listing::{self, Terms};
use super::model::Model;
use super::searching;
use super::sheet::{Sheets, Sold};
use super::support;
use crate::clock::SharedClock;
use crate::config::{Live, Pricing};
use crate::dialect::{Feature, Needs, WireFormat};
use crate::ledger::sheets::Sheet;
use crate::money::rate::Conversion;
use crate::money::tariff::{Deal, NoDeal, Profile, Tariffs, break_even};
use crate::money::{Msat, Prices, RateCard};
use crate::price::{PriceBook, Rate, Source, StaleRate};
use crate::upstream::{ModelPath, Names, Pool, Requirements};

/// What serves a request, and on which terms. The rate card is frozen here.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The model as the price list has it, or else as it was asked for.
    pub id: String,
    /// The model as the price list says that upstreams know it.
    pub forwarded: String,
    /// Its entry in the price list.
    model: Option<Arc<Model>>,
    /// With the deal's factor in its prices.
    pub rate_card: RateCard,
    /// The prices without that factor, where it is not one.
    pub list: Option<Prices>,
    pub deal: Deal,
    /// Which price of the list pictures are made at, where some are asked for.
    pub picture: Option<String>,
    /// What the prices are kept by.
    pub prices: Arc<Sheet>,
    /// What the rate is kept by, where prices are in USD.
    pub rate: Option<Arc<Sheet>>,
    /// BTC/USD that was used, where prices are in USD.
    pub btc_usd: Option<Decimal>,
    /// How old that rate may be: when the oldest answer behind it was fetched, in ms since the Unix
    /// epoch; `None` for one that the operator fixed.
    pub btc_usd_as_of_ms: Option<i64>,
    /// What is set aside: the worst case of this request.
    pub hold: Msat,
}

impl Candidate {
    /// Tags that an upstream must have to be asked for it.
    #[must_use]
    pub fn upstream_tags(&self) -> &[String] {
        self.model.as_ref().map_or(&[], |model| &model.upstream_tags)
    }

    /// Tokens that it reads at most, where that is known.
    #[must_use]
    pub fn context(&self) -> Option<u64> {
        self.model.as_ref().and_then(|model| model.limits().context)
    }

    /// The first of these that it is known not to do.
    #[must_use]
    pub fn lacks(&self, needs: Needs) -> Option<Feature> {
        self.model.as_ref().and_then(|model| support::lacks(model, needs))
    }

    /// What its charge is reckoned by, to be kept.
    #[must_use]
    pub fn sheets(&self) -> Vec<Arc<Sheet>> {
        [Some(&self.prices), self.rate.as_ref()].into_iter().flatten().cloned().collect()
    }
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
    /// The profile of the key leaves it out.
    #[error("Model '{0}' is not sold to this key.")]
    NotSold(String),
}

/// Who asks for a price.
#[derive(Clone, Copy, Debug)]
pub struct Buyer<'a> {
    /// The profile of the key.
    pub profile: Option<&'a Arc<Profile>>,
    /// What would serve it: nothing is sold for less than that takes.
    pub pool: &'a Pool,
}

impl<'a> Buyer<'a> {
    /// Somebody without a key, or whose key has no profile.
    #[must_use]
    pub fn anybody(pool: &'a Pool) -> Self {
        Self { profile: None, pool }
    }
}

/// Prices as they are sold, and as they are listed.
struct Dealt {
    card: RateCard,
    list: Option<Prices>,
    deal: Deal,
    sheet: Arc<Sheet>,
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
    pricing: Live<Pricing>,
    /// Prices are the list's; otherwise the operator's own per request and token.
    model_based: bool,
    clock: SharedClock,
    tariffs: RwLock<Arc<Tariffs>>,
    sheets: Sheets,
}

impl Market {
    #[must_use]
    pub fn new(catalog: Shelf, book: Arc<PriceBook>, pricing: Pricing, clock: SharedClock) -> Self {
        // Nobody is sold anything at fixed prices unless somebody has said so.
        let model_based = pricing.model_based.unwrap_or(true);
        let (tariffs, sheets, pricing) = (RwLock::default(), Sheets::default(), Live::new(pricing));
        Self { catalog, book, pricing, model_based, clock, tariffs, sheets }
    }

    /// The profiles and windows that prices are made by.
    #[must_use]
    pub fn tariffs(&self) -> Arc<Tariffs> {
        Arc::clone(&self.tariffs.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// From now on these.
    pub fn set_tariffs(&self, tariffs: Tariffs) {
        *self.tariffs.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(tariffs);
    }

    /// Fees, and the operator's own prices.
    #[must_use]
    pub fn pricing(&self) -> Arc<Pricing> {
        self.pricing.get()
    }

    /// From now on these. Whose prices count, the list's or the operator's own, is decided at the start.
    pub fn set_pricing(&self, pricing: Pricing) {
        self.pricing.put(pricing);
    }

    #[must_use]
    pub fn book(&self) -> &Arc<PriceBook> {
        &self.book
    }

    /// Whether a request could be priced now.
    #[must_use]
    pub fn is_priced(&self) -> bool {
        !self.model_based || self.conversion().is_some()
    }

    /// The rate that is billed at now, why there is none, and what it rests on.
    #[must_use]
    pub fn rate(&self) -> RateView {
        let (now_ms, pricing) = (self.clock.now_ms(), self.pricing());
        RateView {
            now_ms,
            rate: self.book.current(now_ms),
            sources: self.book.sources(now_ms),
            exchange_fee: pricing.exchange_fee,
            provider_fee: pricing.provider_fee,
        }
    }

    /// Whether the node sells any model at all.
    #[must_use]
    pub fn has_models(&self) -> bool {
        !self.model_based || !self.catalog.is_empty()
    }

    /// How many searches an answer of this model may rest on that nobody asked for. Where a search has no price, the
    /// other prices pay for it.
    #[must_use]
    pub fn unasked_searches(&self, model: &str) -> u64 {
        let found = self.catalog.find(model).filter(|found| self.model_based && !found.prices.web_search.is_zero());
        found.map_or(0, |found| searching::unasked(&found))
    }

    /// Whether what is sent to this model may be written to a cache that nobody asked for, at more than its price.
    #[must_use]
    pub fn caches_unasked(&self, model: &str) -> bool {
        self.model_based && self.catalog.find(model).is_some_and(|found| searching::caches_unasked(&found))
    }

    /// Finds and prices the model, and the worst case of this request.
    ///
    /// # Errors
    /// See [`RouteError`].
    pub fn route(
        &self,
        model: &str,
        worst: &WorstCase,
        picture: &Picture,
        buyer: Buyer<'_>,
    ) -> Result<Box<Candidate>, RouteError> {
        let found = self.catalog.find(model);
        let limits = found.as_ref().map_or_else(Limits::default, |model| model.limits());
        let forwarded = match &found {
            Some(found) => found.upstream_id().to_owned(),
            None if self.model_based || self.catalog.is_off(model) => {
                return Err(RouteError::UnknownModel(model.to_owned()));
            }
            None => model.to_owned(),
        };
        let id = found.as_ref().map_or_else(|| model.to_owned(), |found| found.id.clone());
        let (list, conversion, rate) = match &found {
            Some(found) if self.model_based => {
                let (conversion, rate) = self.conversion().ok_or(RouteError::NoRate)?;
                (found.prices.clone(), conversion, Some(rate))
            }
            _ => (self.static_prices_of_all().ok_or(RouteError::OutOfRange)?, Conversion::Sat, None),
        };
        let names = Names { asked: model, id: &id, forwarded: &forwarded };
        let dealt = self.deal(names, list, conversion, buyer).map_err(|why| match why {
            NoDeal::NotSold => RouteError::NotSold(model.to_owned()),
            NoDeal::OutOfRange => RouteError::OutOfRange,
        })?;
        let tokens = worst.demand.usual_tokens_per_image;
        let service = worst.demand.service;
        if !dealt.card.prices.sells(service) {
            return Err(RouteError::Unpriced { model: model.to_owned(), what: "service_tier priority" });
        }
        let as_asked =
            |prices: Prices| prices.for_picture(&picture.quality, &picture.size, tokens).for_service(service);
        let makes_pictures = worst.demand.images_made > 0;
        let kind = makes_pictures.then(|| picture_name(&dealt.card.prices, picture));
        let rate_card = RateCard { prices: as_asked(dealt.card.prices), ..dealt.card };
        // The operator's own price for a request pays for whatever it is.
        let is_flat = matches!(rate_card.conversion, Conversion::Sat) && !rate_card.prices.request.is_zero();
        if let Some(what) = rate_card.prices.lacks(&worst.demand).filter(|_| !is_flat) {
            return Err(RouteError::Unpriced { model: model.to_owned(), what });
        }
        let hold =
            limits::hold(limits, &rate_card, worst, self.pricing().tolerance_percent).ok_or(RouteError::OutOfRange)?;
        // A hold of nothing could not be told from no hold.
        let hold = hold.max(Msat::new(1).unwrap_or_default());
        Ok(Box::new(Candidate {
            list: dealt.list.map(as_asked),
            deal: dealt.deal,
            picture: kind.flatten(),
            prices: dealt.sheet,
            rate: rate.map(|rate| self.rate_sheet(rate)),
            btc_usd: rate.map(|rate| rate.btc_usd),
            btc_usd_as_of_ms: rate.filter(|rate| rate.sources > 0).map(|rate| rate.as_of_ms),
            model: found,
            id,
            forwarded,
            rate_card,
            hold,
        }))
    }

    /// What this buyer pays for a model with these prices, now.
    fn deal(&self, names: Names<'_>, list: Prices, conversion: Conversion, buyer: Buyer<'_>) -> Result<Dealt, NoDeal> {
        let tariffs = self.tariffs();
        let deal = if buyer.profile.is_none() && tariffs.windows.is_empty() {
            Deal::default()
        } else {
            let least = || least_factor(&conversion, buyer.pool, names);
            tariffs.deal(buyer.profile, names.id, self.clock.now_ms(), least)?
        };
        let minimum = self.pricing().min_request;
        let model = matches!(conversion, Conversion::Usd { .. }).then_some(names.id);
        let sheet = self.sheets.prices(&Sold { model, list: &list, deal: &deal, conversion: &conversion, minimum });
        let (prices, list) = match deal.multiplier == Decimal::ONE {
            true => (list, None),
            false => (list.times(deal.multiplier).ok_or(NoDeal::OutOfRange)?, Some(list)),
        };
        Ok(Dealt { card: RateCard { prices, conversion, minimum }, list, deal, sheet })
    }

    fn rate_sheet(&self, rate: Rate) -> Arc<Sheet> {
        self.sheets.rate(rate, self.book.refreshes(), || self.book.sources(self.clock.now_ms()))
    }

    /// `/v1/models`, at the present rate: what some upstream serves, and is sold to this buyer, at the
    /// buyer's prices. Without any upstream, what would be.
    #[must_use]
    pub fn listing(&self, buyer: Buyer<'_>) -> serde_json::Value {
        let pool = buyer.pool;
        let conversion = self.conversion().map(|(conversion, _)| conversion);
        let tariffs = self.tariffs();
        let now_ms = self.clock.now_ms();
        let catalog = self.catalog.now();
        let entry = |model: &Arc<Model>| {
            let names = Names { asked: &model.id, id: &model.id, forwarded: model.upstream_id() };
            if !pool.is_empty() && !pool.serves(names, &model.upstream_tags) {
                return None;
            }
            let (list, sold_in) = match self.model_based {
                true => (model.prices.clone(), conversion.clone().unwrap_or_else(|| self.conversion_at(Decimal::ONE))),
                false => (self.static_prices_of_all()?, Conversion::Sat),
            };
            let dealt = self.deal(names, list, sold_in, buyer).ok()?;
            let terms = Terms {
                provider_fee: self.pricing().provider_fee,
                conversion: conversion.as_ref(),
                static_prices: (!self.model_based).then_some(&dealt.card.prices),
                minimum: self.pricing().min_request,
                provider: pool.label(),
            };
            let windows = listing::windows(&tariffs, &model.id, now_ms);
            let mut entry = match (self.model_based, &dealt.list) {
                (true, Some(_)) => {
                    let dearer = Model { prices: dealt.card.prices.clone(), ..Model::clone(model) };
                    listing::entry(&dearer, &catalog.aliases(model), &terms)
                }
                _ => listing::entry(model, &catalog.aliases(model), &terms),
            };
            if let (Some(fields), false) = (entry.as_object_mut(), windows.is_empty()) {
                fields.insert("price_windows".to_owned(), windows.into());
            }
            Some(entry)
        };
        let data: Vec<_> = catalog.listed().filter_map(entry).collect();
        let mut list = serde_json::json!({ "object": "list", "data": data });
        if let (Some(profile), Some(fields)) = (buyer.profile, list.as_object_mut()) {
            fields.insert("price_profile".to_owned(), listing::profile(profile));
        }
        list
    }

    /// The models of the listing, and the ways by which each is reached.
    #[must_use]
    pub fn reached(&self, pool: &Pool) -> Vec<(String, Vec<ModelPath>)> {
        let ways = |model: &Model| {
            let names = Names { asked: &model.id, id: &model.id, forwarded: model.upstream_id() };
            pool.ways(names, &model.upstream_tags)
        };
        let catalog = self.catalog.now();
        let reached = catalog.listed().map(|model| (model.id.clone(), ways(model)));
        reached.filter(|(_, ways)| !ways.is_empty()).collect()
    }

    /// Whether this model of the list is to be had in this wire format.
    #[must_use]
    pub fn is_served(&self, id: &str, format: WireFormat, pool: &Pool) -> bool {
        self.catalog.find(id).is_some_and(|model| {
            let names = Names { asked: id, id: &model.id, forwarded: model.upstream_id() };
            let wanted =
                Requirements { format, names, tags: &model.upstream_tags, needs: Needs::default(), kind: None };
            pool.could_serve(&wanted)
        })
    }

    /// What any request costs, where the operator's own prices replace those of every model.
    #[must_use]
    pub fn static_prices(&self) -> Option<RateCard> {
        let minimum = self.pricing().min_request;
        let prices = (!self.model_based).then(|| self.static_prices_of_all()).flatten()?;
        Some(RateCard { prices, conversion: Conversion::Sat, minimum })
    }

    /// What requests to this model are charged by now, and the factor in its prices; `None` when it has no
    /// price.
    #[must_use]
    pub fn rate_card(&self, model: &str, buyer: Buyer<'_>) -> Option<(RateCard, Decimal)> {
        let found = self.catalog.find(model).filter(|_| self.model_based);
        let (list, conversion, forwarded) = match &found {
            Some(found) => (found.prices.clone(), self.conversion()?.0, found.upstream_id()),
            None => (self.static_prices()?.prices, Conversion::Sat, model),
        };
        let id = found.as_ref().map_or(model, |found| &found.id);
        let dealt = self.deal(Names { asked: model, id, forwarded }, list, conversion, buyer).ok()?;
        Some((dealt.card, dealt.deal.multiplier))
    }

    /// Whether the price list has a model of this name.
    #[must_use]
    pub fn lists(&self, name: &str) -> bool {
        self.catalog.find(name).is_some()
    }

    /// The id of the model that this name, id or alias means.
    #[must_use]
    pub fn canonical(&self, name: &str) -> Option<String> {
        self.catalog.find(name).map(|model| model.id.clone())
    }

    fn conversion(&self) -> Option<(Conversion, Rate)> {
        let rate = self.book.current(self.clock.now_ms()).ok()?;
        Some((self.conversion_at(rate.btc_usd), rate))
    }

    fn conversion_at(&self, btc_usd: Decimal) -> Conversion {
        let pricing = self.pricing();
        let (exchange_fee, provider_fee) = (pricing.exchange_fee, pricing.provider_fee);
        Conversion::Usd { btc_usd, exchange_fee, provider_fee }
    }

    /// `COST_PER_REQUEST` and `COST_PER_1K_*`, in sats.
    fn static_prices_of_all(&self) -> Option<Prices> {
        let pricing = self.pricing();
        let per_token = |per_1k: Decimal| per_1k.checked_div(Decimal::ONE_THOUSAND);
        Some(Prices {
            request: pricing.cost_per_request,
            prompt: per_token(pricing.cost_per_1k_input)?,
            completion: per_token(pricing.cost_per_1k_output)?,
            ..Prices::default()
        })
    }
}

/// The factor on the list at which the dearest upstream takes all that is charged. What the operator's own
/// prices in sats cost nobody knows: those are never lowered.
fn least_factor(conversion: &Conversion, pool: &Pool, names: Names<'_>) -> Option<Decimal> {
    match conversion {
        Conversion::Usd { exchange_fee, provider_fee, .. } => {
            let fee = pool.dearest_fee(names).unwrap_or(Decimal::ONE);
            break_even(fee, exchange_fee.checked_mul(*provider_fee)?)
        }
        Conversion::Sat => Some(Decimal::ONE),
    }
}

/// The price that pictures of this kind are made at, as a list names it. `None`: they are billed by tokens.
fn picture_name(prices: &Prices, picture: &Picture) -> Option<String> {
    match prices.picture_kind(&picture.quality, &picture.size).as_deref() {
        Some("") => Some("output_image".to_owned()),
        Some(kind) => Some(format!("output_image/{kind}")),
        None => (!prices.image.is_zero()).then(|| "image".to_owned()),
    }
}
