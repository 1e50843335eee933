//! One model on offer, read from an entry in the shape of OpenRouter's list.
//!
//! Prices are decimals taken from the entry's text. An entry whose prices cannot be charged
//! (missing, negative, absurd) is no model: reading it fails with a line for the operator. All
//! else is decoration and read leniently; fields that are not known are kept and shown again.

use std::collections::{BTreeMap, HashMap};

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::card::Card;
use super::limits::Limits;
use super::services;
use crate::money::rate::{Conversion, Tier};
use crate::money::{Msat, Prices, RateCard};
use crate::price::decimal;

/// Most USD for one unit of anything that is believed.
const MAX_PRICE_USD: Decimal = Decimal::ONE_THOUSAND;

/// What goes in and comes out of a model. Display only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Architecture {
    pub modality: Option<String>,
    pub input_modalities: Vec<String>,
    pub output_modalities: Vec<String>,
    pub tokenizer: Option<String>,
    pub instruct_type: Option<String>,
    /// Fields that are not known here, as they came.
    pub extra: Map<String, Value>,
}

/// Limits of the upstream that serves the model best.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopProvider {
    /// Tokens of input and output together; `None` when unknown.
    pub context_length: Option<u64>,
    /// Output tokens; `None` when unknown.
    pub max_completion_tokens: Option<u64>,
    pub is_moderated: Option<bool>,
    /// Fields that are not known here, as they came.
    pub extra: Map<String, Value>,
}

/// A model with prices that can be charged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// Name in full, like `openai/gpt-4o-mini`.
    pub id: String,
    pub name: String,
    /// Seconds since the Unix epoch; 0 when unknown.
    pub created: u64,
    pub description: String,
    /// Tokens of input and output together; `None` when unknown.
    pub context_length: Option<u64>,
    pub architecture: Architecture,
    /// In USD per unit, at list price: no fee is included.
    pub prices: Prices,
    pub top_provider: Option<TopProvider>,
    /// As it came, usually null.
    pub per_request_limits: Value,
    pub supported_parameters: Vec<String>,
    pub hugging_face_id: Option<String>,
    pub canonical_slug: Option<String>,
    /// Further names that it is served under.
    pub alias_ids: Vec<String>,
    /// What the upstream calls it, where that differs from `id`.
    pub forwarded_model_id: Option<String>,
    /// Tags that an upstream must have, all of them, to be asked for it. Never shown.
    pub upstream_tags: Vec<String>,
    /// Whether it searches before it answers, unasked. `None`: its name tells. Never shown.
    pub searches_unasked: Option<bool>,
    /// Whether it is on offer.
    pub enabled: bool,
    /// Whether it is shown to those who do not know of it. It is sold to whoever names it all the same.
    pub visible: bool,
    /// Fields of the entry that are not known here, as they came.
    pub extra: Map<String, Value>,
}

