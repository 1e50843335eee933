//! `POST /invoice`: an invoice whose payment makes a key, or is added to one.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::failure::{Code, Failure};
use crate::http::balance::limits::{self, whole};
use crate::http::balance::{read_json, respond, spawn};
use crate::http::refusals::Refusals;
use crate::http::{Node, peer, proxy, shapes};
use crate::ledger::AccountId;
use crate::payment::{self, lightning};

#[derive(Debug, Default, Deserialize, ToSchema)]
#[schema(as = WantedInvoice)]
struct Wanted {
    amount_sats: Option<Value>,
    /// `create` or `topup`.
    purpose: Option<String>,
    api_key: Option<String>,
    balance_limit: Option<Value>,
    balance_limit_reset: Option<Value>,
    validity_date: Option<Value>,
}

/// Serves the call.
#[utoipa::path(post, path = "/lightning/invoice", tag = "money", summary = "An invoice whose payment makes a key, or is added to one", request_body = Wanted, responses((status = 200, body = shapes::Invoice), Refusals), security((), ("bearer" = [])))]
pub async fn serve(State(node): State<Node>, request: Request) -> Response<Body> {
    let headers = request.headers().clone();
    let address = peer::of(&request);
    let outcome = async {
        let wanted: Wanted = read_json(request).await?;
        let sats = lightning::amount(whole("amount_sats", wanted.amount_sats.as_ref())?)?;
        let limits = limits::read(
            wanted.balance_limit.as_ref(),
            wanted.balance_limit_reset.as_ref(),
            wanted.validity_date.as_ref(),
            node.exchange.ledger.clock().now_secs(),
        )?;
        let key = match wanted.purpose.as_deref() {
            Some("create") => None,
            Some("topup") => Some(account_to_fill(&node, &headers, wanted.api_key).await?),
            _ => return Err(bad("purpose must be create or topup.")),
        };
        let made = spawn(&node, move |node| async move {
            let till = &node.exchange.till;
            match key {
                Some(account) => till.invoice_for(account, sats, address).await,
                None => till.invoice_for_key(sats, limits, address).await,
            }
        });
        let invoice = made.await?;
        Ok(json!({
            "invoice_id": invoice.id,
            "bolt11": invoice.bolt11,
            "amount_sats": sats.get(),
            "expires_at": invoice.expires_at,
            "payment_hash": invoice.payment_hash,
        }))
    };
    respond(outcome.await)
}

/// The account that the payment is added to: that of the key in the body or in `Authorization`.
async fn account_to_fill(node: &Node, headers: &HeaderMap, named: Option<String>) -> Result<AccountId, Failure> {
    let payment = match named.filter(|key| !key.trim().is_empty()) {
        Some(key) => lightning::key_to_fill(&key)?,
        None => payment::read(proxy::credentials(headers)?, |_| false)
            .map_err(|_| Failure::payment(Code::TopUpUnauthorized, "A top-up needs the key that it is for."))?,
    };
    node.exchange.till.account_to_fill(&payment).await
}

fn bad(message: &str) -> Failure {
    Failure::client(Code::InvalidRequest, message)
}
