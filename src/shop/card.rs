//! The price card of a request: what was used, at which prices, from what the books keep of it. A part
//! that the books name and this file does not know is shown by its name.

use rust_decimal::Decimal;
use serde_json::{Map, Value};

use super::moment;
use super::prices::exact;
use crate::ledger::requests::Charged;
use crate::pages::format;
use crate::price::decimal;

/// One request that was charged.
#[derive(Debug)]
pub(super) struct Card {
    pub request: String,
    pub time: String,
    pub model: String,
    pub sat: String,
    pub parts: Vec<Part>,
    /// The rate and the fees, in a sentence.
    pub terms: Option<String>,
    /// The upstream reported no usage.
    pub estimated: bool,
}

/// One line of it.
#[derive(Debug)]
pub(super) struct Part {
    pub what: String,
    /// How many, at how much each.
    pub sum: Option<String>,
    pub sat: String,
}

/// The card of a request.
pub(super) fn of(charged: &Charged) -> Card {
    let record: Map<String, Value> = serde_json::from_str(&charged.record).unwrap_or_default();
    Card {
        request: charged.request.clone(),
        time: moment(charged.ended_ms),
        model: record.get("model").and_then(Value::as_str).unwrap_or("unknown model").to_owned(),
        sat: format::sat(charged.charged.to_db()),
        parts: parts(&record),
        terms: terms(&record),
        estimated: record.get("estimated").and_then(Value::as_bool).unwrap_or_default(),
    }
}

fn parts(record: &Map<String, Value>) -> Vec<Part> {
    let (usage, price) = (object(record, "usage"), object(record, "price"));
    let Some(cost) = object(record, "cost") else { return Vec::new() };
    let currency = price.and_then(|price| price.get("currency")).and_then(Value::as_str).unwrap_or_default();
    let line = |(key, msat): (&String, &Value)| {
        let bucket = key.strip_suffix("_msat")?;
        let msat = msat.as_i64().filter(|msat| *msat > 0)?;
        let sum = usage.zip(price).and_then(|(usage, price)| sum(bucket, usage, price, currency));
        Some(Part { what: title(bucket), sum, sat: format::sat(msat) })
    };
    cost.iter().filter_map(line).collect()
}

/// `1,000 × 0.00001 usd`, where the books say how many and at how much.
fn sum(bucket: &str, usage: &Map<String, Value>, price: &Map<String, Value>, currency: &str) -> Option<String> {
    let times = |bucket: &str| {
        let count = usage.get(bucket)?.as_i64().filter(|count| *count > 0)?;
        Some(format!("{} × {} {}", format::count(count), exact(amount(price.get(bucket)?)?), currency.to_uppercase()))
    };
    // Reasoning is billed as a part of the output, images and searches as a part of the base.
    let beside: &[&str] = match bucket {
        "output" => &["reasoning"],
        "base" => &["image", "web_search"],
        _ => &[],
    };
    let sums: Vec<String> = std::iter::once(&bucket).chain(beside).filter_map(|bucket| times(bucket)).collect();
    (!sums.is_empty()).then(|| sums.join(" + "))
}

fn title(bucket: &str) -> String {
    match bucket {
        "base" => "Fixed price".to_owned(),
        "input" => "Input".to_owned(),
        "cache_read" => "Read from cache".to_owned(),
        "cache_write" => "Written to cache".to_owned(),
        "output" => "Output".to_owned(),
        other => other.replace('_', " "),
    }
}

fn terms(record: &Map<String, Value>) -> Option<String> {
    let btc_usd = amount(record.get("btc_usd")?)?;
    let price = object(record, "price")?;
    let fee = |key: &str| price.get(key).and_then(amount).unwrap_or(Decimal::ONE);
    Some(format!(
        "At {} USD for a bitcoin, times {} (the node’s fee) and {} (exchange fee).",
        exact(btc_usd),
        exact(fee("provider_fee")),
        exact(fee("exchange_fee"))
    ))
}

fn object<'a>(record: &'a Map<String, Value>, key: &str) -> Option<&'a Map<String, Value>> {
    record.get(key).and_then(Value::as_object)
}

fn amount(value: &Value) -> Option<Decimal> {
    match value {
        Value::String(text) => decimal::parse(text),
        Value::Number(number) => decimal::parse(&number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::money::Msat;

    #[test]
    fn a_card_says_what_the_books_say() {
        let record = r#"{"model":"a/b","estimated":true,"usage":{"input":1000,"output":50,"reasoning":10},
            "price":{"currency":"usd","input":"0.00001","output":"0.00002","reasoning":"0.00003","exchange_fee":"1.005","provider_fee":"1.05"},
            "btc_usd":"100000","cost":{"base_msat":0,"input_msat":10553,"output_msat":1372,"new_bucket_msat":5,"usd":"0.01"}}"#;
        let charged = Charged {
            request: "r".to_owned(),
            charged: Msat::new(11_930).unwrap(),
            ended_ms: 0,
            record: record.to_owned(),
        };
        let card = of(&charged);
        assert_eq!((card.model.as_str(), card.sat.as_str(), card.estimated), ("a/b", "11.930", true));
        let lines: Vec<_> = card.parts.iter().map(|part| (part.what.as_str(), part.sum.as_deref())).collect();
        assert_eq!(
            lines,
            [
                ("Input", Some("1,000 × 0.00001 USD")),
                ("Output", Some("50 × 0.00002 USD + 10 × 0.00003 USD")),
                ("new bucket", None),
            ]
        );
        assert!(card.terms.unwrap().contains("100,000 USD"));
        // Whose process died has no record.
        let bare = of(&Charged { record: String::new(), ..charged });
        assert_eq!((bare.model.as_str(), bare.parts.len(), bare.terms), ("unknown model", 0, None));
    }
}
