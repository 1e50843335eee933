//! What a charge was reckoned by, written down: the prices of a model with all that raises or lowers
//! them, and the rate of bitcoin with its sources. Two texts, each named by its hash ([`Sheet`]).
//!
//! ```text
//! cost = Σ used × pricing × multiplier × provider_fee × exchange_fee × 10¹¹ ÷ btc_usd   in msat, rounded up once
//! cost = Σ used × pricing × multiplier × 1000                                           where prices are in sat
//! ```
//!
//! `pricing` is in the shape of the list of models, so that what reads one reads the other.

use std::sync::{Arc, Mutex, PoisonError};

use moka::sync::Cache;
use rust_decimal::Decimal;
use serde_json::{Map, Value, json};

use super::card;
use crate::ledger::sheets::Sheet;
use crate::money::rate::Conversion;
use crate::money::tariff::Deal;
use crate::money::{Msat, Prices};
use crate::price::{Rate, RateBasis, Source};

/// Sheets that are remembered, so that they need not be written and hashed for each request.
const REMEMBERED: u64 = 10_000;

/// On what terms a model is sold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sold<'a> {
    /// Absent where the operator's own prices replace those of every model.
    pub model: Option<&'a str>,
    /// As listed, for pictures of every kind.
    pub list: &'a Prices,
    pub deal: &'a Deal,
    /// The fees of it.
    pub conversion: &'a Conversion,
    pub minimum: Msat,
}

/// The same, with its sheet.
#[derive(Debug)]
struct Written {
    list: Prices,
    deal: Deal,
    fees: Option<(Decimal, Decimal)>,
    minimum: Msat,
    sheet: Arc<Sheet>,
}

/// A rate, by what tells it from another.
type Quoted = (Rate, u64);

/// The sheets of late.
#[derive(Debug)]
pub struct Sheets {
    /// By model, and the profile of the key.
    prices: Cache<(String, String), Arc<Written>>,
    rate: Mutex<Option<(Quoted, Arc<Sheet>)>>,
}

impl Default for Sheets {
    fn default() -> Self {
        Self { prices: Cache::new(REMEMBERED), rate: Mutex::default() }
    }
}

impl Sheets {
    /// The sheet of these prices.
    #[must_use]
    pub fn prices(&self, sold: &Sold<'_>) -> Arc<Sheet> {
        let profile = sold.deal.profile.as_ref().map(|profile| profile.name.clone());
        let key = (sold.model.unwrap_or_default().to_owned(), profile.unwrap_or_default());
        let fees = fees(sold.conversion);
        if let Some(last) = self.prices.get(&key)
            && last.list == *sold.list
            && last.deal == *sold.deal
            && (last.fees, last.minimum) == (fees, sold.minimum)
        {
            return Arc::clone(&last.sheet);
        }
        let sheet = Arc::new(Sheet::new(describe(sold).to_string()));
        let (list, deal) = (sold.list.clone(), sold.deal.clone());
        let written = Written { list, deal, fees, minimum: sold.minimum, sheet: Arc::clone(&sheet) };
        self.prices.insert(key, Arc::new(written));
        sheet
    }

    /// The sheet of this rate, whose sources have said what they say so many times.
    #[must_use]
    pub fn rate(&self, rate: Rate, refreshes: u64, sources: impl FnOnce() -> Vec<Source>) -> Arc<Sheet> {
        // The operator's own has no age.
        let as_of_ms = if rate.basis == RateBasis::Fixed { 0 } else { rate.as_of_ms };
        let quoted = (Rate { as_of_ms, ..rate }, refreshes);
        let mut last = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, sheet)) = last.as_ref()
            && *known == quoted
        {
            return Arc::clone(sheet);
        }
        let sheet = Arc::new(Sheet::new(describe_rate(&rate, &sources()).to_string()));
        *last = Some((quoted, Arc::clone(&sheet)));
        sheet
    }
}

fn fees(conversion: &Conversion) -> Option<(Decimal, Decimal)> {
    match conversion {
        Conversion::Usd { exchange_fee, provider_fee, .. } => Some((*provider_fee, *exchange_fee)),
        Conversion::Sat => None,
    }
}