impl Model {
    /// Reads one entry of a list.
    ///
    /// # Errors
    /// With a line for the operator when the entry has no id, or its prices cannot be charged.
    pub fn from_entry(entry: &RawValue) -> Result<Self, String> {
        /// The prices once more, because a [`Value`] would turn them into floats.
        #[derive(Deserialize)]
        struct Priced<'a> {
            #[serde(borrow, default)]
            pricing: Option<HashMap<String, &'a RawValue>>,
        }
        let mut fields: Map<String, Value> =
            serde_json::from_str(entry.get()).map_err(|_| "an entry is not a JSON object".to_owned())?;
        let id = take_text(&mut fields, "id").ok_or("an entry has no id")?;
        let priced: Priced<'_> =
            serde_json::from_str(entry.get()).map_err(|_| format!("{id}: its pricing cannot be read"))?;
        let pricing = priced.pricing.ok_or_else(|| format!("{id}: it has no pricing"))?;
        let prices = read_prices(&pricing).map_err(|problem| format!("{id}: {problem}"))?;
        fields.remove("pricing");
        // Belongs to another node's rate and is reckoned anew.
        fields.remove("sats_pricing");
        Ok(Self {
            name: take_text(&mut fields, "name").unwrap_or_else(|| id.clone()),
            id,
            created: take_count(&mut fields, "created").unwrap_or(0),
            description: take_text(&mut fields, "description").unwrap_or_default(),
            context_length: take_limit(&mut fields, "context_length"),
            architecture: take_object(&mut fields, "architecture").map(Architecture::from_fields).unwrap_or_default(),
            prices,
            top_provider: take_object(&mut fields, "top_provider").map(TopProvider::from_fields),
            per_request_limits: fields.remove("per_request_limits").unwrap_or(Value::Null),
            supported_parameters: take_texts(&mut fields, "supported_parameters"),
            hugging_face_id: take_text(&mut fields, "hugging_face_id"),
            canonical_slug: take_text(&mut fields, "canonical_slug"),
            alias_ids: take_texts(&mut fields, "alias_ids"),
            forwarded_model_id: take_text(&mut fields, "forwarded_model_id"),
            upstream_tags: take_texts(&mut fields, "upstream_tags"),
            searches_unasked: take_flag(&mut fields, "searches_unasked"),
            enabled: take_flag(&mut fields, "enabled").unwrap_or(true),
            visible: take_flag(&mut fields, "visible").unwrap_or(true),
            extra: fields,
        })
    }

    /// The id without its vendor: `gpt-4o` of `openai/gpt-4o`. `None` when there is no vendor.
    #[must_use]
    pub fn bare_id(&self) -> Option<&str> {
        let (vendor, bare) = self.id.split_once('/')?;
        (!vendor.is_empty() && !bare.is_empty()).then_some(bare)
    }

    /// What the upstream calls this model.
    #[must_use]
    pub fn upstream_id(&self) -> &str {
        self.forwarded_model_id.as_deref().unwrap_or(&self.id)
    }

    /// How much it can read and write at most, as far as known.
    #[must_use]
    pub fn limits(&self) -> Limits {
        let top = self.top_provider.as_ref();
        Limits {
            context: top.and_then(|t| t.context_length).or(self.context_length),
            max_completion: top.and_then(|t| t.max_completion_tokens),
        }
    }

    /// Its prices at this rate; what a request is held and charged by.
    #[must_use]
    pub fn rate_card(&self, conversion: Conversion, minimum: Msat) -> RateCard {
        RateCard { prices: self.prices.clone(), conversion, minimum }
    }
}

impl Architecture {
    fn from_fields(mut fields: Map<String, Value>) -> Self {
        Self {
            modality: take_text(&mut fields, "modality"),
            input_modalities: take_texts(&mut fields, "input_modalities"),
            output_modalities: take_texts(&mut fields, "output_modalities"),
            tokenizer: take_text(&mut fields, "tokenizer"),
            instruct_type: take_text(&mut fields, "instruct_type"),
            extra: fields,
        }
    }
}

impl TopProvider {
    fn from_fields(mut fields: Map<String, Value>) -> Self {
        Self {
            context_length: take_limit(&mut fields, "context_length"),
            max_completion_tokens: take_limit(&mut fields, "max_completion_tokens"),
            is_moderated: take_flag(&mut fields, "is_moderated"),
            extra: fields,
        }
    }
}

/// The prices of a card, as if it were an entry's.
///
/// # Errors
/// With what is wrong with them.
pub(super) fn read_card(card: &Card) -> Result<Prices, String> {
    let raw = card.iter().map(|(name, price)| {
        let raw = serde_json::value::to_raw_value(&price.to_string()).map_err(|error| error.to_string())?;
        Ok((name.to_owned(), raw))
    });
    let raw: HashMap<String, Box<RawValue>> = raw.collect::<Result<_, String>>()?;
    read_prices(&raw.iter().map(|(name, raw)| (name.clone(), &**raw)).collect())
}

