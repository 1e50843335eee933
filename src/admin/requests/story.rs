//! One request, told from its payment to its receipt: all that the books keep of it. Nothing of what was asked or
//! answered is kept anywhere.

use std::collections::HashMap;

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::list::status_of;
use super::repo::{self, Operation, Paid, Row};
use crate::admin::repo as pages;
use crate::ledger::sheets;
use crate::store::{Store, StoreError};

/// Operations at mints that are told of.
const MOST_OPERATIONS: i64 = 20;

/// A request. Amounts are msat, times ms since the Unix epoch, prices decimals in text.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Story {
    pub id: String,
    /// running, charged, free or failed.
    pub status: &'static str,
    /// The code of the failure.
    pub failure: Option<String>,
    /// As the client called it.
    pub model: Option<String>,
    /// Which endpoint.
    pub path: Option<String>,
    /// A service tier other than the standard one.
    pub service: Option<String>,
    pub payment: Payment,
    pub hold: Hold,
    /// Every upstream that was asked, in order.
    pub attempts: Vec<Attempt>,
    /// Who answered, and how it calls the model.
    pub upstream: Option<String>,
    pub upstream_model: Option<String>,
    /// How much of each kind was used, what is zero left out.
    pub usage: Vec<(String, i64)>,
    /// The upstream reported no usage: it was counted from the text.
    pub is_estimated: bool,
    /// The price of a unit of each, with what is in it.
    pub prices: Vec<(String, String)>,
    pub price_id: Option<String>,
    pub rate_id: Option<String>,
    pub btc_usd: Option<String>,
    pub btc_usd_as_of_ms: Option<i64>,
    pub settlement: Option<Settlement>,
    /// What was done with the rest of a token that rode along; empty where a key paid.
    pub change: Vec<Change>,
    /// All numbers of that moment, as they are kept under the two ids.
    #[schema(value_type = Object)]
    pub price_sheet: Option<Value>,
    #[schema(value_type = Object)]
    pub rate_sheet: Option<Value>,
}

/// How it was paid.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Payment {
    /// key, or a token that rode along.
    pub by: &'static str,
    /// The first digits of the hash of the key or the token.
    pub key: String,
    /// The first digits of the hash of the parent, whose money a child key spends; `null` where it is no child key.
    pub parent: Option<String>,
    /// Where the money is, and goes back to.
    pub mint: String,
    pub unit: String,
    /// What the token that rode along was worth, in msat; `null` where a key paid, or it was not redeemed.
    pub token_msat: Option<i64>,
    /// When the redemption of the token began, in ms since the Unix epoch; `null` where `token_msat` is.
    pub redeemed_ms: Option<i64>,
}

/// What was set aside.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Hold {
    /// open, captured or released.
    pub state: String,
    pub amount_msat: i64,
    pub began_ms: i64,
    pub ended_ms: Option<i64>,
}

/// One upstream that was asked.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Attempt {
    pub upstream: String,
    pub outcome: String,
    pub status: Option<i64>,
    pub ms: i64,
}

/// What was charged. The parts add up to it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Settlement {
    pub charged_msat: i64,
    pub freed_msat: i64,
    pub parts: Vec<(String, i64)>,
    /// What it cost beyond the hold, which nobody was charged.
    pub shortfall_msat: Option<i64>,
    /// What the upstream took, if it is known.
    pub cost_msat: Option<i64>,
    pub usd: Option<String>,
}

/// Change of a token.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Change {
    pub amount_msat: i64,
    pub mint: String,
    /// In words.
    pub state: &'static str,
    pub at_ms: i64,
}

