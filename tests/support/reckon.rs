//! What a request cost, reckoned again from what anybody can read: its receipt, and the price and rate
//! that the receipt names. Shares no code with the node but the decimals.

use rust_decimal::Decimal;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::node::TestNode;

/// The price and the rate that a receipt names, each with the hash that it is asked by.
pub async fn sheets(node: &TestNode, receipt: &Value) -> (Value, Value) {
    let mut found = [Value::Null, Value::Null];
    for (slot, name) in found.iter_mut().zip(["price_id", "rate_id"]) {
        let Some(id) = receipt[name].as_str() else { continue };
        let answer = node.get(&format!("/v1/prices/{id}")).send().await.expect("an answer");
        assert_eq!(answer.status(), 200, "{name} {id}");
        assert!(answer.headers()["cache-control"].to_str().unwrap().contains("immutable"));
        let text = answer.text().await.expect("a text");
        assert!(coinslot::vault::hex(&Sha256::digest(text.as_bytes())).starts_with(id), "{id} names {text}");
        *slot = serde_json::from_str(&text).expect("JSON");
    }
    let [price, rate] = found;
    assert!(price.is_object(), "{receipt}");
    (price, rate)
}

/// What the charge of this receipt comes to, in msat.
pub fn reckon(receipt: &Value, sheet: &Value, rate: &Value) -> u64 {
    let usage = Used(&receipt["usage"]);
    let service = receipt["service"].as_str().map(|service| format!("_{service}")).unwrap_or_default();
    let input = usage.total_input() - usage.get("read_apart");
    let prices = Prices { pricing: &sheet["pricing"], input, service: &service };
    let sum = |parts: &[(&str, Decimal)]| -> Decimal {
        parts.iter().map(|(name, price)| Decimal::from(usage.get(name)) * price).sum()
    };
    let prompt = prices.text("prompt").unwrap();
    let completion = prices.text("completion").unwrap();
    let written = prices.text("input_cache_write").unwrap_or(prompt);
    let heard = prices.text("audio").unwrap_or(prompt);
    // In another service, and for a long input, it costs no less than output does there.
    let reasoning = prices.get("internal_reasoning").filter(|price| !price.is_zero()).unwrap_or(completion);
    let is_usual = service.is_empty() && prices.tier().is_none();
    let reasoning = if is_usual { reasoning } else { reasoning.max(completion) };
    let mut list = sum(&[
        ("input", prompt),
        ("cache_read", prices.text("input_cache_read").unwrap_or(prompt)),
        ("cache_write", written),
        ("cache_write_1h", prices.text("input_cache_write_1h").unwrap_or(written)),
        ("audio_in", heard),
        ("audio_cached", prices.get("input_audio_cache").unwrap_or(heard)),
        ("image_in", prices.get("image_token").unwrap_or(prompt)),
        ("output", completion),
        ("reasoning", reasoning),
        ("audio_out", prices.get("audio_output").unwrap_or(completion)),
        ("images", prices.get("image").unwrap()),
        ("code_sessions", prices.get("code_session").unwrap_or_default()),
        ("queries", prices.get("query").unwrap_or_default()),
        ("characters", prices.get("character").unwrap_or_default()),
    ]);
    list += prices.get("request").unwrap();
    // By query where these are counted and priced, by search otherwise.
    list += match prices.get("web_query").filter(|_| usage.get("web_queries") > 0) {
        Some(price) => Decimal::from(usage.get("web_queries")) * price,
        None => Decimal::from(usage.get("web_searches")) * prices.get("web_search").unwrap(),
    };
    list += Decimal::from(usage.get("audio_ms")) * prices.get("second").unwrap_or_default() / Decimal::from(1000);
    // By token where these are counted and priced, by the piece otherwise.
    let by_token = prices.get("image_output");
    if usage.get("images_made") > 0 && (by_token.is_none() || usage.get("image_out") == 0) {
        let piece = receipt["picture"].as_str().and_then(|name| prices.get(name)).unwrap_or_default();
        list += Decimal::from(usage.get("images_made")) * piece;
    } else {
        list += Decimal::from(usage.get("image_out")) * by_token.unwrap_or(completion);
    }
    let dealt = list * decimal(&sheet["multiplier"]);
    let msat = match sheet["currency"].as_str().unwrap() {
        "usd" => {
            let btc_usd = decimal(&rate["btc_usd"]);
            let fees = decimal(&sheet["provider_fee"]) * decimal(&sheet["exchange_fee"]);
            dealt * fees * Decimal::from(100_000_000_000_u64) / btc_usd
        }
        _ => dealt * Decimal::from(1000),
    };
    let minimum = sheet["minimum_msat"].as_u64().unwrap();
    u64::try_from(msat.ceil()).unwrap().max(minimum)
}

struct Used<'a>(&'a Value);

impl Used<'_> {
    fn get(&self, name: &str) -> u64 {
        self.0.get(name).map_or(0, |count| count.as_u64().unwrap())
    }

    fn total_input(&self) -> u64 {
        let tokens = ["input", "cache_read", "cache_write", "cache_write_1h", "audio_in", "audio_cached", "image_in"];
        tokens.iter().map(|name| self.get(name)).sum()
    }
}

struct Prices<'a> {
    pricing: &'a Value,
    /// Tokens of the longest input that was read at once.
    input: u64,
    /// How the names of its prices end.
    service: &'a str,
}

impl Prices<'_> {
    fn get(&self, name: &str) -> Option<Decimal> {
        self.pricing.get(name).map(decimal)
    }

    /// The length, in thousands, above which the prices are those of this request.
    fn tier(&self) -> Option<u64> {
        let service = self.service;
        let above = |key: &String| {
            let length = key.strip_prefix("prompt_above_")?.strip_suffix(service)?.strip_suffix("k_tokens")?;
            length.parse::<u64>().ok().filter(|length| self.input > length * 1000)
        };
        self.pricing.as_object().unwrap().keys().filter_map(above).max()
    }

    /// A price that depends on the length of the request and on how it was served.
    fn text(&self, name: &str) -> Option<Decimal> {
        let service = self.service;
        match self.tier() {
            Some(length) => self.get(&format!("{name}_above_{length}k_tokens{service}")).or_else(|| self.get(name)),
            None => self.get(&format!("{name}{service}")),
        }
    }
}

fn decimal(value: &Value) -> Decimal {
    value.as_str().unwrap_or_else(|| panic!("{value} is not a decimal")).parse().unwrap()
}
