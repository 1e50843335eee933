//! A model as `/v1/models` shows it.
//!
//! `pricing` is in USD per unit with the provider fee, `sats_pricing` in sats per unit with both
//! fees; a client that multiplies what it uses by the latter gets what it is charged. All numbers
//! are reckoned as decimals and only then written as JSON numbers.

use rust_decimal::Decimal;
use serde_json::{Map, Number, Value, json};

use super::card;
use super::limits::Maxima;
use super::model::{Architecture, Model, TopProvider};
use crate::money::rate::Conversion;
use crate::money::tariff::{Profile, Tariffs};
use crate::money::{Msat, Prices};

/// On what terms models are sold at present.
#[derive(Clone, Debug)]
pub struct Terms<'a> {
    /// Factor on the list price, in `pricing`.
    pub provider_fee: Decimal,
    /// The rate, with both fees; `None` when no current one is known.
    pub conversion: Option<&'a Conversion>,
    /// Prices in sats that replace those of every model (`COST_PER_REQUEST` and so on).
    pub static_prices: Option<&'a Prices>,
    /// What a served request costs at least.
    pub minimum: Msat,
    /// Kind of the upstream that serves it.
    pub provider: &'a str,
}

/// The hours at which this model costs something else, for programs and people.
#[must_use]
pub fn windows(tariffs: &Tariffs, model: &str, now_ms: i64) -> Vec<Value> {
    let about = tariffs.windows.iter().filter(|window| window.models.admits(model));
    let shown = about.map(|window| {
        json!({
            "name": window.name,
            "multiplier": window.multiplier.normalize(),
            "hours": window.hours(),
            "open": window.is_open(now_ms),
        })
    });
    shown.collect()
}

/// What a key is told of its profile.
#[must_use]
pub fn profile(profile: &Profile) -> Value {
    json!({ "name": profile.name, "multiplier": profile.multiplier.normalize(), "models": profile.models.describe() })
}

/// The public entry of `model`, which is also served under `aliases`.
#[must_use]
pub fn entry(model: &Model, aliases: &[String], terms: &Terms<'_>) -> Value {
    let vendor = model.id.split_once('/').map_or(terms.provider, |(vendor, _)| vendor);
    let aliases = (!aliases.is_empty()).then_some(aliases);
    let mut entry = Map::new();
    let mut put = |key: &str, value: Value| drop(entry.insert(key.to_owned(), value));
    put("id", json!(model.id));
    put("object", json!("model"));
    put("owned_by", json!(vendor));
    put("name", json!(model.name));
    put("created", json!(model.created));
    put("description", json!(model.description));
    put("context_length", json!(model.limits().context));
    put("architecture", architecture(&model.architecture));
    put("pricing", pricing_usd(model, terms).unwrap_or(Value::Null));
    put("sats_pricing", pricing_sats(model, terms).unwrap_or(Value::Null));
    put("per_request_limits", model.per_request_limits.clone());
    put("top_provider", model.top_provider.as_ref().map_or(Value::Null, top_provider));
    put("supported_parameters", json!(model.supported_parameters));
    put("enabled", json!(model.enabled));
    put("upstream_provider_id", json!(terms.provider));
    put("canonical_slug", json!(model.canonical_slug));
    put("hugging_face_id", json!(model.hugging_face_id));
    put("alias_ids", json!(aliases));
    put("forwarded_model_id", json!(model.forwarded_model_id));
    fill_up(&mut entry, &model.extra);
    Value::Object(entry)
}

fn architecture(shown: &Architecture) -> Value {
    let mut fields = Map::new();
    let mut put = |key: &str, value: Value| drop(fields.insert(key.to_owned(), value));
    put("modality", json!(shown.modality));
    put("input_modalities", json!(shown.input_modalities));
    put("output_modalities", json!(shown.output_modalities));
    put("tokenizer", json!(shown.tokenizer));
    put("instruct_type", json!(shown.instruct_type));
    fill_up(&mut fields, &shown.extra);
    Value::Object(fields)
}

fn top_provider(shown: &TopProvider) -> Value {
    let mut fields = Map::new();
    let mut put = |key: &str, value: Value| drop(fields.insert(key.to_owned(), value));
    put("context_length", json!(shown.context_length));
    put("max_completion_tokens", json!(shown.max_completion_tokens));
    put("is_moderated", json!(shown.is_moderated));
    fill_up(&mut fields, &shown.extra);
    Value::Object(fields)
}

/// Adds what is not there yet.
fn fill_up(fields: &mut Map<String, Value>, extra: &Map<String, Value>) {
    for (key, value) in extra {
        fields.entry(key.clone()).or_insert_with(|| value.clone());
    }
}

