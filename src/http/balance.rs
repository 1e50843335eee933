//! Balances: `/v1/balance/*`, and `/v1/wallet/*`, which is the same by an older name.

use axum::body::Body;
use axum::extract::{Query, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::envelope::{self, Asked};
use super::{Node, headers, proxy};
use crate::failure::{Code, Failure, Funds};
use crate::ledger::Account;
use crate::money::MintUnit;
use crate::payment::{self, Payment};
use crate::wallet::{Change, RefundError};

/// Longest body of these calls.
const MAX_BODY: usize = 64 * 1024;
/// Seconds to wait for a refund that is being made.
const REFUND_RETRY: u64 = 2;

type Answer = Result<Value, Failure>;

/// `GET /`, `GET /info`: the balance of the key or token. A fresh token becomes a key.
pub async fn info(State(node): State<Node>, headers: HeaderMap) -> Response<Body> {
    let outcome = async {
        let payment = paying(&headers)?;
        let (account, key) = spawn(&node, move |node| async move { node.exchange.till.open(payment).await }).await?;
        Ok(describe(&account, &key))
    };
    respond(outcome.await)
}

#[derive(Debug, Default, Deserialize)]
pub struct Create {
    initial_balance_token: Option<String>,
}

/// `GET /create?initial_balance_token=`, `POST /create`: a key out of a token.
pub async fn create(State(node): State<Node>, Query(query): Query<Create>, request: Request) -> Response<Body> {
    let outcome = async {
        let body: Create = read_json(request).await?;
        let token = body
            .initial_balance_token
            .or(query.initial_balance_token)
            .ok_or_else(|| Failure::client(Code::InvalidRequest, "An initial_balance_token is required."))?;
        let payment = Payment::TokenKey(Box::new(payment::read_token(token.trim())?));
        let (account, key) = spawn(&node, move |node| async move { node.exchange.till.open(payment).await }).await?;
        Ok(json!({ "api_key": format!("sk-{key}"), "balance": account.balance.available().get() }))
    };
    respond(outcome.await)
}

#[derive(Debug, Default, Deserialize)]
pub struct TopUp {
    cashu_token: Option<String>,
}

/// `POST /topup`: adds a token to the key. The same token again answers the same.
pub async fn top_up(State(node): State<Node>, Query(query): Query<TopUp>, request: Request) -> Response<Body> {
    let headers = request.headers().clone();
    let outcome = async {
        let payment = paying(&headers)?;
        let body: TopUp = read_json(request).await?;
        let token = body
            .cashu_token
            .or(query.cashu_token)
            .filter(|token| !token.trim().is_empty())
            .ok_or_else(|| Failure::client(Code::InvalidRequest, "A cashu_token is required."))?;
        let token = payment::read_token(token.trim())?;
        let credited = spawn(&node, move |node| async move {
            let (account, _) = node.exchange.till.open(payment).await?;
            node.exchange.till.top_up(&account, &token).await
        })
        .await?;
        Ok(json!({ "msats": credited.get() }))
    };
    respond(outcome.await)
}

/// `POST /refund`: the balance of a key as a token, or the change of a token that rode on a request.
pub async fn refund(State(node): State<Node>, headers: HeaderMap) -> Response<Body> {
    let one_shot = headers::text(&headers, headers::X_CASHU).map(str::trim).filter(|token| !token.is_empty());
    if let Some(token) = one_shot {
        let token = token.to_owned();
        let outcome = spawn(&node, move |node| async move {
            let unit = payment::read_token(&token)?.unit;
            claim(&node, &token).await.map(|change| (change, unit))
        });
        return match outcome.await {
            Ok((change, unit)) => {
                let mut response = respond(refund_body(&change, unit));
                if let Change::Token { token, .. } = &change {
                    headers::put(response.headers_mut(), headers::X_CASHU, token);
                }
                response
            }
            Err(failure) => respond(Err(failure)),
        };
    }
    let outcome = async {
        let payment = paying(&headers)?;
        let (change, unit) = spawn(&node, move |node| async move { refund_key(&node, payment).await }).await?;
        refund_body(&change, unit)
    };
    respond(outcome.await)
}

async fn claim(node: &Node, token: &str) -> Result<Change, Failure> {
    let till = &node.exchange.till;
    till.wallet().claim(&till.token_hash(token)).await.map_err(|error| match error {
        RefundError::Unknown => Failure::client(Code::RefundNotFound, "Refund not found"),
        RefundError::Pending | RefundError::Ongoing => {
            Failure::unavailable(Code::RefundPending, "Refund is pending; retry shortly.", REFUND_RETRY)
        }
        // The network's clients stop asking, and forget the token, on exactly this.
        RefundError::Nothing | RefundError::TooSmall => {
            Failure::payment(Code::TokenAlreadySpent, "This Cashu token was used up: no change is due.")
        }
        RefundError::Wallet(error) => {
            tracing::error!(%error, "change could not be looked up");
            Failure::internal().funds(Funds::Claimable)
        }
    })
}

async fn refund_key(node: &Node, payment: Payment) -> Result<(Change, MintUnit), Failure> {
    let till = &node.exchange.till;
    let key = payment.key_hex().ok_or_else(|| Failure::payment(Code::Unauthorized, "Unauthorized"))?;
    // Never redeems: a token that was not used here is best kept as it is.
    let account = till.look_up(key).await?.ok_or_else(|| Failure::payment(Code::KeyNotFound, "Key not found"))?;
    let unit = MintUnit::parse(&account.unit).unwrap_or_default();
    let change = till.wallet().refund(account.id).await.map_err(|error| match error {
        RefundError::Ongoing => {
            Failure::client(Code::RefundOngoing, "Cannot refund key. There are ongoing requests for this api key.")
        }
        RefundError::Nothing | RefundError::Unknown => Failure::client(Code::RefundNothing, "No balance to refund"),
        RefundError::TooSmall => Failure::client(Code::RefundTooSmall, "Balance too small to refund (less than 1 sat)"),
        RefundError::Pending => {
            Failure::unavailable(Code::RefundPending, "Refund is pending; retry shortly.", REFUND_RETRY)
        }
        RefundError::Wallet(error) => {
            tracing::error!(%error, "a refund failed");
            Failure::internal()
        }
    })?;
    Ok((change, unit))
}

fn refund_body(change: &Change, unit: MintUnit) -> Answer {
    match change {
        Change::Token { token, amount } => {
            let (name, units) = match unit {
                MintUnit::Sat => ("sats", amount.floor_sat().get()),
                MintUnit::Msat => ("msats", amount.get()),
            };
            Ok(json!({ "token": token, name: units.to_string(), "recipient": null }))
        }
        Change::Nothing => Err(Failure::client(Code::RefundNothing, "No balance to refund")),
        Change::Owed => {
            Err(Failure::unavailable(Code::RefundPending, "Refund is pending; retry shortly.", REFUND_RETRY))
        }
    }
}

/// Any other path below.
pub async fn unknown() -> Response<Body> {
    respond(Err(Failure::client(Code::NotFound, "Not found check /docs for available endpoints")))
}

fn paying(headers: &HeaderMap) -> Result<Payment, Failure> {
    match payment::read(proxy::credentials(headers)?, |_| false)? {
        Payment::Asking => Err(Failure::payment(Code::Unauthorized, "Unauthorized")),
        payment => Ok(payment),
    }
}

fn describe(account: &Account, key: &str) -> Value {
    let balance = account.balance;
    json!({
        "api_key": format!("sk-{key}"),
        "balance": balance.available().get(),
        "reserved": balance.held.get(),
        "available": balance.available().get(),
        "total": balance.posted.get(),
        "is_child": false,
        "total_requests": account.requests,
        "total_spent": account.spent.get(),
        "balance_limit": null,
        "balance_limit_reset": null,
        "validity_date": null,
        "mint": account.mint,
        "unit": account.unit,
    })
}

async fn read_json<T: Default + serde::de::DeserializeOwned>(request: Request) -> Result<T, Failure> {
    let (parts, body) = request.into_parts();
    let bytes = proxy::read_body(&parts.headers, body, MAX_BODY).await?;
    if bytes.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(&bytes)
        .map_err(|_| Failure::client(Code::InvalidJson, "The request body is not valid JSON."))
}

/// Runs what touches money in a task of its own: a client that hangs up does not interrupt it.
async fn spawn<T, F>(node: &Node, work: impl FnOnce(Node) -> F) -> Result<T, Failure>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Failure>> + Send + 'static,
{
    node.exchange.tracker.spawn(work(node.clone())).await.unwrap_or_else(|error| {
        tracing::error!(%error, "a balance request's task failed");
        Err(Failure::internal())
    })
}

fn respond(outcome: Answer) -> Response<Body> {
    let request_id = uuid::Uuid::new_v4().to_string();
    match outcome {
        Ok(value) => {
            let mut response = Response::new(Body::from(value.to_string()));
            let out = response.headers_mut();
            out.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            out.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            headers::put(out, headers::REQUEST_ID, &request_id);
            response
        }
        Err(failure) => envelope::render(&failure, &Asked { request_id: &request_id, ..Asked::default() }),
    }
}
