//! Reckons costs as a node does, for tests in other languages: reads a case of JSON in each line of the
//! standard input, writes what it costs in USD in a line of JSON.
//!
//! A case is `{"pricing": {…}, "path": "chat/completions", "answer": {…}}`: prices in the shape of the list of
//! models, and an answer of an upstream at this endpoint; or, in place of those two, `"usage": {…}` by bucket.
//! Where pictures were made, `"quality"` and `"size"` say which.

use std::io::{BufRead as _, Write as _};

use coinslot::catalog::Model;
use coinslot::dialect::{self, AnswerBody, Reading, Shape};
use coinslot::money::rate::{Conversion, RateCard};
use coinslot::money::{Msat, Usage};
use rust_decimal::Decimal;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

#[derive(Deserialize)]
struct Case {
    pricing: Box<RawValue>,
    path: Option<String>,
    answer: Option<Box<RawValue>>,
    usage: Option<Map<String, Value>>,
    #[serde(default)]
    quality: String,
    #[serde(default)]
    size: String,
}

fn main() -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let answer = match reckon(&line?) {
            Ok(usd) => json!({ "usd": usd }),
            Err(why) => json!({ "error": why }),
        };
        writeln!(out, "{answer}")?;
    }
    Ok(())
}

fn reckon(line: &str) -> Result<Decimal, String> {
    let case: Case = serde_json::from_str(line).map_err(|error| error.to_string())?;
    let entry = RawValue::from_string(format!(r#"{{"id":"m","pricing":{}}}"#, case.pricing.get()));
    let model = Model::from_entry(&entry.map_err(|error| error.to_string())?)?;
    let usage = match (&case.usage, &case.path, &case.answer) {
        (Some(buckets), ..) => by_bucket(buckets)?,
        (None, Some(path), Some(answer)) => read(path, answer.get().as_bytes())?,
        _ => return Err("neither usage nor an answer".to_owned()),
    };
    // The list price as it is shown has twelve places; the fee makes six more of them.
    let million = Decimal::from(1_000_000);
    let card = RateCard {
        prices: model.prices.for_picture(&case.quality, &case.size, 0),
        conversion: Conversion::Usd { btc_usd: million, exchange_fee: Decimal::ONE, provider_fee: million },
        minimum: Msat::ZERO,
    };
    let cost = card.price(&usage).and_then(|cost| cost.usd).ok_or("out of range")?;
    cost.checked_div(million).map(|usd| usd.normalize()).ok_or_else(|| "out of range".to_owned())
}

fn read(path: &str, answer: &[u8]) -> Result<Usage, String> {
    let dialect = dialect::for_path(path).ok_or_else(|| format!("no endpoint {path}"))?;
    let body = AnswerBody { media: "application/json", bytes: answer };
    match dialect.read_answer(body, &Shape::default()) {
        Ok(Reading::Reported(usage)) if !usage.contradictory => Ok(usage),
        Ok(reading) => Err(format!("{reading:?}")),
        Err(bad) => Err(bad.to_string()),
    }
}

fn by_bucket(buckets: &Map<String, Value>) -> Result<Usage, String> {
    let mut usage = Usage::default();
    for (name, count) in buckets {
        let bucket = match name.as_str() {
            "input" => &mut usage.input,
            "image_in" => &mut usage.image_in,
            "image_out" => &mut usage.image_out,
            "images_made" => &mut usage.images_made,
            "queries" => &mut usage.queries,
            "audio_ms" => &mut usage.audio_ms,
            "characters" => &mut usage.characters,
            other => return Err(format!("no bucket {other}")),
        };
        *bucket = count.as_u64().ok_or_else(|| format!("{name} is no count"))?;
    }
    Ok(usage)
}
