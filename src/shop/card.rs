//! The price card of a request: what was used, at which prices, from what the books keep of it. A part
//! that the books name and this file does not know is shown by its name.

use rust_decimal::Decimal;
use serde_json::{Map, Value};

use super::moment;
use super::prices::exact;
use crate::ledger::requests::Charged;
use crate::ledger::sheets;
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
    /// What the exact numbers are kept by.
    pub kept: Vec<String>,
    /// The upstream reported no usage.
    pub estimated: bool,
}

/// One line of it.
#[derive(Debug)]
pub(super) struct Part {
    pub what: String,
    /// How many, at how much each.
    pub sum: String,
    /// `None`: in another line.
    pub sat: Option<String>,
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
        kept: ["price_id", "rate_id"].iter().filter_map(|key| id(&record, key)).collect(),
        estimated: record.get("estimated").and_then(Value::as_bool).unwrap_or_default(),
    }
}

/// What is billed within the parts that the cost is split into.
const WITHIN: [(&str, &[&str]); 5] = [
    ("base", &["images", "web_searches", "web_queries", "code_sessions"]),
    ("input", &["input"]),
    ("cache_read", &["cache_read"]),
    ("cache_write", &["cache_write"]),
    ("output", &["output", "reasoning"]),
];

fn parts(record: &Map<String, Value>) -> Vec<Part> {
    let Some(cost) = object(record, "cost") else { return Vec::new() };
    let bill = Bill {
        usage: object(record, "usage"),
        price: object(record, "price"),
        currency: object(record, "price").and_then(|price| price.get("currency")).and_then(Value::as_str),
    };
    let charged = cost.iter().filter_map(|(key, msat)| {
        let part = key.strip_suffix("_msat")?;
        let msat = msat.as_i64().filter(|msat| *msat > 0)?;
        let within = WITHIN.iter().find(|(name, _)| *name == part).map(|(_, used)| *used).unwrap_or_default();
        let sums: Vec<String> = within.iter().filter_map(|used| bill.sum(used)).collect();
        Some(Part { what: title(part), sum: sums.join(" + "), sat: Some(format::sat(msat)) })
    });
    // What few requests use has no part of its own.
    let is_rare = |used: &String| !WITHIN.iter().any(|(_, within)| within.contains(&used.as_str()));
    let rare = bill.usage.into_iter().flat_map(Map::keys).filter(|used| is_rare(used));
    let rare = rare.filter_map(|used| Some(Part { what: title(used), sum: bill.sum(used)?, sat: None }));
    charged.chain(rare).collect()
}

struct Bill<'a> {
    usage: Option<&'a Map<String, Value>>,
    price: Option<&'a Map<String, Value>>,
    currency: Option<&'a str>,
}

impl Bill<'_> {
    /// `1,000 × 0.00001 USD`, or how many where the books do not say at how much.
    fn sum(&self, used: &str) -> Option<String> {
        let count = self.usage?.get(used)?.as_i64().filter(|count| *count > 0)?;
        let price = self.price.and_then(|price| amount(price.get(price_of(used))?));
        let currency = self.currency.unwrap_or_default().to_uppercase();
        Some(match price {
            Some(price) => format!("{} × {} {currency}", format::count(count), exact(price)),
            None => format::count(count),
        })
    }
}

/// The price of something that is used, as the books name it.
fn price_of(used: &str) -> &str {
    match used {
        "images" => "image",
        "web_searches" => "web_search",
        "images_made" => "image_made",
        "web_queries" => "web_query",
        "code_sessions" => "code_session",
        "queries" => "query",
        "characters" => "character",
        other => other,
    }
}

fn title(name: &str) -> String {
    match name {
        "base" => "Fixed price".to_owned(),
        "input" => "Input".to_owned(),
        "cache_read" => "Read from cache".to_owned(),
        "cache_write" => "Written to cache".to_owned(),
        "output" => "Output".to_owned(),
        other => other.replace('_', " "),
    }
}

fn id(record: &Map<String, Value>, key: &str) -> Option<String> {
    record.get(key).and_then(Value::as_str).filter(|id| sheets::is_id(id)).map(str::to_owned)
}

fn terms(record: &Map<String, Value>) -> Option<String> {
    let price = object(record, "price")?;
    let dealt = price.get("multiplier").and_then(amount);
    let dealt = dealt.map(|factor| format!("The prices are {} times those of the list.", exact(factor)));
    let rate = rate(record, price);
    let said: Vec<String> = [dealt, rate].into_iter().flatten().collect();
    (!said.is_empty()).then(|| said.join(" "))
}

fn rate(record: &Map<String, Value>, price: &Map<String, Value>) -> Option<String> {
    let btc_usd = amount(record.get("btc_usd")?)?;
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
        let record = r#"{"model":"a/b","estimated":true,"usage":{"input":1000,"output":50,"reasoning":10,"images":2,"web_searches":0,"audio_in":7,"audio_ms":9},
            "price":{"currency":"usd","input":"0.00001","output":"0.00002","reasoning":"0.00003","image":"0.001","audio_in":"0.0001","exchange_fee":"1.005","provider_fee":"1.05"},
            "btc_usd":"100000","cost":{"base_msat":1,"input_msat":10553,"output_msat":1372,"new_bucket_msat":5,"usd":"0.01"}}"#;
        let charged = Charged {
            request: "r".to_owned(),
            charged: Msat::new(11_930).unwrap(),
            ended_ms: 0,
            record: record.to_owned(),
        };
        let card = of(&charged);
        assert_eq!((card.model.as_str(), card.sat.as_str(), card.estimated), ("a/b", "11.930", true));
        let lines: Vec<_> = card.parts.iter().map(|part| (part.what.as_str(), part.sum.as_str())).collect();
        assert_eq!(
            lines,
            [
                ("Fixed price", "2 × 0.001 USD"),
                ("Input", "1,000 × 0.00001 USD"),
                ("Output", "50 × 0.00002 USD + 10 × 0.00003 USD"),
                ("new bucket", ""),
                ("audio in", "7 × 0.0001 USD"),
                ("audio ms", "9"),
            ]
        );
        assert!(card.terms.unwrap().contains("100,000 USD"));
        // Whose process died has no record.
        let bare = of(&Charged { record: String::new(), ..charged });
        assert_eq!((bare.model.as_str(), bare.parts.len(), bare.terms), ("unknown model", 0, None));
    }
}