fn describe(sold: &Sold<'_>) -> Value {
    let mut sheet = Map::new();
    let mut put = |key: &str, value: Value| drop(sheet.insert(key.to_owned(), value));
    if let Some(model) = sold.model {
        put("model", json!(model));
    }
    let fees = fees(sold.conversion);
    put("currency", json!(if fees.is_some() { "usd" } else { "sat" }));
    put("pricing", Value::Object(pricing(sold.list)));
    put("multiplier", json!(sold.deal.multiplier.normalize()));
    if let Some(profile) = &sold.deal.profile {
        put("profile", json!({ "name": profile.name, "multiplier": profile.multiplier.normalize() }));
    }
    if !sold.deal.windows.is_empty() {
        let windows = sold.deal.windows.iter().map(|window| {
            json!({ "name": window.name, "multiplier": window.multiplier.normalize(), "hours": window.hours() })
        });
        put("windows", windows.collect());
    }
    if let Some((provider, exchange)) = fees {
        put("provider_fee", json!(provider.normalize()));
        put("exchange_fee", json!(exchange.normalize()));
    }
    put("minimum_msat", json!(sold.minimum.get()));
    Value::Object(sheet)
}

/// Prices in the shape of the list of models, decimals as text. What is not there has no price of its own.
#[must_use]
pub fn pricing(prices: &Prices) -> Map<String, Value> {
    let mut shown = Map::new();
    let mut put = |key: String, price: Decimal| drop(shown.insert(key, json!(price.normalize())));
    for (key, price) in prices.named() {
        if let Some(price) = price {
            put(key.to_owned(), price);
        }
    }
    for (variant, price) in &prices.output_images {
        let slash = if variant.is_empty() { "" } else { "/" };
        put(format!("output_image{slash}{variant}"), *price);
    }
    for (suffix, prices) in card::variants(prices) {
        for (key, price) in card::of_text(prices) {
            if let Some(price) = price {
                put(format!("{key}{suffix}"), price);
            }
        }
    }
    shown
}

fn describe_rate(rate: &Rate, sources: &[Source]) -> Value {
    let mut sheet = Map::new();
    let mut put = |key: &str, value: Value| drop(sheet.insert(key.to_owned(), value));
    put("btc_usd", json!(rate.btc_usd.normalize()));
    put("state", json!(rate.basis.as_str()));
    if rate.basis != RateBasis::Fixed {
        put("as_of_ms", json!(rate.as_of_ms));
        let said = |source: &Source| {
            let (btc_usd, at_ms) = source.answer?;
            let counts = source.counts;
            Some(json!({ "name": source.name, "btc_usd": btc_usd.normalize(), "at_ms": at_ms, "counts": counts }))
        };
        put("sources", sources.iter().filter_map(said).collect());
    }
    Value::Object(sheet)
}

#[cfg(test)]
mod tests {
    use serde_json::value::to_raw_value;

    use super::*;
    use crate::catalog::{Model, file};

    fn again(prices: &Prices) -> Prices {
        let entry = json!({ "id": "m", "pricing": pricing(prices) });
        Model::from_entry(&to_raw_value(&entry).unwrap()).unwrap().prices
    }

