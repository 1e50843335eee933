//! `POST /child-key`: keys that spend the money of this one, within limits. Their secrets are in the
//! answer and nowhere else. An answer that was lost is had again: with the same `Idempotency-Key`, or
//! with the `id` of the purchase in the history.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::{Answer, history, limits, parse_json, paying, read_bytes, respond, spawn};
use crate::exchange::Asked;
use crate::failure::{Code, Failure};
use crate::http::refusals::Refusals;
use crate::http::{Node, idempotency, shapes};
use crate::ledger::terms::{Expiry, Limits};
use crate::payment::keys::NewChildren;
use crate::payment::{self, Payment};

/// Most keys of one call.
const MAX_COUNT: usize = 50;
/// What repeats are told from other calls by, under either prefix.
const PATH: &str = "balance/child-key";

#[derive(Debug, Default, Deserialize, ToSchema)]
#[schema(as = WantedChildKeys)]
struct Wanted {
    /// Of a purchase in the history, whose keys are wanted again.
    id: Option<String>,
    count: Option<Value>,
    balance_limit: Option<Value>,
    balance_limit_reset: Option<Value>,
    validity_date: Option<Value>,
}

/// Serves the call.
#[utoipa::path(post, path = "/v1/balance/child-key", tag = "money", summary = "Makes keys that spend this one's money", request_body = Wanted, params(("idempotency-key" = Option<String>, Header)), responses((status = 200, body = shapes::ChildKeys), Refusals), security(("bearer" = [])))]
pub async fn serve(State(node): State<Node>, request: Request) -> Response<Body> {
    let headers = request.headers().clone();
    make(&node, &headers, request).await.unwrap_or_else(|failure| respond(Err(failure)))
}

async fn make(node: &Node, headers: &HeaderMap, request: Request) -> Result<Response<Body>, Failure> {
    let key = idempotency::key(headers)?;
    let (payment, expiry) = paying(headers)?;
    let body = read_bytes(request).await?;
    let wanted: Wanted = parse_json(&body)?;
    if let Some(bought) = &wanted.id {
        let bought = history::entry(bought)?;
        let answer = spawn(node, move |node| keys_again(node, payment, bought)).await;
        return Ok(respond(answer));
    }
    let (count, limits) = read(&wanted, node.exchange.ledger.clock().now_secs())?;
    let id = uuid::Uuid::new_v4().to_string();
    let Some(key) = key else {
        let answer = spawn(node, move |node| make_keys(node, payment, expiry, count, limits, id)).await;
        return Ok(respond(answer));
    };
    let asked = Asked { payment: &payment, key, path: PATH, body: &body, request_id: &id };
    let (payer, worker) = (payment.clone(), node.clone());
    let work = move |name| make_keys(worker, payer, expiry, count, limits, name);
    idempotency::once(node, asked, work).await
}

fn read(wanted: &Wanted, now_secs: i64) -> Result<(usize, Limits), Failure> {
    let count = limits::whole("count", wanted.count.as_ref())?.and_then(|count| usize::try_from(count).ok());
    let count = count
        .filter(|count| (1..=MAX_COUNT).contains(count))
        .ok_or_else(|| Failure::client(Code::InvalidRequest, format!("count must be 1 to {MAX_COUNT}.")))?;
    let limits = limits::read(
        wanted.balance_limit.as_ref(),
        wanted.balance_limit_reset.as_ref(),
        wanted.validity_date.as_ref(),
        now_secs,
    )?;
    Ok((count, limits))
}

async fn make_keys(
    node: Node,
    payment: Payment,
    expiry: Option<Expiry>,
    count: usize,
    limits: Limits,
    name: String,
) -> Answer {
    let till = &node.exchange.till;
    let (parent, _) = till.open(payment, expiry).await?;
    Ok(describe(&till.make_children(parent.id, count, limits, &name).await?))
}

async fn keys_again(node: Node, payment: Payment, bought: i64) -> Answer {
    let till = &node.exchange.till;
    let key = payment.key_hex().ok_or_else(payment::unauthorized)?;
    let parent = till.look_up(key).await?.ok_or_else(|| Failure::payment(Code::KeyNotFound, "Key not found"))?;
    Ok(describe(&till.bought_children(&parent, bought).await?))
}

fn describe(made: &NewChildren) -> Value {
    let keys: Vec<String> = made.secrets.iter().map(|secret| format!("sk-{secret}")).collect();
    json!({
        "api_keys": keys,
        "count": keys.len(),
        "cost_msats": made.cost.get(),
        "cost_sats": made.cost.floor_sat().get(),
        "parent_balance": made.left.get(),
        "parent_balance_sats": made.left.floor_sat().get(),
    })
}