fn read_prices(pricing: &HashMap<String, &RawValue>) -> Result<Prices, String> {
    let listed = |names: &[&str]| -> Result<Option<Decimal>, String> {
        let found = names.iter().find_map(|name| pricing.get_key_value(*name));
        found.map_or(Ok(None), |(name, raw)| read_price(name, raw))
    };
    let optional = |key: &str| listed(&[key]);
    let required = |key: &str| optional(key)?.ok_or_else(|| format!("it has no {key} price"));
    let mut prices = Prices {
        prompt: required("prompt")?,
        completion: required("completion")?,
        request: optional("request")?.unwrap_or_default(),
        image: optional("image")?.unwrap_or_default(),
        web_search: optional("web_search")?.unwrap_or_default(),
        web_query: optional("web_query")?,
        code_session: listed(&["code_session", "code_interpreter_cost_per_session"])?,
        internal_reasoning: optional("internal_reasoning")?,
        input_cache_read: optional("input_cache_read")?,
        input_cache_write: optional("input_cache_write")?,
        input_cache_write_1h: listed(&["input_cache_write_1h", "cache_creation_input_token_cost_above_1hr"])?,
        audio: listed(&["audio", "input_cost_per_audio_token"])?,
        input_audio_cache: listed(&["input_audio_cache", "cache_read_input_audio_token_cost"])?,
        audio_output: listed(&["audio_output", "output_cost_per_audio_token"])?,
        image_token: listed(&["image_token", "input_cost_per_image_token"])?,
        image_output: listed(&["image_output", "output_cost_per_image_token"])?,
        output_images: read_pictures(pricing)?,
        query: listed(&["query", "input_cost_per_query"])?,
        second: listed(&["second", "input_cost_per_second"])?,
        character: listed(&["character", "input_cost_per_character"])?,
        tiers: Vec::new(),
        services: Vec::new(),
    };
    prices.tiers = read_tiers(pricing, &prices)?;
    prices.services = services::read(pricing, &prices)?;
    Ok(prices)
}

/// Prices of long inputs: a name and `_above_200k_tokens`, for the prices of text and of audio that is sent. What such a
/// tier leaves out costs what it costs without it, and reasoning no less than output there.
fn read_tiers(pricing: &HashMap<String, &RawValue>, base: &Prices) -> Result<Vec<Tier>, String> {
    let mut tiers: BTreeMap<u64, Prices> = BTreeMap::new();
    for (name, raw) in pricing {
        let Some((kind, above)) = name.strip_suffix("k_tokens").and_then(|name| name.rsplit_once("_above_")) else {
            continue;
        };
        let above: u64 = above.parse().map_err(|_| format!("its {name} price has no length"))?;
        let Some(price) = read_price(name, raw)? else { continue };
        let prices = tiers.entry(above.saturating_mul(1000)).or_insert_with(|| base.clone());
        match kind {
            "prompt" | "input_cost_per_token" => prices.prompt = price,
            "completion" | "output_cost_per_token" => prices.completion = price,
            "input_cache_read" | "cache_read_input_token_cost" => prices.input_cache_read = Some(price),
            "input_cache_write" | "cache_creation_input_token_cost" => prices.input_cache_write = Some(price),
            "input_cache_write_1h" | "cache_creation_input_token_cost_above_1hr" => {
                prices.input_cache_write_1h = Some(price);
            }
            "audio" | "input_cost_per_audio_token" => prices.audio = Some(price),
            _ => return Err(format!("its {name} price is of no kind that is known")),
        }
    }
    for prices in tiers.values_mut() {
        let reasoning = prices.internal_reasoning.filter(|price| !price.is_zero());
        prices.internal_reasoning = reasoning.map(|price| price.max(prices.completion));
    }
    Ok(tiers.into_iter().map(|(above, prices)| Tier { above, prices }).collect())
}

/// A price that is there; `None` where the list leaves it open.
pub(super) fn read_price(name: &str, raw: &RawValue) -> Result<Option<Decimal>, String> {
    if matches!(raw.get(), "null" | "\"\"") {
        return Ok(None);
    }
    let price = decimal::parse_json(raw).ok_or_else(|| format!("its {name} price is not a number"))?;
    believed(name, price).map(Some)
}

/// A price that can be charged.
pub(super) fn believed(name: &str, price: Decimal) -> Result<Decimal, String> {
    if price.is_sign_negative() && !price.is_zero() {
        return Err(format!("its {name} price is negative ({price}), so it depends on the request"));
    }
    if price > MAX_PRICE_USD {
        return Err(format!("its {name} price is absurd ({price} USD)"));
    }
    Ok(price.normalize())
}

/// The prices of pictures made: `output_image` for any, and `output_image/` with a quality, a size
/// or both: `output_image/hd/1024x1024`.
fn read_pictures(pricing: &HashMap<String, &RawValue>) -> Result<BTreeMap<String, Decimal>, String> {
    let mut found = BTreeMap::new();
    for (name, raw) in pricing {
        let variant = match name.strip_prefix("output_image") {
            Some("") => "",
            Some(rest) => match rest.strip_prefix('/') {
                Some(variant) => variant,
                None => continue,
            },
            None if name == "output_cost_per_image" => "",
            None => continue,
        };
        if let Some(price) = read_price(name, raw)? {
            found.insert(variant.to_owned(), price);
        }
    }
    Ok(found)
}

