//! `POST /child-key`: keys that spend the money of this one, within limits. Their secrets are in the
//! answer and nowhere else.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::Response;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{limits, paying, read_json, respond, spawn};
use crate::failure::{Code, Failure};
use crate::http::Node;

/// Most keys of one call.
const MAX_COUNT: usize = 50;

#[derive(Debug, Default, Deserialize)]
struct Wanted {
    count: Option<Value>,
    balance_limit: Option<Value>,
    balance_limit_reset: Option<Value>,
    validity_date: Option<Value>,
}

/// Serves the call.
pub async fn serve(State(node): State<Node>, request: Request) -> Response<Body> {
    let headers = request.headers().clone();
    let outcome = async {
        let (payment, expiry) = paying(&headers)?;
        let wanted: Wanted = read_json(request).await?;
        let count = limits::whole("count", wanted.count.as_ref())?.and_then(|count| usize::try_from(count).ok());
        let count = count
            .filter(|count| (1..=MAX_COUNT).contains(count))
            .ok_or_else(|| Failure::client(Code::InvalidRequest, format!("count must be 1 to {MAX_COUNT}.")))?;
        let limits = limits::read(
            wanted.balance_limit.as_ref(),
            wanted.balance_limit_reset.as_ref(),
            wanted.validity_date.as_ref(),
            node.exchange.ledger.clock().now_secs(),
        )?;
        let made = spawn(&node, move |node| async move {
            let till = &node.exchange.till;
            let (parent, _) = till.open(payment, expiry).await?;
            till.make_children(parent.id, count, limits, &uuid::Uuid::new_v4().to_string()).await
        })
        .await?;
        let keys: Vec<String> = made.secrets.iter().map(|secret| format!("sk-{secret}")).collect();
        Ok(json!({
            "api_keys": keys,
            "count": count,
            "cost_msats": made.cost.get(),
            "cost_sats": made.cost.floor_sat().get(),
            "parent_balance": made.left.get(),
            "parent_balance_sats": made.left.floor_sat().get(),
        }))
    };
    respond(outcome.await)
}