fn pricing_usd(model: &Model, terms: &Terms<'_>) -> Option<Value> {
    let maxima = model.limits().maxima(&model.prices)?;
    let convert = |usd: Decimal| usd.checked_mul(terms.provider_fee);
    price_object(&model.prices, &maxima, Decimal::ZERO, convert)
}

fn pricing_sats(model: &Model, terms: &Terms<'_>) -> Option<Value> {
    let floor = Decimal::from(terms.minimum.get()).checked_div(Decimal::ONE_THOUSAND)?;
    if let Some(prices) = terms.static_prices {
        // The fixed price comes once; the network's blind guess of it has no place here.
        let per_token = Prices { prompt: prices.prompt, completion: prices.completion, ..Prices::default() };
        let mut maxima = model.limits().maxima(&per_token)?;
        maxima.total = maxima.total.checked_add(prices.request)?;
        return price_object(prices, &maxima, floor, Some);
    }
    let conversion = terms.conversion?;
    let maxima = model.limits().maxima(&model.prices)?;
    price_object(&model.prices, &maxima, floor, |usd| conversion.to_sat_decimal(usd))
}

/// All prices, converted. `request` and `max_cost` are raised to `floor`.
fn price_object(
    prices: &Prices,
    maxima: &Maxima,
    floor: Decimal,
    convert: impl Fn(Decimal) -> Option<Decimal>,
) -> Option<Value> {
    let mut object = Map::new();
    for (key, price, least) in [
        ("prompt", prices.prompt, Decimal::ZERO),
        ("completion", prices.completion, Decimal::ZERO),
        ("request", prices.request, floor),
        ("image", prices.image, Decimal::ZERO),
        ("web_search", prices.web_search, Decimal::ZERO),
        ("internal_reasoning", prices.internal_reasoning.unwrap_or_default(), Decimal::ZERO),
        ("input_cache_read", prices.cache_read(), Decimal::ZERO),
        ("input_cache_write", prices.cache_write(), Decimal::ZERO),
        ("max_prompt_cost", maxima.prompt, Decimal::ZERO),
        ("max_completion_cost", maxima.completion, Decimal::ZERO),
        ("max_cost", maxima.total, floor),
    ] {
        let shown = number(convert(price)?.max(least))?;
        object.insert(key.to_owned(), Value::Number(shown));
    }
    for (key, price) in priced_apart(prices) {
        object.insert(key, Value::Number(number(convert(price)?)?));
    }
    Some(Value::Object(object))
}

/// What every model is shown with.
const ALWAYS: [&str; 8] = [
    "prompt",
    "completion",
    "request",
    "image",
    "web_search",
    "internal_reasoning",
    "input_cache_read",
    "input_cache_write",
];

/// What most models have no price for. It is shown where there is one.
fn priced_apart(prices: &Prices) -> Vec<(String, Decimal)> {
    let apart = prices.named().into_iter().filter(|(key, _)| !ALWAYS.contains(key));
    let mut shown: Vec<(String, Decimal)> = apart.filter_map(|(key, price)| Some((key.to_owned(), price?))).collect();
    shown.extend(prices.output_images.iter().map(|(variant, price)| match variant.as_str() {
        "" => ("output_image".to_owned(), *price),
        variant => (format!("output_image/{variant}"), *price),
    }));
    for (suffix, prices) in card::variants(prices) {
        shown.extend(of_text(prices).map(|(key, price)| (format!("{key}{suffix}"), price)));
    }
    shown
}

/// The prices of a variant as clients pay them.
fn of_text(prices: &Prices) -> impl Iterator<Item = (&'static str, Decimal)> {
    card::of_text(prices).into_iter().filter_map(|(key, listed)| {
        let paid = match key {
            "input_cache_read" => Some(prices.cache_read()),
            "input_cache_write" => Some(prices.cache_write()),
            _ => listed,
        };
        Some((key, paid?))
    })
}

