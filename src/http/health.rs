//! `GET /healthz`: the process is alive. `GET /readyz`: it could serve a paid request, or why not.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::Node;

/// Dials nobody.
pub async fn alive() -> &'static str {
    "ok"
}

/// 200 when everything that a paid request needs is there, else 503 with the reasons.
///
/// Books that are not proven are an alarm, and no reason: a request could be served all the same, and
/// a fault of one row must not take every node of a database out of service at once. What is off is
/// for the operator's eyes.
pub async fn ready(State(node): State<Node>) -> (StatusCode, Json<Value>) {
    let exchange = &node.exchange;
    let wallet = exchange.till.wallet();
    let mut reasons = Vec::new();
    if node.draining.is_cancelled() {
        reasons.push("the node is shutting down".to_owned());
    }
    reasons.extend(wallet.halted());
    if let Err(error) = exchange.ledger.store().setting("schema").await {
        tracing::error!(%error, "the database does not answer");
        reasons.push("the database does not answer".to_owned());
    }
    if exchange.upstream.is_none() {
        reasons.push("no upstream is configured".to_owned());
    }
    if wallet.mints().is_empty() {
        reasons.push("no mint is configured".to_owned());
    }
    for mint in wallet.mints() {
        if !wallet.knows(mint).await {
            reasons.push(format!("the keysets of {mint} are not known yet"));
        }
    }
    if !exchange.market.has_models() {
        reasons.push("no model is priced".to_owned());
    }
    if !exchange.market.is_priced() {
        reasons.push("the price of bitcoin is not known".to_owned());
    }
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let alarms: Vec<&str> = node.audit.get().and_then(|report| report.verdict().alarm()).into_iter().collect();
    (status, Json(json!({ "ready": reasons.is_empty(), "reasons": reasons, "alarms": alarms })))
}