    /// Whatever a list may say of prices, a sheet says the same.
    #[test]
    fn a_sheet_says_all_that_a_list_says() {
        let every = r#"{"id":"m","pricing":{"prompt":"1e-6","completion":"2e-6","request":"0.001","image":"0.002",
            "web_search":"0.01","internal_reasoning":"3e-6","input_cache_read":"1e-7","input_cache_write":"1.25e-6",
            "input_cache_write_1h":"7e-6","audio":"3e-6","input_audio_cache":"4e-7","audio_output":"4e-6",
            "image_token":"5e-6","image_output":"6e-6","second":"8e-6","character":"9e-6","query":"1e-5",
            "output_image":"0.04","output_image/hd/1024x1024":"0.08","prompt_above_200k_tokens":"2e-6",
            "completion_above_200k_tokens":"3e-6","input_cache_read_above_272k_tokens":"1.5e-7",
            "input_cache_write_1h_above_272k_tokens":"9e-6","audio_above_200k_tokens":"7e-6","web_query":"0.014",
            "code_session":"0.03","prompt_flex":"5e-7","completion_flex":"1e-6","audio_flex":"2e-6",
            "prompt_priority":"2e-6","completion_priority":"4e-6","input_cache_read_priority":"2e-7",
            "prompt_above_272k_tokens_priority":"5e-6","completion_above_272k_tokens_priority":"8e-6"}}"#;
        let every = Model::from_entry(&serde_json::from_str::<Box<serde_json::value::RawValue>>(every).unwrap());
        let bundled = include_str!("../../models.example.json");
        let (mut models, _) = file::parse(bundled.as_bytes()).unwrap();
        models.push(every.unwrap());
        for model in &models {
            assert_eq!(again(&model.prices), model.prices, "{}", model.id);
        }
    }

    fn deal(multiplier: &str) -> Deal {
        Deal { multiplier: multiplier.parse().unwrap(), ..Deal::default() }
    }

    #[test]
    fn the_same_numbers_have_the_same_id_and_others_another() {
        let list = Prices { prompt: "0.00001".parse().unwrap(), ..Prices::default() };
        let usd = |fee: &str, btc_usd: i64| Conversion::Usd {
            btc_usd: Decimal::from(btc_usd),
            exchange_fee: Decimal::ONE,
            provider_fee: fee.parse().unwrap(),
        };
        let (sheets, others) = (Sheets::default(), Sheets::default());
        let plain = deal("1");
        let (fees, minimum) = (usd("1.05", 100_000), Msat::new(1).unwrap());
        let sold = Sold { model: Some("m"), list: &list, deal: &plain, conversion: &fees, minimum };
        let id = sheets.prices(&sold).id().to_owned();
        assert_eq!(sheets.prices(&sold).id(), id);
        assert_eq!(others.prices(&sold).id(), id, "in every process");
        // The rate has a sheet of its own.
        assert_eq!(sheets.prices(&Sold { conversion: &usd("1.05", 50_000), ..sold.clone() }).id(), id);
        let dearer = Prices { prompt: "0.00002".parse().unwrap(), ..list.clone() };
        for other in [
            Sold { model: Some("n"), ..sold.clone() },
            Sold { list: &dearer, ..sold.clone() },
            Sold { deal: &deal("0.8"), ..sold.clone() },
            Sold { conversion: &usd("1.06", 100_000), ..sold.clone() },
            Sold { minimum: Msat::new(2).unwrap(), ..sold.clone() },
        ] {
            assert_ne!(sheets.prices(&other).id(), id, "{other:?}");
            assert_eq!(sheets.prices(&sold).id(), id, "back again");
        }
        let content = sheets.prices(&sold).content().to_owned();
        assert_eq!(
            content,
            r#"{"model":"m","currency":"usd","pricing":{"prompt":"0.00001","completion":"0","request":"0","image":"0","web_search":"0"},"multiplier":"1","provider_fee":"1.05","exchange_fee":"1","minimum_msat":1}"#
        );
    }

    #[test]
    fn a_rate_is_written_once_for_each_answer_of_its_feeds() {
        let sheets = Sheets::default();
        let rate = Rate { btc_usd: Decimal::from(100_000), as_of_ms: 7, sources: 1, basis: RateBasis::Fresh };
        let source = |at_ms| {
            let answer = Some((Decimal::from(100_000), at_ms));
            vec![Source { name: "kraken".to_owned(), answer, counts: true }]
        };
        let first = sheets.rate(rate, 1, || source(7));
        assert_eq!(sheets.rate(rate, 1, || panic!("remembered")).id(), first.id());
        assert_ne!(sheets.rate(rate, 2, || source(9)).id(), first.id());
        assert_eq!(
            first.content(),
            r#"{"btc_usd":"100000","state":"fresh","as_of_ms":7,"sources":[{"name":"kraken","btc_usd":"100000","at_ms":7,"counts":true}]}"#
        );
        let fixed = Rate { basis: RateBasis::Fixed, sources: 0, ..rate };
        let (one, other) = (sheets.rate(fixed, 2, Vec::new), sheets.rate(Rate { as_of_ms: 8, ..fixed }, 2, Vec::new));
        assert_eq!((one.id(), one.content()), (other.id(), r#"{"btc_usd":"100000","state":"fixed"}"#));
    }
}