/// A decimal as a JSON number, from its text.
fn number(amount: Decimal) -> Option<Number> {
    serde_json::from_str(&amount.normalize().to_string()).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;

    fn model(text: &str) -> Model {
        Model::from_entry(&serde_json::from_str::<Box<RawValue>>(text).unwrap()).unwrap()
    }

    fn conversion() -> Conversion {
        Conversion::Usd {
            btc_usd: Decimal::from(100_000),
            exchange_fee: "1.005".parse().unwrap(),
            provider_fee: "1.05".parse().unwrap(),
        }
    }

    fn terms(conversion: Option<&Conversion>) -> Terms<'_> {
        Terms {
            provider_fee: "1.05".parse().unwrap(),
            conversion,
            static_prices: None,
            minimum: Msat::new(1).unwrap(),
            provider: "generic",
        }
    }

    const MINI: &str = r#"{"id":"openai/gpt-4o-mini","created":1721260800,"context_length":128000,
        "architecture":{"modality":"text->text","input_modalities":["text"],"voice":"no"},
        "pricing":{"prompt":"0.00000015","completion":"0.0000006","input_cache_read":"0.000000075"},
        "top_provider":{"context_length":128000,"max_completion_tokens":16384,"is_moderated":true},
        "knowledge":"2023-10","owned_by":"somebody"}"#;

    #[test]
    fn numbers_by_hand() {
        let conversion = conversion();
        let shown = entry(&model(MINI), &[], &terms(Some(&conversion)));
        let usd = &shown["pricing"];
        // 0.15 and 0.60 USD per million × 1.05
        assert_eq!(usd["prompt"].to_string(), "1.575e-7");
        assert_eq!(usd["completion"].to_string(), "6.3e-7");
        assert_eq!(usd["request"].to_string(), "0");
        // 128000 × 0.0000001575; 16384 × 0.00000063
        assert_eq!(usd["max_prompt_cost"].to_string(), "0.02016");
        assert_eq!(usd["max_completion_cost"].to_string(), "0.01032192");
        // 111616 × 0.0000001575 + 0.01032192
        assert_eq!(usd["max_cost"].to_string(), "0.02790144");
        let sats = &shown["sats_pricing"];
        // 1.5e-7 × 1.05525 × 10^8 / 100000
        assert_eq!(sats["prompt"].to_string(), "0.0001582875");
        assert_eq!(sats["completion"].to_string(), "0.00063315");
        assert_eq!(sats["input_cache_read"].to_string(), "0.00007914375");
        // Absent: the input price.
        assert_eq!(sats["input_cache_write"], sats["prompt"]);
        assert_eq!(sats["internal_reasoning"].to_string(), "0");
        // The minimum of 1 msat.
        assert_eq!(sats["request"].to_string(), "0.001");
        // 0.0265728 USD × 1055.25
        assert_eq!(sats["max_cost"].to_string(), "28.0409472");
        assert_eq!(sats["max_prompt_cost"].to_string(), "20.2608");
        assert_eq!(sats["max_completion_cost"].to_string(), "10.3735296");
    }

    #[test]
    fn the_frame_of_an_entry() {
        let shown = entry(&model(MINI), &[], &terms(None));
        assert_eq!(shown["sats_pricing"], Value::Null);
        for (key, expected) in [
            ("id", json!("openai/gpt-4o-mini")),
            ("object", json!("model")),
            ("owned_by", json!("openai")),
            ("name", json!("openai/gpt-4o-mini")),
            ("created", json!(1_721_260_800)),
            ("context_length", json!(128_000)),
            ("enabled", json!(true)),
            ("upstream_provider_id", json!("generic")),
            ("alias_ids", Value::Null),
            ("canonical_slug", Value::Null),
            ("forwarded_model_id", Value::Null),
            ("per_request_limits", Value::Null),
            ("knowledge", json!("2023-10")),
        ] {
            assert_eq!(shown[key], expected, "{key}");
        }
        assert_eq!(shown["architecture"]["voice"], json!("no"));
        assert_eq!(shown["architecture"]["instruct_type"], Value::Null);
        assert_eq!(shown["top_provider"]["max_completion_tokens"], json!(16_384));
    }

    #[test]
    fn a_free_model_still_costs_the_minimum() {
        let conversion = conversion();
        let free = model(r#"{"id":"m","pricing":{"prompt":"0","completion":"0"}}"#);
        let mut terms = terms(Some(&conversion));
        terms.minimum = Msat::new(2500).unwrap();
        let sats = &entry(&free, &[], &terms)["sats_pricing"];
        assert_eq!(sats["request"].to_string(), "2.5");
        assert_eq!(sats["max_cost"].to_string(), "2.5");
        assert_eq!(sats["prompt"].to_string(), "0");
    }

    #[test]
    fn static_prices_need_no_rate() {
        let prices = Prices { request: Decimal::from(2), prompt: "0.001".parse().unwrap(), ..Prices::default() };
        let mut terms = terms(None);
        terms.static_prices = Some(&prices);
        let sats = &entry(&model(MINI), &[], &terms)["sats_pricing"];
        assert_eq!(sats["request"].to_string(), "2");
        assert_eq!(sats["prompt"].to_string(), "0.001");
        // 2 + (128000 − 16384) × 0.001
        assert_eq!(sats["max_cost"].to_string(), "113.616");
    }
}
