//! `GET /v1/receipts/{request-id}`: what a request was charged and why, signed by the node.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Response};

use super::envelope::{self, Asked};
use super::refusals::Refusals;
use super::{Node, proxy, shapes};
use crate::exchange::{SignedReceipt, no_receipt};
use crate::failure::Failure;
use crate::http::extract::Path;
use crate::payment;

/// The receipt, for the key or token that paid. Whatever else is shown gets the same 404.
#[utoipa::path(get, path = "/v1/receipts/{id}", tag = "money", summary = "What a request was charged and why, signed by the node", params(("id" = String, Path, description = "Of the request")), responses((status = 200, body = shapes::Receipt), Refusals), security(("bearer" = []), ("cashu" = [])))]
pub async fn one(State(node): State<Node>, Path(id): Path<String>, headers: HeaderMap) -> Response<Body> {
    let found = find(&node, &id, &headers).await.and_then(|receipt| encode(&receipt));
    envelope::answer(found, &Asked { request_id: &super::watch::id(), ..Asked::default() })
}

async fn find(node: &Node, id: &str, headers: &HeaderMap) -> Result<SignedReceipt, Failure> {
    let id = uuid::Uuid::try_parse(id).map_err(|_| no_receipt())?.to_string();
    let credentials = proxy::credentials(headers).map_err(|_| no_receipt())?;
    let remembers = |key: &str| node.exchange.till.remembers(key);
    let payment = payment::read(credentials, remembers).map_err(|_| no_receipt())?;
    node.exchange.receipt(&id, &payment).await
}

fn encode(receipt: &SignedReceipt) -> Result<String, Failure> {
    serde_json::to_string(receipt).map_err(|error| {
        tracing::error!(%error, "a receipt could not be written");
        Failure::internal()
    })
}