/// The story of a request; `None`: no money was ever set aside for it.
///
/// # Errors
/// When the database does not answer.
pub(crate) async fn of(store: &Store, id: &str) -> Result<Option<Story>, StoreError> {
    let Some(row) = repo::one(store, id).await? else { return Ok(None) };
    let paid = repo::paid(store, row.hold).await?;
    let operations = match &paid {
        Some(paid) if row.is_token => repo::operations(store, paid.account, MOST_OPERATIONS).await?,
        _ => Vec::new(),
    };
    let outlay = pages::outlay(store, id).await?;
    let record = Value::Object(sheets::spell_out(store, &row.record, &mut HashMap::new()).await?);
    let text = |name: &str| record.get(name).and_then(Value::as_str).map(str::to_owned);
    let (price_id, rate_id) = (text("price_id"), text("rate_id"));
    let price_sheet = sheet(store, price_id.as_deref()).await?;
    let rate_sheet = sheet(store, rate_id.as_deref()).await?;
    let failure = text("failure");
    Ok(Some(Story {
        status: status_of(&row, failure.is_some()),
        failure,
        model: text("model"),
        path: text("path"),
        service: text("service"),
        payment: payment(&row, paid, &operations),
        settlement: (row.state != "open").then(|| settlement(&row, &record)),
        attempts: outlay.as_ref().map(|outlay| attempts(&outlay.attempts)).unwrap_or_default(),
        upstream: outlay.as_ref().map(|outlay| outlay.upstream.clone()),
        upstream_model: outlay.map(|outlay| outlay.model),
        usage: numbers(record.get("usage")).filter(|(_, used)| *used > 0).collect(),
        is_estimated: record.get("estimated").and_then(Value::as_bool).unwrap_or(false),
        prices: prices(&record),
        price_id,
        rate_id,
        btc_usd: text("btc_usd"),
        btc_usd_as_of_ms: record.get("btc_usd_as_of_ms").and_then(Value::as_i64),
        change: operations.iter().filter(|done| done.kind != "redeem").map(change).collect(),
        hold: Hold { state: row.state, amount_msat: row.held_msat, began_ms: row.began_ms, ended_ms: row.ended_ms },
        id: row.id,
        price_sheet,
        rate_sheet,
    }))
}

async fn sheet(store: &Store, id: Option<&str>) -> Result<Option<Value>, StoreError> {
    let Some(id) = id else { return Ok(None) };
    Ok(sheets::find(store, id).await?.map(|sheet| serde_json::from_str(&sheet).unwrap_or_default()))
}

fn payment(row: &Row, paid: Option<Paid>, operations: &[Operation]) -> Payment {
    let redeemed = operations.iter().find(|done| done.kind == "redeem" && done.state == "done");
    let (mint, unit, parent) = paid.map(|paid| (paid.mint, paid.unit, paid.parent)).unwrap_or_default();
    Payment {
        by: if row.is_token { "token" } else { "key" },
        key: row.key.clone(),
        parent,
        mint,
        unit,
        token_msat: redeemed.map(|done| done.amount_msat),
        redeemed_ms: redeemed.map(|done| done.at_ms),
    }
}

fn settlement(row: &Row, record: &Value) -> Settlement {
    let parts = numbers(record.get("cost")).map(|(name, msat)| (name.replace("_msat", ""), msat));
    let cost = record.get("cost").and_then(|cost| cost.get("usd")).and_then(Value::as_str);
    Settlement {
        charged_msat: row.charged_msat,
        freed_msat: row.held_msat.saturating_sub(row.charged_msat),
        parts: parts.filter(|(_, msat)| *msat > 0).collect(),
        shortfall_msat: record.get("shortfall_msat").and_then(Value::as_i64),
        cost_msat: row.cost_msat,
        usd: cost.map(str::to_owned),
    }
}

fn attempts(text: &str) -> Vec<Attempt> {
    let all: Vec<Value> = serde_json::from_str(text).unwrap_or_default();
    let attempt = |one: &Value| {
        let text = |name: &str| one.get(name).and_then(Value::as_str).unwrap_or("–").to_owned();
        let number = |name: &str| one.get(name).and_then(Value::as_i64);
        Attempt {
            upstream: text("upstream"),
            outcome: text("outcome"),
            status: number("status"),
            ms: number("ms").unwrap_or(0),
        }
    };
    all.iter().map(attempt).collect()
}

/// What is a price, a factor on it, or the currency of all of them; zero is left out.
fn prices(record: &Value) -> Vec<(String, String)> {
    let members = record.get("price").and_then(Value::as_object).into_iter().flatten();
    let said = |(name, value): (&String, &Value)| {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        (value != "0").then(|| (name.clone(), value))
    };
    members.filter_map(said).collect()
}

fn numbers(members: Option<&Value>) -> impl Iterator<Item = (String, i64)> {
    let members = members.and_then(Value::as_object).into_iter().flatten();
    members.filter_map(|(name, value)| Some((name.clone(), value.as_i64()?)))
}

fn change(done: &Operation) -> Change {
    let state = match (done.state.as_str(), done.fate.as_str()) {
        ("done", "collected") => "made, and spent by the client",
        ("done", "sweeping") => "made, not claimed, being taken back",
        ("done", "swept") => "made, not claimed, taken back into the earnings",
        ("done", "left") => "made, not claimed, and less than the mint's fee",
        ("done", _) => "made",
        ("failed", _) => "failed; it is tried again",
        _ => "on its way",
    };
    Change { amount_msat: done.amount_msat, mint: done.mint.clone(), state, at_ms: done.at_ms }
}
