//! `GET /v1/rate`: what a bitcoin is billed at in USD, how old that is, and where it comes from.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use rust_decimal::Decimal;
use serde_json::{Value, json};

use super::{Node, shapes};
use crate::price::Source;

const SATS_PER_BTC: u64 = 100_000_000;

/// 503 where there is no rate to bill at; the feeds are shown all the same.
#[utoipa::path(get, path = "/v1/rate", tag = "node", summary = "What a bitcoin is billed at", responses((status = 200, body = shapes::Rate), (status = 503, description = "There is no rate to bill at", body = shapes::Rate)), security(()))]
pub async fn show(State(node): State<Node>) -> (StatusCode, Json<Value>) {
    let view = node.exchange.market.rate();
    let age = |at_ms: i64| view.now_ms.saturating_sub(at_ms).max(0).div_euclid(1000);
    let sources: Vec<Value> = view.sources.iter().map(|source| describe(source, &age)).collect();
    let fees = json!({ "exchange": view.exchange_fee, "provider": view.provider_fee });
    match &view.rate {
        Ok(rate) => {
            let sats_per_usd = Decimal::from(SATS_PER_BTC).checked_div(rate.btc_usd);
            let body = json!({
                "btc_usd": rate.btc_usd,
                "sats_per_usd": sats_per_usd.map(|sats| sats.round_dp(8).normalize()),
                "state": rate.basis.as_str(),
                "as_of": rate.as_of_ms.div_euclid(1000),
                "age_seconds": age(rate.as_of_ms),
                "fees": fees,
                "sources": sources,
            });
            (StatusCode::OK, Json(body))
        }
        Err(stale) => {
            let body = json!({
                "btc_usd": null,
                "state": "stale",
                "last_answer_at": stale.last_seen_ms.map(|at_ms| at_ms.div_euclid(1000)),
                "fees": fees,
                "sources": sources,
            });
            (StatusCode::SERVICE_UNAVAILABLE, Json(body))
        }
    }
}

fn describe(source: &Source, age: &impl Fn(i64) -> i64) -> Value {
    json!({
        "name": source.name,
        "btc_usd": source.answer.map(|(btc_usd, _)| btc_usd),
        "age_seconds": source.answer.map(|(_, at_ms)| age(at_ms)),
        "counts": source.counts,
    })
}