fn take_text(fields: &mut Map<String, Value>, key: &str) -> Option<String> {
    match fields.remove(key) {
        Some(Value::String(text)) if !text.trim().is_empty() => Some(text),
        _ => None,
    }
}

fn take_texts(fields: &mut Map<String, Value>, key: &str) -> Vec<String> {
    let Some(Value::Array(items)) = fields.remove(key) else { return Vec::new() };
    let text = |item| match item {
        Value::String(text) => Some(text),
        _ => None,
    };
    items.into_iter().filter_map(text).collect()
}

fn take_flag(fields: &mut Map<String, Value>, key: &str) -> Option<bool> {
    fields.remove(key)?.as_bool()
}

fn take_object(fields: &mut Map<String, Value>, key: &str) -> Option<Map<String, Value>> {
    match fields.remove(key) {
        Some(Value::Object(object)) => Some(object),
        _ => None,
    }
}

/// A whole number, also where the list writes it as `128000.0` or as a string.
fn take_count(fields: &mut Map<String, Value>, key: &str) -> Option<u64> {
    let text = match fields.remove(key)? {
        Value::Number(number) => number.to_string(),
        Value::String(text) => text,
        _ => return None,
    };
    decimal::parse(&text)?.trunc().to_u64()
}

/// A limit in tokens; zero means that it is not known.
fn take_limit(fields: &mut Map<String, Value>, key: &str) -> Option<u64> {
    take_count(fields, key).filter(|count| *count > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Model, String> {
        Model::from_entry(&serde_json::from_str::<Box<RawValue>>(text).unwrap())
    }

    #[test]
    fn a_full_entry() {
        let model = read(
            r#"{"id":"openai/gpt-4o-mini","name":"GPT-4o-mini","created":1721260800,
            "description":"small","context_length":128000,
            "architecture":{"modality":"text+image->text","input_modalities":["text","image"],
              "output_modalities":["text"],"tokenizer":"GPT","instruct_type":null,"new":1},
            "pricing":{"prompt":"0.00000015","completion":6e-07,"request":"0","image":null,
              "input_cache_read":0.000000075},
            "top_provider":{"context_length":127000,"max_completion_tokens":16384.0,"is_moderated":true},
            "per_request_limits":null,"supported_parameters":["tools"],"hugging_face_id":"",
            "alias_ids":["mini"],"forwarded_model_id":"gpt-4o-mini-2024-07-18","knowledge":"2023-10"}"#,
        )
        .unwrap();
        assert_eq!(model.prices.prompt, "0.00000015".parse().unwrap());
        assert_eq!(model.prices.completion, "0.0000006".parse().unwrap());
        assert_eq!(model.prices.input_cache_read, Some("0.000000075".parse().unwrap()));
        assert_eq!(model.prices.input_cache_write, None);
        assert_eq!(model.limits(), Limits { context: Some(127_000), max_completion: Some(16_384) });
        assert_eq!(model.bare_id(), Some("gpt-4o-mini"));
        assert_eq!(model.upstream_id(), "gpt-4o-mini-2024-07-18");
        assert_eq!(model.extra.get("knowledge"), Some(&Value::from("2023-10")));
        assert_eq!(model.architecture.extra.get("new"), Some(&Value::from(1)));
        assert!(model.enabled && model.hugging_face_id.is_none() && model.extra.len() == 1);
    }

    #[test]
    fn prices_of_every_kind() {
        let model = read(
            r#"{"id":"m","pricing":{"prompt":"1e-6","completion":"2e-6","audio":"3e-6","audio_output":"4e-6",
            "input_cost_per_image_token":5e-6,"image_output":"6e-6","input_cache_write_1h":"7e-6","input_cost_per_second":"8e-6",
            "character":"9e-6","query":"1e-5","output_image":"0.04","output_image/hd/1024x1024":"0.08","output_images":"x",
            "prompt_above_200k_tokens":"2e-6","output_cost_per_token_above_200k_tokens":"3e-6","input_cache_read_above_272k_tokens":"1e-7",
            "cache_creation_input_token_cost_above_1hr_above_200k_tokens":"4e-6","audio_above_272k_tokens":"5e-6"}}"#,
        )
        .unwrap();
        let price = |micros: i64| Some(Decimal::new(micros, 6).normalize());
        let prices = &model.prices;
        assert_eq!((prices.audio, prices.audio_output, prices.image_token), (price(3), price(4), price(5)));
        assert_eq!((prices.image_output, prices.input_cache_write_1h, prices.second), (price(6), price(7), price(8)));
        assert_eq!((prices.character, prices.query, prices.input_audio_cache), (price(9), price(10), None));
        assert_eq!((prices.picture("hd", "1024x1024"), prices.picture("x", "y")), (price(80_000), price(40_000)));
        let at = |tokens| (prices.for_input(tokens).prompt, prices.for_input(tokens).completion);
        let micros = |prompt, completion| (Decimal::new(prompt, 6), Decimal::new(completion, 6));
        assert_eq!((at(200_000), at(200_001)), (micros(1, 2), micros(2, 3)));
        let (long, longer) = (prices.for_input(200_001), prices.for_input(272_001));
        assert_eq!((long.input_cache_write_1h, longer.input_cache_write_1h), (price(4), price(7)));
        assert_eq!((long.audio, longer.audio), (price(3), price(5)));
        assert_eq!((prices.tiers.len(), prices.for_input(272_001).input_cache_read), (2, Some(Decimal::new(1, 7))));
        for (name, price, reason) in [
            ("prompt_above_xk_tokens", "1", "no length"),
            ("image_above_200k_tokens", "1", "no kind"),
            ("prompt_above_200k_tokens", "-1", "negative"),
            ("output_image/hd", "-1", "negative"),
            ("audio", "1001", "absurd"),
        ] {
            let text = format!(r#"{{"id":"m","pricing":{{"prompt":"1","completion":"1","{name}":"{price}"}}}}"#);
            let problem = read(&text).unwrap_err();
            assert!(problem.contains(reason), "{name}: {problem}");
        }
    }

    #[test]
    fn the_least_entry() {
        let model = read(r#"{"id":"m","pricing":{"prompt":0,"completion":"0"}}"#).unwrap();
        assert_eq!((model.name.as_str(), model.bare_id()), ("m", None));
        assert_eq!(model.limits(), Limits { context: None, max_completion: None });
        assert!(model.prices.prompt.is_zero());
    }

    #[test]
    fn entries_that_cannot_be_charged_are_refused_with_the_reason() {
        for (text, reason) in [
            (r#"[]"#, "not a JSON object"),
            (r#"{"pricing":{"prompt":"1","completion":"1"}}"#, "no id"),
            (r#"{"id":""}"#, "no id"),
            (r#"{"id":"m"}"#, "no pricing"),
            (r#"{"id":"m","pricing":null}"#, "no pricing"),
            (r#"{"id":"m","pricing":[]}"#, "pricing cannot be read"),
            (r#"{"id":"m","pricing":{"completion":"1"}}"#, "no prompt price"),
            (r#"{"id":"m","pricing":{"prompt":"1"}}"#, "no completion price"),
            (r#"{"id":"m","pricing":{"prompt":"","completion":"1"}}"#, "no prompt price"),
            (r#"{"id":"m","pricing":{"prompt":"-1","completion":"-1"}}"#, "prompt price is negative"),
            (r#"{"id":"m","pricing":{"prompt":"1","completion":-0.1}}"#, "completion price is negative"),
            (r#"{"id":"m","pricing":{"prompt":"1000.01","completion":"1"}}"#, "absurd"),
            (r#"{"id":"m","pricing":{"prompt":"1e999","completion":"1"}}"#, "not a number"),
            (r#"{"id":"m","pricing":{"prompt":"NaN","completion":"1"}}"#, "not a number"),
            (r#"{"id":"m","pricing":{"prompt":"1","completion":"1","request":"x"}}"#, "request price is not"),
            (r#"{"id":"m","pricing":{"prompt":"1","completion":"1","image":-1}}"#, "image price is negative"),
        ] {
            let problem = read(text).unwrap_err();
            assert!(problem.contains(reason), "{text}: {problem}");
        }
        assert!(read(r#"{"id":"m","pricing":{"prompt":"1000","completion":"-0"}}"#).is_ok());
    }
}
