//! `GET /`, `GET /info`: what a key can spend, and its terms. A fresh token becomes a key.
//!
//! Secrets of child keys are kept nowhere, so a parent sees each by an id, the first digits of its
//! hash, under `child_keys[].api_key`; `POST /child-key/reset` takes it too. A child sees its parent
//! by the first digits of the parent's hash.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Response};
use serde_json::{Map, Value, json};

use super::{paying, respond, spawn};
use crate::http::refusals::Refusals;
use crate::http::{Node, shapes};
use crate::ledger::Account;
use crate::ledger::terms::{Limits, Reset, Terms};
use crate::money::Msat;
use crate::payment::keys::{Statement, child_id};

/// Serves the call.
#[utoipa::path(get, path = "/v1/balance/info", tag = "money", summary = "A key and its balance", responses((status = 200, body = shapes::Key), Refusals), security(("bearer" = [])))]
pub async fn serve(State(node): State<Node>, headers: HeaderMap) -> Response<Body> {
    let outcome = async {
        let (payment, expiry) = paying(&headers)?;
        let now_ms = node.exchange.ledger.clock().now_ms();
        spawn(&node, move |node| async move {
            let till = &node.exchange.till;
            let (account, key) = till.open(payment, expiry).await?;
            let statement = till.statement(&account).await?;
            Ok(describe(&account, &key, &statement, now_ms))
        })
        .await
    };
    respond(outcome.await)
}

fn describe(account: &Account, key: &str, statement: &Statement, now_ms: i64) -> Value {
    let mut info = Map::new();
    let figures = statement.figures(account, now_ms);
    info.insert("api_key".into(), json!(format!("sk-{key}")));
    info.insert("balance".into(), json!(figures.available.get()));
    info.insert("reserved".into(), json!(figures.held.get()));
    info.insert("available".into(), json!(figures.available.get()));
    info.insert("total".into(), json!(figures.total.get()));
    info.insert("is_child".into(), json!(statement.parent.is_some()));
    if let Some(parent) = &statement.parent {
        info.insert("parent_key_preview".into(), json!(parent));
    }
    info.insert("total_requests".into(), json!(figures.requests));
    info.insert("total_spent".into(), json!(figures.spent.get()));
    if !statement.children.is_empty() {
        info.insert("child_keys".into(), statement.children.iter().map(child).collect());
    }
    insert_limits(&mut info, figures.limits);
    if figures.is_blocked {
        info.insert("blocked".into(), json!(true));
    }
    if let Some(expiry) = statement.terms.as_ref().and_then(|terms| terms.expiry.as_ref()) {
        info.insert("refund_lnurl".into(), json!(expiry.address));
        info.insert("key_expiry_time".into(), json!(expiry.at));
    }
    if let Some(profile) = &account.profile {
        info.insert("price_profile".into(), json!(profile));
    }
    info.insert("mint".into(), json!(account.mint));
    info.insert("unit".into(), json!(account.unit));
    Value::Object(info)
}

fn insert_limits(info: &mut Map<String, Value>, limits: Limits) {
    info.insert("balance_limit".into(), json!(limits.cap.map(Msat::get)));
    info.insert("balance_limit_reset".into(), json!(limits.reset.map(Reset::as_str)));
    info.insert("validity_date".into(), json!(limits.valid_until));
}

fn child(terms: &Terms) -> Value {
    let mut child = Map::new();
    child.insert("api_key".into(), json!(child_id(terms)));
    child.insert("total_requests".into(), json!(terms.requests));
    child.insert("total_spent".into(), json!(terms.spent.get()));
    child.insert("balance_limit_used".into(), json!(terms.used.get()));
    insert_limits(&mut child, terms.limits);
    Value::Object(child)
}
