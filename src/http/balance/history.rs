//! `GET /history?limit&before`: what came and went on a key, newest first; never a token, and not the
//! charges of single requests. `before` is the `id` of the last entry of the page before.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{paying, respond, spawn};
use crate::failure::{Code, Failure};
use crate::http::extract::Query;
use crate::http::refusals::Refusals;
use crate::http::{Node, shapes};
use crate::ledger::AccountKind;
use crate::money::MintUnit;
use crate::payment::keys::source_of;
use crate::wallet::Movement;

const DEFAULT_LIMIT: i64 = 50;
const MAX_LIMIT: i64 = 500;

#[derive(Debug, Deserialize)]
pub struct Page {
    limit: Option<String>,
    before: Option<String>,
}

/// Serves the call.
#[utoipa::path(get, path = "/v1/balance/history", tag = "money", summary = "What came to a key and went", params(("limit" = Option<u16>, Query, description = "1 to 500", minimum = 1, maximum = 500), ("before" = Option<i64>, Query, description = "The id of an entry", minimum = 1)), responses((status = 200, body = shapes::History), Refusals), security(("bearer" = [])))]
pub async fn serve(State(node): State<Node>, Query(page): Query<Page>, headers: HeaderMap) -> Response<Body> {
    let outcome = async {
        let (payment, expiry) = paying(&headers)?;
        let limit = number("limit", page.limit.as_deref(), MAX_LIMIT)?.unwrap_or(DEFAULT_LIMIT);
        let before = number("before", page.before.as_deref(), i64::MAX)?;
        let (movements, kind) = spawn(&node, move |node| async move {
            let till = &node.exchange.till;
            let (account, _) = till.open(payment, expiry).await?;
            Ok((till.history(&account, before, limit).await?, account.kind))
        })
        .await?;
        let transactions: Vec<Value> = movements.iter().map(|movement| describe(movement, kind)).collect();
        Ok(json!({ "transactions": transactions }))
    };
    respond(outcome.await)
}

fn number(name: &str, text: Option<&str>, most: i64) -> Result<Option<i64>, Failure> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    let number = text.parse().ok().filter(|number| (1..=most).contains(number));
    number.map(Some).ok_or_else(|| Failure::client(Code::InvalidRequest, format!("{name} must be 1 to {most}.")))
}

/// The `id` of an entry, as a client names it.
///
/// # Errors
/// When the text can be no id.
pub(super) fn entry(id: &str) -> Result<i64, Failure> {
    number("id", Some(id), i64::MAX)?.ok_or_else(|| Failure::client(Code::InvalidRequest, "id must not be empty."))
}

fn describe(movement: &Movement, kind: AccountKind) -> Value {
    let amount = match movement.unit {
        MintUnit::Sat => movement.amount.floor_sat().get(),
        MintUnit::Msat => movement.amount.get(),
    };
    // What is bought here moves no ecash.
    let source = if movement.mint.is_empty() { movement.kind.as_str() } else { source_of(kind) };
    json!({
        "id": movement.id.to_string(),
        "type": if movement.incoming { "in" } else { "out" },
        "source": source,
        "kind": movement.kind.as_str(),
        "amount": amount,
        "unit": movement.unit.as_str(),
        "mint_url": if movement.mint.is_empty() { Value::Null } else { json!(movement.mint) },
        "created_at": movement.created_ms / 1000,
        "collected": movement.done && !movement.reclaimed,
        "swept": movement.reclaimed,
    })
}
